"""`ris connect` and `ris prompts`: projects of Label Studio, and what is asked for in them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table
from rich.text import Text

from backend.cli.options import JsonOption, ProjectOption, label_studio
from backend.terminal import err, out, say
from ris_core.errors import InputError

if TYPE_CHECKING:
    from backend.labelstudio.label_config import LabelConfig
    from backend.projects.connect import Connection
    from backend.prompts.sheet import PromptSheet
    from backend.settings import Settings


def connect(
    project: Annotated[Optional[int], typer.Option(help="Number of a project that is there already.")] = None,
    title: Annotated[Optional[str], typer.Option(help="Title of the project; it is made if there is none.")] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(help="File with the new project's labelling interface.", show_default="the sample's"),
    ] = None,
    prompt_box: Annotated[
        Optional[str], typer.Option(help="Name of the TextArea where prompts are typed.", show_default="found")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Connect the backend to a project of Label Studio; again: check the connection."""
    from backend.projects.connect import LABEL_CONFIG, connect_backend, connect_titled

    if (project is None) == (title is None):
        raise InputError("Name one project: --project NUMBER for one that is there, or --title TITLE.")
    if config and not title:
        raise InputError("--config is for a project that is made: name it with --title TITLE.")
    interface = _read(config) if config else LABEL_CONFIG
    with label_studio() as (settings, client):
        if title is not None:
            connection = connect_titled(client, title, interface, settings, prompt_box)
        else:
            assert project is not None
            connection = connect_backend(client, project, settings, prompt_box)
    if as_json:
        print(json.dumps(asdict(connection)))
        return
    for step in _steps(connection, bool(config)):
        say(step)
    say(f"Open {settings.label_studio_url}/projects/{connection.project}/data")


def prompts(
    project: ProjectOption,
    set: Annotated[
        Optional[list[str]], typer.Option(help='LABEL="a prompt | another": how a label is asked for.')
    ] = None,
    negative: Annotated[
        Optional[list[str]], typer.Option(help='LABEL="a prompt": what is taken away from its masks.')
    ] = None,
    alias: Annotated[Optional[list[str]], typer.Option(help='LABEL="a name": what else it is called.')] = None,
    file: Annotated[
        Optional[Path], typer.Option(help="A whole sheet, .json or .csv, instead of what is there.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Begin with an empty sheet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show or change the prompts that a project's batches ask for; LABEL= takes a label's away."""
    from backend.prompts.sheet import EMPTY, edit_sheet, load_sheet, read_sheet
    from backend.settings import load

    settings = load(project)
    assignments = {"prompts": set, "negatives": negative, "aliases": alias}
    changes = [(kind, *_assignment(text)) for kind, texts in assignments.items() for text in texts or ()]
    # What is taken away (LABEL=) may be a label that the project has no more.
    if unknown := _unknown(settings, project, [label for _, label, sentences in changes if sentences]):
        raise InputError(unknown[0])
    given = read_sheet(file) if file else None

    def change(sheet: PromptSheet) -> PromptSheet:
        sheet = given or (EMPTY if clear else sheet)
        for kind, label, sentences in changes:
            sheet = sheet.change(label, **{kind: sentences})
        return sheet

    before = load_sheet(settings.home, project)
    sheet = edit_sheet(settings.home, project, change) if changes or file or clear else before
    for sentence in _unknown(settings, project, sheet.entries):
        err.print(sentence, markup=False, highlight=False)
    if as_json:
        print(json.dumps(sheet.as_json(), ensure_ascii=False))
        return
    _show(sheet, project)
    if sheet != before:
        say("Predictions have another version from now on: retrieve them again.")


def _steps(connection: Connection, given_config: bool) -> Iterator[str]:
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
    yield connection.prompts


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} can't be read as a labelling interface ({error}). Check its name.") from None


def _assignment(text: str) -> tuple[str, list[str]]:
    from backend.prompts.label_matching import alternatives

    label, equals, sentences = text.partition("=")
    if not equals or not label.strip():
        raise InputError(f'{text!r} isn\'t LABEL=SENTENCE, such as "dog=the dog | the puppy".')
    return label.strip(), alternatives(sentences)


def _show(sheet: PromptSheet, project: int) -> None:
    if not sheet.entries:
        say(f"Project {project} has no prompt sheet.")
        return
    table = Table("label", "asked for by", "without", "also called", title=f"Prompt sheet of project {project}")
    for label, fields in sheet.as_json().items():
        cells = (label, *("\n".join(fields[kind]) for kind in ("prompts", "negatives", "aliases")))
        table.add_row(*map(Text, cells))
    out.print(table)


def _unknown(settings: Settings, project: int, sought: Iterable[str]) -> list[str]:
    """A sentence for each label that the project hasn't, as far as its interface is known here."""
    config = _interface(settings, project)
    labels = [name for label in config.labels for name in (label.value, label.stored)] if config else []
    sentences = []
    for label in sought if labels else ():
        if label not in labels:
            near = difflib.get_close_matches(label, labels, 1)
            advice = f'Did you mean "{near[0]}"?' if near else f"It has {', '.join(dict.fromkeys(labels))}."
            sentences.append(f'The labelling interface has no label "{label}". {advice}')
    return sentences


def _interface(settings: Settings, project: int) -> LabelConfig | None:
    from backend.errors import ConfigError
    from backend.home import interface_file
    from backend.labelstudio.label_config import parse

    try:
        return parse(interface_file(settings.home, project).read_text(encoding="utf-8"))
    except (FileNotFoundError, ConfigError):
        return None
