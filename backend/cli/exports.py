"""`ris export`: a project's annotations as a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from backend.cli.jobs import result_of
from backend.cli.options import JsonOption, ProjectOption
from backend.cli.publishing import ToOption, check_publishing, publish_export
from backend.terminal import say

_FORMATS = "What to write: coco, coco-polygons, refcoco, grefcoco, panoptic, yolo, masks, voc or parquet."
_POLICIES = (
    "Which annotations count: best (ground truth, else the last), ground-truth, reviewed, latest, all, consensus-vote "
    "or consensus-staple."
)


def export(
    project: ProjectOption,
    format: Annotated[str, typer.Option(help=_FORMATS)] = "coco",
    name: Annotated[
        Optional[str], typer.Option(help="Folder below .ris/exports.", show_default="project-N-FORMAT")
    ] = None,
    annotations: Annotated[str, typer.Option(help=_POLICIES)] = "best",
    images: Annotated[
        str, typer.Option(help="Picture files: copy, link (nobody may edit them then) or leave.")
    ] = "copy",
    tolerance: Annotated[float, typer.Option(help="How far a polygon may be off its outline, in pixels.")] = 0.0,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if anything has to be left out or looked at.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html, a page with figures and pictures.")] = True,
    to: ToOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a project's annotations as a dataset: masks exact, prompts beside them."""
    from backend.datasets.export import ExportSpec, check_name, usual_name
    from backend.home import exports_folder
    from backend.settings import load

    spec = asdict(
        ExportSpec.of(
            {
                "format": format,
                "annotations": annotations,
                "images": images,
                "tolerance": tolerance,
                "strict": strict,
                "report": report,
            }
        )
    )
    folder = name or usual_name(project, format)
    check_name(folder)
    check_publishing(to)
    made = exports_folder(load().home) / folder
    outcome = result_of(lambda jobs: jobs.export(project, folder, spec))
    if as_json:
        print(json.dumps(outcome | ({"published": publish_export(made, to)} if to else {})))
        return
    for line in _export_sentences(outcome, made):
        say(line)
    if to:
        say(f"Published to {publish_export(made, to)}")


def _export_sentences(outcome: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What a person wants to know of an export."""
    counts = f"{outcome['images']} images, {outcome['annotations']} masks, {outcome['refs']} expressions"
    yield f"{counts} in {folder}"
    for what, count in outcome["left_out"].items():
        yield f"Left out: {count} {what}. `--format coco` has all."
    for problem in outcome["listed"]:
        yield f"Task {problem['task']}: {problem['message']}"
    further = sum(outcome["problems"].values()) - len(outcome["listed"])
    if further > 0:
        yield f"And {further} further problems, in report.json."
