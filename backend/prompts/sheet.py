"""A project's prompt sheet: how each label is asked for, by what other names it goes, and what it isn't.

    <home>/projects/7.prompts.json
    {"person": {"prompts": ["a person", "a cyclist"], "negatives": ["a statue"], "aliases": ["pedestrian"]}}

People write it by hand or by `ris prompts`; it is replaced in one step. As CSV it has a line a label with the columns
label, prompt, negative and alias; alternatives are separated by |, or stand on further lines. Knows no model.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.errors import BadRequest
from backend.home import prompt_sheet_file
from backend.locks import exclusive
from backend.prompts.label_matching import alternatives, bare
from ris_core.files import atomic_write

MAX_BYTES = 1 << 20
MAX_LENGTH = 500

_COLUMNS = {"prompt": "prompts", "negative": "negatives", "alias": "aliases"}


class SheetError(BadRequest, code="bad_prompt_sheet"):
    """A prompt sheet that can't be read, or that says something impossible."""


@dataclass(frozen=True)
class SheetEntry:
    """What the sheet says of one label."""

    prompts: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(asdict(self).values())


@dataclass(frozen=True)
class PromptSheet:
    """The entries by label, as the labelling interface calls it: by value or by alias."""

    entries: Mapping[str, SheetEntry] = field(default_factory=dict)

    def entry(self, *names: str | None) -> SheetEntry:
        """The entry of the label with these names; an empty one if there is none."""
        return next((self.entries[name] for name in names if name and name in self.entries), SheetEntry())

    def names(self, *names: str | None) -> list[str]:
        """What else the label is called, its prompts without their articles among them."""
        entry = self.entry(*names)
        return [*entry.aliases, *map(bare, entry.prompts)]

    def change(self, label: str, **fields: Iterable[str]) -> PromptSheet:
        """The sheet with other `prompts`, `negatives` or `aliases` of a label. Raises SheetError."""
        entry = replace(self.entry(label), **{name: tuple(values) for name, values in fields.items()})
        return PromptSheet(_checked({**self.entries, label: entry}))

    def as_json(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """As `parse_json` reads it, once it is JSON."""
        return {label: asdict(entry) for label, entry in self.entries.items()}


EMPTY = PromptSheet()


def load_sheet(home: Path, project: int) -> PromptSheet:
    """A project's sheet, an empty one where it has none. Raises SheetError, which names the file."""
    file = prompt_sheet_file(home, project)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return EMPTY
    return parse_json(content, file.name)


def edit_sheet(home: Path, project: int, change: Callable[[PromptSheet], PromptSheet]) -> PromptSheet:
    """Change a project's sheet; editors wait for each other, readers see the old one or the new one.

    Raises SheetError, and then nothing is changed.
    """
    file = prompt_sheet_file(home, project)
    with exclusive(file.with_suffix(".lock")):
        sheet = change(load_sheet(home, project))
        if sheet.entries:
            atomic_write(file, f"{json.dumps(sheet.as_json(), indent=2, ensure_ascii=False)}\n".encode(), mode=0o600)
        else:
            file.unlink(missing_ok=True)
    return sheet


def read_sheet(file: Path) -> PromptSheet:
    """A sheet that somebody wrote, as JSON or CSV, by the file's name. Raises SheetError."""
    parse = {".json": parse_json, ".csv": parse_csv}.get(file.suffix.lower())
    if parse is None:
        raise SheetError(f"{file.name} is neither .json nor .csv: save the prompt sheet as one of them.")
    try:
        return parse(file.read_bytes(), file.name)
    except OSError as error:
        raise SheetError(f"{file} can't be read ({error.strerror}): check its name.") from None


def parse_json(content: bytes, name: str = "The prompt sheet") -> PromptSheet:
    """Raises SheetError if it isn't {label: {"prompts": [...], "negatives": [...], "aliases": [...]}}."""
    _check_size(content, name)
    try:
        labels = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SheetError(f"{name} isn't JSON ({error}): correct it, or delete it.") from None
    if not isinstance(labels, dict):
        raise SheetError(f'{name} should be an object such as {{"cat": {{"prompts": ["the cat"]}}}}.')
    return PromptSheet(_checked({label: _entry(label, value, name) for label, value in labels.items()}, name))


def parse_csv(content: bytes, name: str = "The prompt sheet") -> PromptSheet:
    """Raises SheetError if it hasn't the columns label, prompt, negative, alias; only the first is needed."""
    _check_size(content, name)
    try:
        # A spreadsheet marks its UTF-8 with a byte order mark.
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        unknown = set(rows.fieldnames or ()) - {"label", *_COLUMNS}
        if unknown or "label" not in (rows.fieldnames or ()):
            raise SheetError(f"{name} should have the columns label, prompt, negative, alias in its first line.")
        return PromptSheet(_checked(_rows(rows, name), name))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(f"{name} isn't a CSV file in UTF-8 ({error}). Save it as one.") from None


def _rows(rows: Iterable[dict[str | Any, str | Any]], name: str) -> dict[str, SheetEntry]:
    labels: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows, 2):
        if None in row:
            raise SheetError(f'Line {number} of {name} has more columns than its first: put commas inside "quotes".')
        for column, kind in _COLUMNS.items():
            labels[(row["label"] or "").strip()][kind] += alternatives(row.get(column) or "")
    return {label: _as_entry(kinds) for label, kinds in labels.items()}


def _entry(label: str, value: object, name: str) -> SheetEntry:
    if not isinstance(value, dict) or not value.keys() <= set(_COLUMNS.values()):
        kinds = ", ".join(_COLUMNS.values())
        raise SheetError(f'The label "{label}" of {name} should hold lists called {kinds} and nothing else.')
    for kind, sentences in value.items():
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise SheetError(f'"{kind}" of the label "{label}" of {name} should be a list of sentences.')
    return _as_entry(value)


def _as_entry(kinds: Mapping[str, Sequence[str]]) -> SheetEntry:
    return SheetEntry(**{kind: tuple(sentences) for kind, sentences in kinds.items()})


def _checked(entries: Mapping[str, SheetEntry], name: str = "The prompt sheet") -> dict[str, SheetEntry]:
    """The entries that say something, with clean sentences, each once."""
    return {label.strip(): tidy for label, entry in entries.items() if (tidy := _tidied(label, entry, name))}


def _tidied(label: str, entry: SheetEntry, name: str) -> SheetEntry:
    if not label.strip():
        raise SheetError(f"{name} has an entry without a label: say which label it is for.")
    tidied: dict[str, tuple[str, ...]] = {}
    for kind, sentences in asdict(entry).items():
        tidied[kind] = tuple(dict.fromkeys(" ".join(sentence.split()) for sentence in sentences))
        for length in map(len, tidied[kind]):
            if not 0 < length <= MAX_LENGTH:
                text = f'"{kind}" of the label "{label}" of {name} has a sentence of {length} characters'
                raise SheetError(f"{text}: write 1 to {MAX_LENGTH}.")
    return SheetEntry(**tidied)


def _check_size(content: bytes, name: str) -> None:
    if len(content) > MAX_BYTES:
        raise SheetError(f"{name} has {len(content)} bytes, more than {MAX_BYTES}: a sheet holds a few lines a label.")
