"""Builders of what several annotators say of one task, as it is after reading."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.datasets.annotations import Correction, DrawnObject, Expression
from ris_core.masks import encode_rle

Mask = NDArray[np.bool_]


def box(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (20, 24)) -> Mask:
    """A rectangle of pixels, bottom and right beyond it."""
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def thing(mask: Mask, label: str = "cat", region: str = "", **more: Any) -> DrawnObject:
    return DrawnObject(region or f"r{mask.sum()}", label, encode_rle(mask), **{"origin": "manual", **more})


def person(
    number: int, *objects: DrawnObject, said: dict[str, tuple[str, ...]] | None = None, **more: Any
) -> Correction:
    """What annotator 100 + number drew in annotation number. said: sentences, and the regions that they mean."""
    expressions = tuple(Expression(prompt, regions) for prompt, regions in (said or {}).items())
    head = {"task": 7, "annotation": number, "image": "/photo.png", "completed_by": 100 + number}
    return Correction(**{**head, "objects": objects, "expressions": expressions, **more})
