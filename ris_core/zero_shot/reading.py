"""From what a network found to an answer at the photo's size, and to the part of it that somebody points at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ris_core.inference.frame import Frame, to_photos
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.prompt import Box, Prompt
from ris_core.masks import Mask
from ris_core.zero_shot.network import Found
from ris_core.zero_shot.suppression import distinct

_NOBODY = -1


class Things(Sequence[Mask]):
    """Disjoint masks, each cut from one map when it is asked for: all of them, of a large photo, would take gigabytes.

    owners: HxW, whose each pixel is, by number. numbers: of those whose masks these are, in order.
    """

    def __init__(self, owners: NDArray[np.int16], numbers: Sequence[int]) -> None:
        self._owners, self._numbers = owners, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Mask: ...
    @overload
    def __getitem__(self, place: slice) -> Things: ...
    def __getitem__(self, place: int | slice) -> Mask | Things:
        if isinstance(place, slice):
            return Things(self._owners, self._numbers[place])
        return np.asarray(self._owners == self._numbers[place], dtype=np.bool_)


def read(found: Found, frame: Frame, threshold: float) -> RawPrediction:
    """What was found at the photo's size; where it consists of things, each pixel of it belongs to one of them.

    threshold: probability from which a pixel belongs to the mask.
    """
    numbers = list(range(len(found.masks)))
    if found.apart:
        numbers = distinct(found.masks.float().sigmoid() >= threshold, found.scores)
    if not numbers:
        return RawPrediction(np.zeros(frame.size, np.float32), found.presence, 0.0)
    logits, owners = _united(found.masks, numbers, frame.canvas)
    [probability] = to_photos(logits[None, None], [frame])
    # Of what is there if anything is: presence counts once, beside quality.
    quality = min(1.0, float((found.scores * found.qualities).max()) / max(found.presence, 1e-6))
    things = _things(owners, probability >= threshold, frame, numbers) if found.apart else ()
    return RawPrediction(probability, found.presence, quality, things=things)


def _united(masks: Tensor, numbers: Sequence[int], canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(K, h, w) logits -> on the canvas, the highest of those of `numbers`, and whose it is; one after the other."""
    best = torch.full(canvas, -torch.inf, device=masks.device)
    owners = torch.full(canvas, _NOBODY, dtype=torch.int16, device=masks.device)
    for number in numbers:
        own = F.interpolate(masks[number].float()[None, None], size=canvas, mode="bilinear", align_corners=False)[0, 0]
        owners.masked_fill_(own > best, number)
        torch.maximum(best, own, out=best)
    return best, owners


def _things(owners: Tensor, mask: Mask, frame: Frame, numbers: Sequence[int]) -> Things:
    """Those that the mask consists of, surest first."""
    rows, columns = frame.inner
    small = np.ascontiguousarray(owners[:rows, :columns].cpu().numpy())
    full = cv2.resize(small, frame.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    full[~mask] = _NOBODY
    areas = np.bincount(full.ravel() + 1, minlength=max(numbers) + 2)[1:]
    return Things(np.asarray(full, dtype=np.int16), [number for number in numbers if areas[number]])


def pointed_part(prompt: Prompt, said: RawPrediction) -> NDArray[np.float32] | None:
    """HxW: of what words found the things that are pointed at, or all where somebody only points beside them.

    None where they found nothing, or something else than is pointed at.
    """
    meant = [thing for thing in said.things if _is_pointed_at(prompt, thing)]
    return np.where(reduce(np.logical_or, meant), said.probability, np.float32(0)) if meant else None


def _is_pointed_at(prompt: Prompt, thing: Mask) -> bool:
    height, width = thing.shape
    clicks = [point for point in prompt.points if point.positive]
    if prompt.box is not None and not _mostly_inside(thing, prompt.box):
        return False
    return not clicks or any(
        thing[min(int(point.y * height), height - 1), min(int(point.x * width), width - 1)] for point in clicks
    )


def _mostly_inside(thing: Mask, box: Box) -> bool:
    height, width = thing.shape
    rows = slice(round(box.top * height), round(box.bottom * height))
    columns = slice(round(box.left * width), round(box.right * width))
    return 2 * int(np.count_nonzero(thing[rows, columns])) > int(np.count_nonzero(thing))
