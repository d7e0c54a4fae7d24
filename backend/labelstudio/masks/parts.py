"""The connected parts of a mask, cut out. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ris_core.masks import Mask

# More regions than this of one answer hide the image and slow the editor down; the largest parts stay.
_MOST_PARTS = 500


class Part(NamedTuple):
    """A connected part of a mask: its pixels, cut out, and where they were."""

    mask: Mask
    top: int
    left: int


def parts_of(mask: Mask, smallest: float) -> tuple[list[Part], int]:
    """The connected parts of at least that share of the image, largest first, and how many are left out."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    # Number 0 is the background.
    sizes = boxes[1:, cv2.CC_STAT_AREA]
    kept = max(1, min(int(np.count_nonzero(sizes >= smallest * mask.size)), _MOST_PARTS))
    parts = []
    for number in 1 + np.argsort(-sizes, kind="stable")[:kept]:
        left, top, across, down = (int(side) for side in boxes[number, :4])
        parts.append(Part(numbers[top : top + down, left : left + across] == number, top, left))
    return parts, count - 1 - kept


def around(parts: Sequence[Part]) -> Part:
    """One part, full, that encloses all."""
    top, left = min(part.top for part in parts), min(part.left for part in parts)
    bottom, right = np.max([(part.top + part.mask.shape[0], part.left + part.mask.shape[1]) for part in parts], axis=0)
    return Part(np.ones((bottom - top, right - left), dtype=np.bool_), top, left)
