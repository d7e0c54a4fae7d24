"""The field's figures over expressions, from counts of pixels. Definitions: RefCOCO's and gRefCOCO's protocols.

A target that the model refuses has an intersection of 0; its union is that of target and raw mask, as if the mask had
been given: ReLA's evaluation does so, others leave only the target's own pixels.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ris_core.evaluation.convention import ACCEPTED_TOLERANCE
from ris_core.inference.calibration import calibration_error, mean, reliability
from ris_core.masks import Mask

Figures: TypeAlias = Mapping[str, float | int]
"""By name, see `summarise`."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
_RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """How one expression came out. Plain numbers: those of several processes are joined, then summarised.

    intersection, union: pixels. refused: the model said "not there". expected: its own score, the IoU to expect.
    accepted: the target is a model's own answer, which a person let stand. distance: as in `RawPrediction`.
    """

    intersection: int
    union: int
    has_target: bool
    refused: bool
    expected: float = 1.0
    accepted: bool = False
    distance: float = 0.0

    @property
    def iou(self) -> float:
        """[0, 1]; 0 where neither is a pixel of the thing nor one was found."""
        return self.intersection / self.union if self.union else 0.0

    @property
    def correct(self) -> float:
        """IoU where there is a target; without one 1 for a refusal, else 0. Its mean is gRefCOCO's gIoU.

        With what was accepted, agreement counts up to ACCEPTED_TOLERANCE [ours].
        """
        if not self.has_target:
            return float(self.refused)
        return min(self.iou, ACCEPTED_TOLERANCE) if self.accepted else self.iou


def score(mask: Mask, target: Mask | None, refused: bool, expected: float = 1.0) -> Score:
    """Compare two HxW masks. `mask` is raw, as if nothing were refused; `target` is None for what isn't there."""
    if target is None:
        return Score(0, 0 if refused else int(np.count_nonzero(mask)), False, refused, expected)
    intersection = 0 if refused else int(np.count_nonzero(mask & target))
    return Score(intersection, int(np.count_nonzero(mask | target)), True, refused, expected)


def summarise(scores: Sequence[Score]) -> dict[str, float | int]:
    """All figures by name; in [0, 1] but for `expressions`. The order of the scores makes no difference.

    oIoU, mIoU, Prec@X: over expressions with a target.
    gIoU, cIoU: gRefCOCO's, over all; N-acc and T-acc: share of absent things refused and of targets answered. Only
    where some things are absent.
    ECE: expected calibration error of the model's own score, see `calibration`.
    """
    targets = [entry for entry in scores if entry.has_target]
    figures: dict[str, float | int] = {"expressions": len(scores)}
    if targets:
        ious = [entry.correct for entry in targets]
        figures |= {"oIoU": _overall(targets), "mIoU": mean(ious)}
        figures |= {f"Prec@{threshold}": mean([iou >= threshold for iou in ious]) for threshold in THRESHOLDS}
    if len(targets) < len(scores):
        figures |= {"gIoU": mean([entry.correct for entry in scores]), "cIoU": _overall(scores)}
        figures["N-acc"] = mean([entry.refused for entry in scores if not entry.has_target])
        if targets:
            figures["T-acc"] = mean([not entry.refused for entry in targets])
    if scores:
        bins = reliability([entry.expected for entry in scores], [entry.correct for entry in scores])
        figures["ECE"] = calibration_error(bins)
    return figures


def interval(scores: Sequence[Score], photos: Sequence[Hashable], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of mIoU: photos are drawn anew, each with all of its expressions; (0, 0) without targets.

    `photos`: which one each score is about. Expressions about one photo succeed and fail together: to draw them one by
    one would make it too narrow.
    """
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for entry, photo in zip(scores, photos, strict=True):
        if entry.has_target:
            groups[photo].append(entry.correct)
    # Sorted, since draws go by position.
    return bootstrap(sorted((sum(sorted(ious)), len(ious)) for ious in groups.values()), seed) if groups else (0.0, 0.0)


def bootstrap(groups: Sequence[tuple[float, int]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean, groups drawn anew; groups: at least one (sum, count) of values that belong together."""
    sums, counts = np.array(groups).T
    draws = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
    low, high = np.quantile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _overall(scores: Sequence[Score]) -> float:
    return sum(entry.intersection for entry in scores) / max(1, sum(entry.union for entry in scores))
