"""What `ris corrections` says: how a project's annotators took the predictions, by label and by version."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from rich.table import Table

from backend.datasets.annotations import UNLABELLED, Change, Correction
from backend.datasets.project import read_project
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import LabelConfig
from backend.prompts.requests import label_for
from backend.settings import Settings
from backend.terminal import out

ORIGINS = ("accepted", "corrected", "manual", "absent")
_UNKNOWN = "none"


@dataclass(frozen=True)
class Answered:
    """One expression of a correction: its label, and what was done to the prediction for it."""

    label: str
    absent: bool
    change: Change


def show(settings: Settings, project: int, as_json: bool) -> None:
    """Print a project's acceptance figures. Raises LabelStudioError, ConfigError."""
    with LabelStudio.from_settings(settings) as client:
        found = read_project(client, project, settings.home)
    items = found.corrections.items
    figures = summary(items, found.config)
    if as_json:
        skipped = [{"task": task.task, "reason": task.reason} for task in found.corrections.skipped]
        print(json.dumps({"project": project, **figures, "skipped": skipped}))
        return
    if not items:
        out.print(f"Project {project} has no submitted annotation yet.")
        return
    for line in _sentences(project, figures):
        out.print(line, markup=False, soft_wrap=True)
    for column in ("label", "version"):
        out.print(_table(column, figures[f"by_{column}"]))


def summary(corrections: Sequence[Correction], config: LabelConfig) -> dict[str, Any]:
    """The figures, ready for JSON: `figures` of all expressions, `annotations`, and by_label and by_version the same.

    lead_time: the median of the annotations', in seconds, None where nobody worked in the editor.
    """
    answered = list(_answered(corrections, config))
    times = [item.lead_time for item in corrections if item.lead_time is not None]
    return {
        "annotations": len(corrections),
        **figures(answered),
        "lead_time": median(times) if times else None,
        "by_label": _grouped((each.label, each) for each in answered),
        "by_version": _grouped((each.change.version or _UNKNOWN, each) for each in answered),
    }


def figures(answered: Sequence[Answered]) -> dict[str, Any]:
    """How many expressions there are of each of ORIGINS, and how good the predictions were that are still known.

    compared: how many those are. accepted_share: the share of them that was submitted without a change, those that are
    rightly absent too. iou: their mean IoU with what was submitted. None where there are none.
    """
    counts = Counter("absent" if each.absent else each.change.kind for each in answered)
    compared = [each.change for each in answered if each.change.iou is not None]
    unchanged = sum(change.kind == "accepted" for change in compared)
    return {
        "expressions": len(answered),
        **{origin: counts[origin] for origin in ORIGINS},
        "compared": len(compared),
        "accepted_share": unchanged / len(compared) if compared else None,
        "iou": fmean(change.iou for change in compared if change.iou is not None) if compared else None,
    }


def _answered(corrections: Iterable[Correction], config: LabelConfig) -> Iterator[Answered]:
    for correction in corrections:
        labels = {drawn.region: drawn.label for drawn in correction.objects}
        for each in correction.expressions:
            named = [labels[region] for region in each.regions] or [_named(each.prompt, config)]
            yield Answered(named[0], not each.regions, each.change or Change("manual"))


def _named(prompt: str, config: LabelConfig) -> str:
    return label_for(prompt, config).value if config.labels else UNLABELLED


def _grouped(pairs: Iterable[tuple[str, Answered]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Answered]] = defaultdict(list)
    for key, each in pairs:
        groups[key].append(each)
    return {key: figures(groups[key]) for key in sorted(groups)}


def _sentences(project: int, figures: dict[str, Any]) -> Iterator[str]:
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
    table = Table(name, *ORIGINS, "without change", "IoU")
    for key, row in groups.items():
        share, iou = row["accepted_share"], row["iou"]
        cells = ["" if share is None else f"{share:.0%}", "" if iou is None else f"{iou:.3f}"]
        table.add_row(key, *(str(row[origin]) for origin in ORIGINS), *cells)
    return table
