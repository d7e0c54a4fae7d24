"""`ris import`: what people have, brought into a project of Label Studio."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from backend.cli.options import JsonOption, label_studio
from backend.terminal import bar, err, say
from ris_core.errors import DatasetError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.datasets.imports.folders import Finding, FoundFolder
    from backend.datasets.imports.importer import ImportReport
    from backend.labelstudio.client import LabelStudio
    from backend.settings import Settings

# Of one kind; --json has all.
_MOST_FINDINGS = 10


def import_(
    folder: Annotated[
        Path, typer.Argument(help="A COCO dataset, an export of ours, or pictures alone.", show_default=False)
    ],
    project: Annotated[Optional[int], typer.Option(help="Number of the project in Label Studio.")] = None,
    create: Annotated[
        Optional[str], typer.Option(help="Title of a project of its own; it is made if there is none.")
    ] = None,
    as_: Annotated[
        str, typer.Option("--as", help="What masks become: annotations, as if submitted, or predictions to correct.")
    ] = "annotations",
    model_version: Annotated[
        Optional[str], typer.Option(help="What the predictions' model is called.", show_default="imported")
    ] = None,
    add_labels: Annotated[
        bool, typer.Option("--add-labels", help="Add labels that the interface lacks, with the dataset's numbers.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Look through everything first; import nothing if something is wrong.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a COCO dataset, an export or a folder of pictures into a project; again: go on where it stopped."""
    from backend.datasets.imports.folders import read_import_folder
    from backend.datasets.imports.importer import FolderImport, ImportOptions, check_folder
    from backend.datasets.imports.labels import check_labels
    from backend.labelstudio.label_config import Defaults, parse

    if as_ not in ("annotations", "predictions"):
        raise InputError(f"--as {as_} isn't known. Write annotations or predictions.")
    if model_version and as_ != "predictions":
        raise InputError("--model-version is for --as predictions: annotations are people's.")
    if (project is None) == (create is None):
        raise InputError("Name one project: --project NUMBER for one that is there, or --create TITLE.")
    found = read_import_folder(folder)
    with label_studio(project) as (settings, client):
        number = project if project is not None else _made(client, str(create), found)
        xml = _interface(client, settings, number, found, add_labels)
        config = parse(xml, Defaults.of(settings.of_project(number)))
        check_labels(found, config)
        options = ImportOptions(
            "predictions" if as_ == "predictions" else "annotations",
            model_version or "imported",
            settings.max_image_bytes,
            settings.max_image_pixels,
        )
        if strict and (findings := check_folder(found, config, options)):
            _tell(findings)
            raise DatasetError(f"Nothing was imported: {len(findings)} things in {folder} aren't as they should be.")
        with bar("Importing", found.total) as on_progress:
            work = FolderImport(client, number, config, settings.home, options)
            report = work.run(found, lambda done, detail: on_progress(done, detail=detail))
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return
    say(_summary(report))
    _tell(report.findings)
    say(f"Open {settings.label_studio_url}/projects/{number}/data")
    if create is not None:
        say(f"To have prompts answered there: ris connect --project {number}")


def _made(client: LabelStudio, title: str, found: FoundFolder) -> int:
    """The project of that title, made for what was found if there is none."""
    from backend.datasets.imports.labels import interface_for

    known = next((project for project in client.projects() if project["title"] == title), None)
    return int((known or client.create_project(title, interface_for(found)))["id"])


def _interface(client: LabelStudio, settings: Settings, project: int, found: FoundFolder, add_labels: bool) -> str:
    """The project's labelling interface, with more labels if it is to have them."""
    from backend.datasets.categories import kept_numbers
    from backend.datasets.imports.labels import with_labels
    from backend.errors import LabelStudioNotFound
    from backend.labelstudio.label_config import Defaults, parse

    try:
        xml = str(client.project(project).get("label_config") or "<View/>")
    except LabelStudioNotFound:
        raise InputError(
            f"There is no project {project}, or the token's owner can't see it. --create TITLE makes one for this."
        ) from None
    config = parse(xml, Defaults.of(settings.of_project(project)))
    wanted = with_labels(xml, config, found, kept_numbers(settings.home, project)) if add_labels else xml
    return xml if wanted == xml else str(client.update_project(project, label_config=wanted)["label_config"])


def _summary(report: ImportReport) -> str:
    there = f"; {report.present:,} pictures were there already" if report.present else ""
    came = ", ".join(f"{count:,} {what}" for what, count in sorted(report.counts.items()) if count) or "nothing"
    return f"{report.tasks:,} tasks were made of {report.pictures:,} pictures{there}. With them came {came}."


def _tell(findings: Sequence[Finding]) -> None:
    """What isn't imported or not as it is, so many of a kind."""
    told: Counter[str] = Counter()
    for finding in findings:
        told[finding.kind] += 1
        if told[finding.kind] <= _MOST_FINDINGS:
            reason = finding.reason.rstrip(".")
            err.print(f"Not as it is: {finding.place}: {reason}.", markup=False, soft_wrap=True)
    for kind, count in told.items():
        if count > _MOST_FINDINGS:
            err.print(f"{count - _MOST_FINDINGS} more of this kind ({kind}): --json lists all.", markup=False)
