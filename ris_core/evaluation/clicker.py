"""An annotator, simulated: where somebody clicks who sees an answer and knows the thing. For training and measuring.

The protocol is that of interactive segmentation (Xu et al. 2016): in the middle of the largest part that is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ris_core.masks import Mask, depth


class Click(NamedTuple):
    """column, row: of a cell of the mask. positive: on the thing."""

    column: int
    row: int
    positive: bool


def next_click(answer: Mask, truth: Mask, valid: Mask | None = None) -> Click | None:
    """The click that mends `answer` most; None where it is right everywhere. All HxW bool.

    valid: where there is photo.
    """
    wrong = [truth & ~answer, answer & ~truth]
    if valid is not None:
        wrong = [part & valid for part in wrong]
    missed, extra = (_middle(part) for part in wrong)
    if missed[2] == 0 == extra[2]:
        return None
    positive = missed[2] >= extra[2]
    row, column, _ = missed if positive else extra
    return Click(column, row, positive)


def random_click(truth: Mask, rng: np.random.Generator) -> Click | None:
    """A click that is likelier the further inside the thing; None where there is none."""
    weights = depth(truth).ravel() ** 2
    total = float(weights.sum())
    if total == 0:
        return None
    row, column = divmod(int(rng.choice(len(weights), p=weights / total)), truth.shape[1])
    return Click(column, row, positive=True)


def _middle(part: Mask) -> tuple[int, int, int]:
    """(row, column) of what is furthest from the edge of the largest connected part, and that part's size in cells."""
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8), connectivity=8)
    if count == 1:
        return 0, 0, 0
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    row, column = divmod(int(depth(numbers == largest).argmax()), part.shape[1])
    return row, column, int(stats[largest, cv2.CC_STAT_AREA])
