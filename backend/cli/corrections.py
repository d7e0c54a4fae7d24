"""`ris corrections` and `suspects`: how annotators took the predictions, and what they probably got wrong."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from backend.cli.options import JsonOption, ProjectOption, label_studio
from backend.terminal import bar, out, say


def corrections(project: ProjectOption, as_json: JsonOption = False) -> None:
    """Say how annotators took the predictions: accepted, corrected, rejected and so on, by label and version."""
    from backend.datasets.acceptance import summary
    from backend.datasets.project import read_project
    from backend.labelstudio.label_config import Defaults

    with label_studio() as (settings, client):
        defaults = Defaults.of(settings.of_project(project))
        annotated = read_project(client, project, settings.home, defaults)
    left_out = [*annotated.corrections.skipped, *annotated.corrections.remarks]
    figures = summary(annotated.corrections.items, annotated.config)
    if as_json:
        print(json.dumps({"project": project, **figures, "skipped": [asdict(task) for task in left_out]}))
        return
    if not figures["annotations"]:
        out.print(f"Project {project} has no submitted annotation yet.")
        return
    for line in _sentences(project, figures):
        say(line)
    for column in ("label", "version"):
        out.print(_table_of_groups(column, figures[f"by_{column}"]))
    for task in left_out:
        say(f"Task {task.task}: {task.reason}")


def suspects(
    project: ProjectOption,
    count: Annotated[int, typer.Option(min=1, help="Most that are shown.")] = 20,
    pictures: Annotated[
        Optional[Path], typer.Option(help="Folder for pictures of them: both masks on the photo.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List corrections that are probably wrong: the version in production is sure of something else."""
    from backend import services
    from backend.active_learning.label_errors import find_label_errors
    from backend.datasets.snapshots import newest_snapshot
    from backend.settings import load

    settings = load()
    snapshot = newest_snapshot(settings.home, project)
    version = services.registry(settings).current(project)
    with bar("Looking", None) as on_progress:
        errors = asdict(find_label_errors(version.folder, snapshot, count, pictures, on_progress))
    for suspect in errors["suspects"]:
        suspect["link"] = f"{settings.label_studio_url}/projects/{project}/data?task={suspect['task']}"
    if as_json:
        print(json.dumps({"project": project, **errors}, default=str))
        return
    if not errors["suspects"]:
        say(f"None of {errors['corrections']} corrections looks wrong to {version.name}.")
        return
    out.print(_table_of_suspects(version.name, errors["suspects"]))
    # Below the table: a link that a narrow column breaks leads nowhere.
    for place in (*dict.fromkeys(suspect["link"] for suspect in errors["suspects"]), *errors["pictures"]):
        say(f"Look at {place}")


def _sentences(project: int, figures: dict[str, Any]) -> Iterator[str]:
    from backend.datasets.acceptance import ORIGINS

    counts = ", ".join(f"{figures[origin]} {origin}" for origin in ORIGINS)
    yield f"Project {project}: {figures['annotations']} annotations, {figures['expressions']} expressions: {counts}."
    if figures["compared"]:
        yield (
            f"Of {figures['compared']} that a prediction is known for, {figures['accepted_share']:.0%} were submitted "
            f"without a change; the predictions' mean IoU with what was submitted is {figures['iou']:.3f}."
        )
    if figures["lead_time"] is not None:
        yield f"An annotation takes {figures['lead_time']:.1f} s (median)."


def _table_of_groups(name: str, groups: dict[str, dict[str, Any]]) -> Table:
    from backend.datasets.acceptance import ORIGINS

    table = Table(name, *ORIGINS, "without change", "IoU")
    for key, row in groups.items():
        share, iou = row["accepted_share"], row["iou"]
        cells = ["" if share is None else f"{share:.0%}", "" if iou is None else f"{iou:.3f}"]
        table.add_row(escape(key), *(str(row[origin]) for origin in ORIGINS), *cells)
    return table


def _table_of_suspects(version: str, suspects: list[dict[str, Any]]) -> Table:
    table = Table("task", "prompt", f"{version} says", "IoU", "score", title="Corrections to look at again")
    for suspect in suspects:
        iou = "" if suspect["iou"] is None else f"{suspect['iou']:.2f}"
        table.add_row(str(suspect["task"]), escape(suspect["prompt"]), suspect["says"], iou, f"{suspect['score']:.2f}")
    return table
