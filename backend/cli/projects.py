"""What `ris connect` and `ris prompts` do, and what they print."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from backend.errors import ConfigError
from backend.home import interface_file
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import LabelConfig, parse
from backend.projects import connect
from backend.prompts.label_matching import alternatives
from backend.prompts.sheet import EMPTY, PromptSheet, edit_sheet, load_sheet, read_sheet
from backend.settings import Settings
from backend.terminal import err, out
from ris_core.errors import InputError

Assignments = Sequence[str]
"""As typed: LABEL=first | second."""


def connect_project(
    settings: Settings, project: int | None, title: str | None, config: Path | None, as_json: bool
) -> None:
    """Connect the backend to a project by its number, or by its title, and say what was done.

    Raises InputError where the command names no project or two, and what `connect` raises.
    """
    if (project is None) == (title is None):
        raise InputError("Name one project: --project NUMBER for one that is there, or --title TITLE.")
    if config and not title:
        raise InputError("--config is for a project that is made: name it with --title TITLE.")
    interface = _read(config) if config else connect.LABEL_CONFIG
    with LabelStudio.from_settings(settings) as client:
        if title is not None:
            connection = connect.connect_titled(client, title, interface, settings)
        else:
            assert project is not None
            connection = connect.connect_backend(client, project, settings)
    if as_json:
        print(json.dumps(asdict(connection)))
        return
    for line in _steps(connection, bool(config)):
        _say(line)
    _say(f"Open {settings.label_studio_url}/projects/{connection.project}/data")


def edit_prompts(
    settings: Settings,
    project: int,
    prompts: Assignments,
    negatives: Assignments,
    aliases: Assignments,
    file: Path | None,
    clear: bool,
    as_json: bool,
) -> None:
    """Change a project's prompt sheet, if any change is asked for, and show it.

    Raises:
        SheetError: the file, or what came of the changes, is no prompt sheet.
        InputError: an assignment isn't LABEL=SENTENCE.
    """
    changes = [
        (kind, *_assignment(each))
        for kind, given in (("prompts", prompts), ("negatives", negatives), ("aliases", aliases))
        for each in given
    ]
    given = read_sheet(file) if file else None

    def change(sheet: PromptSheet) -> PromptSheet:
        sheet = given or (EMPTY if clear else sheet)
        for kind, label, sentences in changes:
            sheet = sheet.change(label, **{kind: sentences})
        return sheet

    before = load_sheet(settings.home, project)
    sheet = edit_sheet(settings.home, project, change) if changes or file or clear else before
    _warn(settings, project, sheet)
    if as_json:
        print(json.dumps(sheet.as_json(), ensure_ascii=False))
        return
    _show(sheet, project)
    if sheet != before:
        _say("Predictions have another version from now on: retrieve them again.")


def _steps(connection: connect.Connection, given_config: bool) -> Iterable[str]:
    name = f'Project {connection.project}, "{connection.title}",'
    if connection.made:
        yield f"{name} was made."
    elif given_config:
        yield f"{name} was there already; its labelling interface stays as it is."
    if connection.moved_from:
        yield f"Its backend was moved from {connection.moved_from} to {connection.url}."
    elif connection.registered:
        yield f"{name} has the backend at {connection.url} now."
    else:
        yield f"{name} has the backend at {connection.url}, checked and given its password again."
    yield f"Webhook {connection.webhook} tells it of annotations, with the secret header."


def _say(line: str) -> None:
    # An address that is broken into two lines can't be followed.
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} can't be read as a labelling interface ({error}). Check its name.") from None


def _assignment(text: str) -> tuple[str, list[str]]:
    label, equals, sentences = text.partition("=")
    if not equals or not label.strip():
        raise InputError(f'{text!r} isn\'t LABEL=SENTENCE, such as "dog=the dog | the puppy".')
    return label.strip(), alternatives(sentences)


def _show(sheet: PromptSheet, project: int) -> None:
    if not sheet.entries:
        _say(f"Project {project} has no prompt sheet.")
        return
    table = Table("label", "asked for by", "without", "also called", title=f"Prompt sheet of project {project}")
    for label, fields in sheet.as_json().items():
        cells = (label, *("\n".join(fields[kind]) for kind in ("prompts", "negatives", "aliases")))
        table.add_row(*map(Text, cells))
    out.print(table)


def _warn(settings: Settings, project: int, sheet: PromptSheet) -> None:
    """Name the entries that no label of the project reads, as far as its interface is known here."""
    config = _interface(settings, project)
    labels = [name for label in config.labels for name in (label.value, label.stored)] if config else []
    for label in sheet.entries if labels else ():
        if label not in labels:
            near = difflib.get_close_matches(label, labels, 1)
            advice = f'Did you mean "{near[0]}"?' if near else f"It has {', '.join(dict.fromkeys(labels))}."
            err.print(f'The labelling interface has no label "{label}". {advice}', markup=False, highlight=False)


def _interface(settings: Settings, project: int) -> LabelConfig | None:
    try:
        return parse(interface_file(settings.home, project).read_text(encoding="utf-8"))
    except (FileNotFoundError, ConfigError):
        return None
