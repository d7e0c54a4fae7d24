"""The field's figures over expressions, from counts of pixels. Definitions: RefCOCO's and gRefCOCO's protocols.

A target that the model refuses counts as an intersection of 0 and its own pixels as union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ris_core.masks import Mask

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Score:
    """How one expression came out: pixels of intersection and union, and whether the model said "not there"."""

    intersection: int
    union: int
    has_target: bool
    refused: bool

    @property
    def iou(self) -> float:
        return self.intersection / self.union if self.union else 1.0

    @property
    def correct(self) -> float:
        """IoU where there is a target; without one 1 for a refusal, else 0. Its mean is gRefCOCO's gIoU."""
        return self.iou if self.has_target else float(self.refused)


def score(prediction: Mask, target: Mask | None, refused: bool) -> Score:
    """Compare two HxW masks; `target` is None for a thing that isn't there, and a refused prediction is empty."""
    truth = np.zeros_like(prediction) if target is None else target
    given = np.zeros_like(prediction) if refused else prediction
    return Score(
        intersection=int(np.count_nonzero(given & truth)),
        union=int(np.count_nonzero(given | truth)),
        has_target=target is not None,
        refused=refused,
    )


def summarise(scores: Sequence[Score]) -> dict[str, float | int]:
    """expressions, oIoU, mIoU and Prec@X over those with a target, T-acc and N-acc where some have none; in [0, 1]."""
    there = [entry for entry in scores if entry.has_target]
    absent = [entry for entry in scores if not entry.has_target]
    figures: dict[str, float | int] = {"expressions": len(scores)}
    if there:
        ious = np.array([entry.iou for entry in there])
        figures["oIoU"] = sum(entry.intersection for entry in there) / max(1, sum(entry.union for entry in there))
        figures["mIoU"] = float(ious.mean())
        figures |= {f"Prec@{threshold}": float((ious >= threshold).mean()) for threshold in THRESHOLDS}
    if absent:
        figures["N-acc"] = float(np.mean([entry.refused for entry in absent]))
        if there:
            figures["T-acc"] = float(np.mean([not entry.refused for entry in there]))
    return figures
