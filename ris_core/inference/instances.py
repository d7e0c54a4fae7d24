"""One mask a thing: where a prompt's mask covers several things, also ones that touch, each of them by itself.

Ours: points all over the mask are clicked on, each by itself, and of the masks that come back those stay which clicks
on other points of the same thing would give as well. No detector and no class is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Point, Prompt
from ris_core.inference.segmenter import PreparedImage, Segmenter
from ris_core.masks import Mask, depth

# Points clicked on, at most; enough for a dozen things.
_SEEDS = 32
# How closely they lie, as a share of the photo's longer side, where the mask is small.
_SPACING = 0.04
# Clicks all over a part have to agree on what they give by so much, in mean IoU, before it comes apart,
_AGREED = 0.6
# what they give has to have this share of the part each, and this share together,
_LEAST, _TOGETHER = 0.1, 0.6
# and of two that share so much of either one is dropped.
_SAME = 0.4
# Parts of which each click gives so much of the other belong to one thing that something hides in part.
_JOINED = 0.6
# A part with less than this share of the mask is no thing, and goes with the nearest.
_SPECK = 0.01
# Proposals are compared at about this many pixels along the longer side.
_COARSE = 160


def tell_apart(segmenter: Segmenter, image: PreparedImage, answer: Prediction) -> Prediction:
    """The answer with its things, which some models see by themselves; raises as `split` does."""
    if answer.things:
        return answer
    return replace(answer, things=split(segmenter, image, answer.mask)) if answer.present else answer


def one_each(answer: Prediction) -> list[Prediction]:
    """An answer for each of its things; itself where they weren't told apart."""
    return [replace(answer, mask=thing, things=()) for thing in answer.things] or [answer]


def split(segmenter: Segmenter, image: PreparedImage, mask: Mask) -> list[Mask]:
    """HxW bool of an answer -> disjoint masks, one a thing, largest first; together they are `mask`.

    Raises PromptError if the model can't be clicked on, OutOfMemory as `Segmenter.segment` does.
    """
    if not mask.any():
        return []
    large = _without_specks(mask)
    seeds = _seeds(large)
    clicks = [Prompt(points=[_point(seed, mask.shape)]) for seed in seeds]
    proposals = _Proposals(seeds, [answer.mask & large for answer in segmenter.segment(image, clicks)], _parts(large))
    things = [thing for group in proposals.joined() for thing in proposals.apart(group)]
    return sorted(_partition(mask, things), key=lambda thing: -np.count_nonzero(thing))


class _Proposals:
    """What clicks on a mask gave. parts: HxW, the number of the connected part, from 1; 0 beside the mask."""

    def __init__(self, seeds: Sequence[tuple[int, int]], masks: Sequence[Mask], parts: NDArray[np.int32]) -> None:
        self._masks, self._parts = masks, parts
        self._part = np.array([parts[seed] for seed in seeds])
        small, coarse = [_small(mask) for mask in masks], _small(parts)
        flat = np.array([mask.ravel() for mask in small], dtype=np.float32)
        self._areas = np.maximum(flat.sum(axis=1), 1)
        self._overlap = flat @ flat.T
        ious = self._overlap / (self._areas[:, None] + self._areas[None] - self._overlap)
        scale = coarse.shape[0] / parts.shape[0], coarse.shape[1] / parts.shape[1]
        at = [(int(row * scale[0]), int(column * scale[1])) for row, column in seeds]
        on = np.array([[mask[place] for place in at] for mask in small])
        np.fill_diagonal(on, True)
        # A thing is what a click anywhere on it gives. Two things in one proposal are given by few clicks on either.
        self._agreement = (ious * on).sum(axis=1) / on.sum(axis=1)
        # Of each part how much each proposal has.
        sizes = np.bincount(coarse.ravel(), minlength=int(parts.max()) + 1)
        shares = [np.bincount(coarse[mask], minlength=len(sizes)) for mask in small]
        self._shares = np.array(shares) / np.maximum(sizes, 1)

    def joined(self) -> list[list[int]]:
        """Numbers of the parts, those of one thing together."""
        count = int(self._parts.max())
        given = np.array([self._shares[self._part == part].mean(axis=0) for part in range(1, count + 1)])[:, 1:]
        together = np.minimum(given, given.T) >= _JOINED
        groups: list[list[int]] = []
        for part in range(count):
            group = next((group for group in groups if any(together[part, other - 1] for other in group)), None)
            if group is None:
                groups.append([part + 1])
            else:
                group.append(part + 1)
        return groups

    def apart(self, group: Sequence[int]) -> list[Mask]:
        """The things in parts that belong together: mostly one."""
        whole = np.isin(self._parts, group)
        size = sum(np.count_nonzero(_small(self._parts) == part) for part in group)
        kept: list[int] = []
        for number in np.argsort(-self._agreement, kind="stable"):
            inside = self._part[number] in group and self._areas[number] >= _LEAST * size
            if inside and self._agreement[number] >= _AGREED and not self._known(number, kept):
                kept.append(int(number))
        if len(kept) < 2 or sum(self._areas[number] for number in kept) < _TOGETHER * size:
            return [whole]
        return _partition(whole, [self._masks[number] & whole for number in kept])

    def _known(self, number: int, kept: Sequence[int]) -> bool:
        return any(
            self._overlap[number, other] >= _SAME * min(self._areas[number], self._areas[other]) for other in kept
        )


def _without_specks(mask: Mask) -> Mask:
    parts = _parts(mask)
    sizes = np.bincount(parts.ravel())
    large = sizes >= _SPECK * np.count_nonzero(mask)
    large[0] = False
    return np.asarray(large[parts]) if large.any() else mask


def _parts(mask: Mask) -> NDArray[np.int32]:
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(parts, dtype=np.int32)


def _seeds(mask: Mask) -> list[tuple[int, int]]:
    """(row, column) of points spread over the mask, deep inside first; each connected part has one at least."""
    parts = _parts(mask)
    inward = depth(mask)
    spacing = max(_SPACING * max(mask.shape), float(np.sqrt(np.count_nonzero(mask) / _SEEDS)))
    free = inward.copy()
    seeds: list[tuple[int, int]] = []
    while len(seeds) < _SEEDS and free.max() > 0:
        row, column = divmod(int(free.argmax()), mask.shape[1])
        seeds.append((row, column))
        cv2.circle(free, (column, row), max(1, round(spacing)), 0, -1)
    for part in sorted(set(range(1, int(parts.max()) + 1)) - {int(parts[seed]) for seed in seeds}):
        row, column = divmod(int(np.where(parts == part, inward, 0).argmax()), mask.shape[1])
        seeds.append((row, column))
    return seeds


def _point(seed: tuple[int, int], shape: tuple[int, ...]) -> Point:
    return Point((seed[1] + 0.5) / shape[1], (seed[0] + 0.5) / shape[0])


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """HxW, of any kind, at the size at which proposals are compared."""
    step = max(1, -(-max(values.shape) // _COARSE))
    return values[::step, ::step]


def _partition(whole: Mask, things: Sequence[Mask]) -> list[Mask]:
    """Disjoint masks, `whole` together: what several claim goes to the smallest, what none does to the nearest."""
    labels = np.zeros(whole.shape, np.int32)
    for number in sorted(range(len(things)), key=lambda number: -np.count_nonzero(things[number])):
        labels[things[number]] = number + 1
    _spread(labels, whole)
    masks = [labels == number + 1 for number in range(len(things))]
    return [part for part in masks if part.any()]


def _spread(labels: NDArray[np.int32], whole: Mask) -> None:
    """Give each pixel of `whole` that has no label the nearest one's."""
    missing = whole & (labels == 0)
    _, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of = np.zeros(int(nearest.max()) + 1, np.int32)
    of[nearest[labels > 0]] = labels[labels > 0]
    labels[missing] = of[nearest[missing]]
