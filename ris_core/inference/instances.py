"""One mask a thing: where a prompt's mask covers several things, also ones that touch, each of them by itself.

Ours: points all over the mask are clicked on, each by itself, and of the masks that come back those stay which clicks
on other points of the same thing would give as well. No detector and no class is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ris_core.inference.predictor import Predictor, PreparedImage
from ris_core.inference.prompt import Point, Prompt
from ris_core.masks import Mask

# Points clicked on, at most; enough for a dozen things.
_SEEDS = 32
# How closely they lie, as a share of the photo's longer side, where the mask is small.
_SPACING = 0.04
# A proposal that lies less than this within the mask is about something else.
_WITHIN = 0.6
# Of two proposals of one thing one is dropped: where either covers so much of the other.
_SAME = 0.6
# A part of the mask that no thing has claimed is a thing if it has this share of it, else it goes with the nearest.
_REST = 0.1
# Proposals are compared at about this many pixels along the longer side.
_COARSE = 160


def split(predictor: Predictor, image: PreparedImage, mask: Mask) -> list[Mask]:
    """HxW bool of an answer -> disjoint masks, one a thing, largest first; together they are `mask`.

    Raises PromptError if the model can't be clicked on, OutOfMemory as `Predictor.segment` does.
    """
    if not mask.any():
        return []
    seeds = _seeds(mask)
    answers = predictor.segment(image, [Prompt(points=[_point(seed, mask.shape)]) for seed in seeds])
    proposals = [_small(answer.mask) for answer in answers]
    whole = _small(mask)
    kept = _merge([proposal & whole for proposal in proposals], _agreement(proposals, seeds, whole, mask.shape), whole)
    things = [answers[number].mask & mask for number in kept]
    return _partition(mask, things)


def _seeds(mask: Mask) -> list[tuple[int, int]]:
    """(row, column) of points spread over the mask, deep inside first; each connected part has one at least."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    spacing = max(_SPACING * max(mask.shape), float(np.sqrt(np.count_nonzero(mask) / _SEEDS)))
    free = depth.copy()
    seeds: list[tuple[int, int]] = []
    while len(seeds) < _SEEDS and free.max() > 0:
        row, column = divmod(int(free.argmax()), mask.shape[1])
        seeds.append((row, column))
        cv2.circle(free, (column, row), max(1, round(spacing)), 0, -1)
    reached = {int(parts[seed]) for seed in seeds}
    for part in range(1, count):
        if part not in reached and len(seeds) < 2 * _SEEDS:
            row, column = divmod(int(np.where(parts == part, depth, 0).argmax()), mask.shape[1])
            seeds.append((row, column))
    return seeds


def _point(seed: tuple[int, int], shape: tuple[int, ...]) -> Point:
    return Point((seed[1] + 0.5) / shape[1], (seed[0] + 0.5) / shape[0])


def _small(mask: Mask) -> Mask:
    scale = min(1.0, _COARSE / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)


def _agreement(
    proposals: Sequence[Mask], seeds: Sequence[tuple[int, int]], whole: Mask, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Of each proposal the mean IoU with those of all points that lie on it; 0 where it is about something else.

    A thing is what a click anywhere on it gives. A part is given by clicks on it alone, but so is the whole thing by
    these; two things in one mask are given by few of the clicks on either.
    """
    flat = np.array([proposal.ravel() for proposal in proposals], dtype=np.float32)
    areas = flat.sum(axis=1)
    overlap = flat @ flat.T
    ious = overlap / np.maximum(areas[:, None] + areas[None] - overlap, 1)
    at = [
        (
            min(row * whole.shape[0] // shape[0], whole.shape[0] - 1),
            min(c * whole.shape[1] // shape[1], whole.shape[1] - 1),
        )
        for row, c in seeds
    ]
    on = np.array([[proposal[place] for place in at] for proposal in proposals])
    np.fill_diagonal(on, True)
    within = flat @ whole.ravel().astype(np.float32) / np.maximum(areas, 1)
    agreement = (ious * on).sum(axis=1) / on.sum(axis=1)
    return np.asarray(np.where(within >= _WITHIN, agreement, 0.0))


def _merge(proposals: Sequence[Mask], agreement: NDArray[np.float64], whole: Mask) -> list[int]:
    """Numbers of the proposals that stay: one a thing, those that clicks agree on most first."""
    kept: list[int] = []
    areas = [max(1, np.count_nonzero(proposal)) for proposal in proposals]
    for number in np.argsort(-agreement, kind="stable"):
        if agreement[number] == 0:
            break
        shared = [np.count_nonzero(proposals[number] & proposals[other]) for other in kept]
        if all(both < _SAME * min(areas[number], areas[other]) for both, other in zip(shared, kept, strict=True)):
            kept.append(int(number))
    return kept


def _partition(mask: Mask, things: Sequence[Mask]) -> list[Mask]:
    """Disjoint masks that together are `mask`: what several claim goes to the smallest, what none does to the nearest,
    or is a thing of its own.
    """
    labels = np.zeros(mask.shape, np.int32)
    for number in sorted(range(len(things)), key=lambda number: -np.count_nonzero(things[number])):
        labels[things[number]] = number + 1
    rest = mask & (labels == 0)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(rest.astype(np.uint8), connectivity=8)
    least = _REST * np.count_nonzero(mask)
    fresh = len(things)
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] >= least or not things:
            fresh += 1
            labels[parts == part] = fresh
    _spread(labels, mask)
    masks = [labels == number for number in range(1, fresh + 1)]
    return sorted((part for part in masks if part.any()), key=lambda part: -np.count_nonzero(part))


def _spread(labels: NDArray[np.int32], mask: Mask) -> None:
    """Give each pixel of the mask that has no label the nearest one's."""
    if not (missing := mask & (labels == 0)).any():
        return
    _, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of = np.zeros(int(nearest.max()) + 1, np.int32)
    of[nearest[labels > 0]] = labels[labels > 0]
    labels[missing] = of[nearest[missing]]
