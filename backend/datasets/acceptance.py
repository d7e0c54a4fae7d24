"""How annotators took a project's predictions: figures of all expressions, by label and by version."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from backend.datasets.annotations import Correction, Edit
from backend.labelstudio.label_config import LabelConfig, label_name
from backend.prompts.label_matching import find_label
from ris_core.evaluation.convention import ACCEPTED_TOLERANCE

ORIGINS = ("accepted", "corrected", "rejected", "manual", "absent")


@dataclass(frozen=True)
class Answered:
    """One expression of a correction: its label, and what was done to the prediction for it."""

    task: int
    prompt: str
    label: str
    absent: bool
    edit: Edit

    @property
    def origin(self) -> str:
        """Of ORIGINS."""
        return "absent" if self.absent and self.edit.kind != "rejected" else self.edit.kind

    def as_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "prompt": self.prompt,
            "label": self.label,
            "origin": self.origin,
            "iou": self.edit.iou,
            "version": self.edit.version,
        }


def summary(corrections: Sequence[Correction], config: LabelConfig) -> dict[str, Any]:
    """The figures, ready for JSON: `figures` of all expressions, `annotations`, and by_label and by_version the same.

    items: the expressions themselves. lead_time: the median of the annotations', in seconds, None where nobody worked
    in the editor.
    """
    answered = list(_answered(corrections, config))
    times = [correction.lead_time for correction in corrections if correction.lead_time is not None]
    return {
        "annotations": len(corrections),
        **figures(answered),
        "lead_time": median(times) if times else None,
        "by_label": _grouped((answer.label, answer) for answer in answered),
        "by_version": _grouped((answer.edit.version or "none", answer) for answer in answered),
        "items": [answer.as_json() for answer in answered],
    }


def figures(answered: Sequence[Answered]) -> dict[str, Any]:
    """How many expressions there are of each of ORIGINS, and how good the predictions were that are still known.

    compared: how many those are. accepted_share: the share of them that was submitted without a change, those that are
    rightly absent too. iou: their mean IoU with what was submitted,
    that of accepted masks as far as it is known: `ACCEPTED_TOLERANCE`. None where there are none.
    """
    counts = Counter(answer.origin for answer in answered)
    compared = [answer.edit for answer in answered if answer.edit.iou is not None]
    ious = [
        min(answer.edit.iou, ACCEPTED_TOLERANCE if answer.edit.kind == "accepted" and not answer.absent else 1.0)
        for answer in answered
        if answer.edit.iou is not None
    ]
    unchanged = sum(edit.kind == "accepted" for edit in compared)
    return {
        "expressions": len(answered),
        **{origin: counts[origin] for origin in ORIGINS},
        "compared": len(compared),
        "accepted_share": unchanged / len(compared) if compared else None,
        "iou": fmean(ious) if ious else None,
    }


def _answered(corrections: Iterable[Correction], config: LabelConfig) -> Iterator[Answered]:
    for correction in corrections:
        labels = {drawn.region: drawn.label for drawn in correction.objects}
        for expression in correction.expressions:
            meant = next(iter(expression.regions), None)
            label = labels[meant] if meant else label_name(find_label(expression.prompt, config).label)
            edit = expression.edit or Edit("manual")
            yield Answered(correction.task, expression.prompt, label, not expression.regions, edit)


def _grouped(pairs: Iterable[tuple[str, Answered]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Answered]] = defaultdict(list)
    for key, answer in pairs:
        groups[key].append(answer)
    return {key: figures(groups[key]) for key in sorted(groups)}
