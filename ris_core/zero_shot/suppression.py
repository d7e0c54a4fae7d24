"""Masks that say the same thing twice: dropped, by overlap and by containment.

Detectors put several boxes on one thing, and a box on a part beside that on the whole; masks tell better than boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of two masks that share so much of their union the less sure one goes (0.9 is usual for masks of detectors),
SAME = 0.9
# and of one that lies inside another by so much of itself.
INSIDE = 0.95
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
