"""What can be told of masks without their picture: their parts and holes, and which of them overlap. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from backend.datasets.dataset import Instance
from ris_core.masks import Mask

TINY = 16
"""Masks and parts of fewer pixels: no more than 4x4, which is one position in the maps of most mask decoders."""

OVERLAP = 0.5
"""Two masks overlap where they share at least so much of the smaller one."""

DUPLICATE = 0.8
"""Two overlapping masks with one label and at least this IoU are taken for the same thing drawn twice."""

# Masks whose overlaps with all others are worked out at once.
_ROWS = 256


@dataclass(frozen=True)
class Shape:
    """parts: pieces that don't touch, not even at a corner. holes: unset pixels enclosed. specks: parts below TINY."""

    parts: int
    holes: int
    specks: int


@dataclass(frozen=True)
class Overlap:
    """Two instances of a picture. share: of the smaller one's pixels that both have, up to 1. iou: of the two."""

    first: Instance
    second: Instance
    share: float
    iou: float

    @property
    def is_duplicate(self) -> bool:
        """Whether it is one thing drawn twice."""
        return self.first.category == self.second.category and self.iou >= DUPLICATE


def shape_of(mask: Mask) -> Shape:
    """HxW bool -> its parts and holes. A mask that is a speck as a whole has none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Shape(0, 0, 0)
    cut = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8), 1)
    _, parts = cv2.connectedComponents(cut, connectivity=8)
    # Beside holes there is the outside. Diagonal neighbours don't connect it: they connect the mask.
    empty, _ = cv2.connectedComponents(1 - cut, connectivity=4)
    areas = np.bincount(parts.ravel())[1:]
    return Shape(len(areas), empty - 2, int((areas < TINY).sum()) if len(areas) > 1 else 0)


def overlaps(instances: Sequence[Instance]) -> Iterator[Overlap]:
    """The pairs that overlap, among the instances of one annotation; those of several people are of the same things."""
    annotations: dict[object, list[Instance]] = {}
    for instance in instances:
        annotations.setdefault(instance.provenance.get("annotation"), []).append(instance)
    for own in annotations.values():
        yield from _overlaps(own)


def _overlaps(instances: Sequence[Instance]) -> Iterator[Overlap]:
    runs = [dict(instance.rle) for instance in instances]
    areas = np.array([instance.area for instance in instances])
    for top in range(0, len(runs), _ROWS):
        rows = slice(top, top + _ROWS)
        # Of a "crowd" COCO tells the share of the first mask that lies within it. Masks apart cost nothing.
        within = np.asarray(coco_mask.iou(runs[rows], runs, [1] * len(runs)))
        shared = np.rint(within * areas[rows, None])
        share = shared / np.maximum(np.minimum.outer(areas[rows], areas), 1)
        iou = shared / np.maximum(np.add.outer(areas[rows], areas) - shared, 1)
        for row, second in np.argwhere(share >= OVERLAP).tolist():
            if top + row < second:
                yield Overlap(instances[top + row], instances[second], share[row, second], iou[row, second])
