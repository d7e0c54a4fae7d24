"""Masks and boxes that say the same thing twice: dropped, masks by overlap and by containment.

Detectors put several boxes on one thing, and a box on a part beside that on the whole; masks tell better than boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of two masks that share so much of their union the less sure one goes (0.9 is usual for masks of detectors),
SAME = 0.9
# and of one that lies inside another by so much of itself.
INSIDE = 0.95
# Of boxes only those go that share nearly all: two things may be in much the same box, one before the other.
SAME_BOX = 0.8
# Masks are compared with so many others at once.
_CHUNK = 64


def distinct(masks: Tensor, scores: Tensor, same: float = SAME, inside: float = INSIDE) -> list[int]:
    """(K, h, w) bool and (K,) -> the numbers of those to keep, surest first; empty masks aren't kept."""
    if not len(masks):
        return []
    flat = masks.flatten(1)
    areas = flat.sum(dim=1)
    kept: list[int] = []
    for number in torch.argsort(scores, descending=True, stable=True).tolist():
        if not areas[number] or _repeats(flat, areas, number, kept, same, inside):
            continue
        kept.append(number)
    return kept


def _repeats(flat: Tensor, areas: Tensor, number: int, kept: list[int], same: float, inside: float) -> bool:
    for start in range(0, len(kept), _CHUNK):
        others = kept[start : start + _CHUNK]
        shared = (flat[others] & flat[number]).sum(dim=1)
        union = areas[others] + areas[number] - shared
        if bool((shared >= same * union).any()) or bool((shared >= inside * areas[number]).any()):
            return True
    return False


def distinct_boxes(boxes: Tensor, scores: Tensor, most: int, same: float = SAME_BOX) -> list[int]:
    """(K, 4) left, top, right, bottom, none of them empty, and (K,) -> the numbers of the `most` to keep, surest first.

    Greedy non-maximum suppression by IoU.
    """
    left = torch.argsort(scores, descending=True, stable=True)
    kept: list[int] = []
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(int(first))
        left = left[_iou(boxes[first], boxes[left]) < same]
    return kept


def _iou(box: Tensor, others: Tensor) -> Tensor:
    """(4,) and (K, 4) -> (K,)."""
    shared = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp_min(0).prod(dim=1)
    areas = (others[:, 2:] - others[:, :2]).prod(dim=1)
    return shared / (areas + (box[2:] - box[:2]).prod() - shared)
