"""Which of a pass' photos and expressions are drawn, and how often, where each sample has a weight."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ris_core.data.folder import Sample
from ris_core.training.recipe import Recipe

Ref: TypeAlias = tuple[bool, int]
"""Whether it has a target, and its number: what is drawn of a photo's expressions."""


def is_upright(photo: Sequence[Sample]) -> bool:
    """Whether a photo, given by its samples, is higher than wide."""
    return photo[0].height > photo[0].width


def canvas_of(sample: Sample, side: int) -> tuple[int, int]:
    """(height, width) of the canvas for a sample's photo: `side` along the photo's longer side, else two thirds."""
    short = side * 2 // 3
    return (side, short) if is_upright([sample]) else (short, side)


def oriented_batches(upright: Sequence[bool], size: int, order: random.Random) -> list[list[int]]:
    """Numbers of photos, at most `size` of one orientation together, shuffled; upright: of each photo."""
    batches = []
    for orientation in (True, False):
        numbers = [number for number in range(len(upright)) if upright[number] is orientation]
        order.shuffle(numbers)
        batches += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    order.shuffle(batches)
    return batches


def weigh_refs(samples: Sequence[Sample], weights: Sequence[float]) -> dict[str, dict[Ref, float]]:
    """Of each photo the weight of its refs: the largest of their sentences'."""
    photos: dict[str, dict[Ref, float]] = defaultdict(dict)
    for sample, weight in zip(samples, weights, strict=True):
        refs, ref = photos[str(sample.image)], _ref(sample)
        refs[ref] = max(refs.get(ref, 0.0), weight)
    return dict(photos)


def weigh_photo(refs: Mapping[Ref, float], recipe: Recipe) -> float:
    """A photo's weight, so that each of its targets is drawn as often as its own weight says."""
    for has_target, most in ((True, recipe.present), (False, recipe.absent)):
        weights = [weight for (there, _), weight in refs.items() if there is has_target]
        if weights and most:
            return sum(weights) / min(len(weights), most)
    return 0.0


def resample(weights: Sequence[float], start: float) -> list[int]:
    """How often each is drawn, as often together as there are weights (systematic resampling, Kitagawa 1996).

    In the mean over `start`, evenly in [0, 1), each is drawn in proportion to its weight, and always to within one.
    """
    total, ends = sum(weights) or 1.0, np.cumsum(weights) * len(weights)
    # Numbers below an end: of the points start, start + 1 and so on.
    before = np.clip(np.ceil(ends / total - start), 0, len(weights)).astype(int)
    before[-1:] = len(weights)
    return [int(count) for count in np.diff(before, prepend=0)]


def draw_samples(
    samples: Sequence[Sample],
    has_target: bool,
    count: int,
    weights: Mapping[Ref, float],
    randomness: random.Random,
) -> list[Sample]:
    """At most `count` samples: refs are drawn, then a sentence of each.

    A thing that many sentences describe isn't shown more often for it.
    """
    refs: dict[Ref, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.has_target is has_target:
            refs[_ref(sample)].append(sample)
    # The first to come of so many that come at these rates: drawn by weight, none twice.
    drawn = sorted(refs, key=lambda ref: randomness.expovariate(weights.get(ref, 1.0)))[:count]
    return [randomness.choice(refs[ref]) for ref in drawn]


def _ref(sample: Sample) -> Ref:
    return sample.has_target, sample.ref_id
