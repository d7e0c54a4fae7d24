"""`ris corrections`: how a project's annotators took the predictions."""

import json
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from backend.cli.options import JsonOption, ProjectOption
from backend.terminal import out, say


def corrections(project: ProjectOption, as_json: JsonOption = False) -> None:
    """Say how annotators took the predictions: accepted, corrected, drawn by hand or absent, by label and version."""
    from backend.datasets.acceptance import summary
    from backend.datasets.project import read_project
    from backend.labelstudio.client import LabelStudio
    from backend.settings import load

    settings = load()
    with LabelStudio.from_settings(settings) as client:
        annotated = read_project(client, project, settings.home)
    figures = summary(annotated.corrections.items, annotated.config)
    if as_json:
        skipped = [{"task": task.task, "reason": task.reason} for task in annotated.corrections.skipped]
        print(json.dumps({"project": project, **figures, "skipped": skipped}))
        return
    if not figures["annotations"]:
        out.print(f"Project {project} has no submitted annotation yet.")
        return
    for line in _sentences(project, figures):
        say(line)
    for column in ("label", "version"):
        out.print(_table(column, figures[f"by_{column}"]))


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


def _table(name: str, groups: dict[str, dict[str, Any]]) -> Table:
    from backend.datasets.acceptance import ORIGINS

    table = Table(name, *ORIGINS, "without change", "IoU")
    for key, row in groups.items():
        share, iou = row["accepted_share"], row["iou"]
        cells = ["" if share is None else f"{share:.0%}", "" if iou is None else f"{iou:.3f}"]
        table.add_row(escape(key), *(str(row[origin]) for origin in ORIGINS), *cells)
    return table
