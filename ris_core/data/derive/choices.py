"""Which of several things of one class can be told apart by place or size, and in what words.

A choice must be beyond doubt, so one that people might make otherwise isn't offered. Source of the margins: ours.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from ris_core.data.derive import phrases
from ris_core.data.derive.words import ORDINALS, Noun
from ris_core.masks import Mask

# Of the photo's pixels; people don't point at less.
SMALL = 0.005
# Smaller than this part of the least that can be meant, and nobody thinks of it.
_BACKGROUND = 1 / 8
# Of the photo's longer side, between two centres.
_GAP = 0.05
# Between the areas, and between the boxes' areas, of the largest and the next.
_LARGER = 1.5
# More are hard to take in.
_MOST, _MOST_IN_ORDER = 8, 6


class Extent(NamedTuple):
    """Where a thing begins, has its centre of mass and ends along one axis, in parts of the photo's longer side."""

    low: float
    centre: float
    high: float


@dataclass(frozen=True, eq=False)
class Thing:
    """One object of a photo. name: its class. mask: HxW. noun: what one of them and all are called."""

    name: str
    mask: Mask
    noun: Noun

    @cached_property
    def share(self) -> float:
        """Of the photo's pixels."""
        return float(self.mask.mean())

    @cached_property
    def across(self) -> Extent:
        """From left to right."""
        return _extent(self.mask, 0)

    @cached_property
    def down(self) -> Extent:
        """From top to bottom."""
        return _extent(self.mask, 1)

    @property
    def box_area(self) -> float:
        """Of the box around it, in squares of the photo's longer side."""
        return (self.across.high - self.across.low) * (self.down.high - self.down.low)

    @property
    def is_cut(self) -> bool:
        """Whether it reaches the edge of the photo, where some of it may be missing."""
        return any(bool(edge.any()) for edge in (self.mask[0], self.mask[-1], self.mask[:, 0], self.mask[:, -1]))


class Choice(NamedTuple):
    """Templates that all mean `thing` of its class, see `phrases`."""

    templates: tuple[str, ...]
    thing: Thing


def choices(group: Sequence[Thing]) -> Iterator[Choice]:
    """What can be said of single things among all of a class in a photo."""
    rivals = [thing for thing in group if thing.share >= SMALL]
    least = min((thing.share for thing in rivals), default=0.0)
    if not 2 <= len(rivals) <= _MOST or any(_BACKGROUND * least < thing.share < SMALL for thing in group):
        return
    left, right = phrases.side(True, len(rivals)), phrases.side(False, len(rivals))
    order = sorted(rivals, key=lambda thing: thing.across.centre)
    yield from _ends(order, lambda one, other: _apart(one.across, other.across), left, right)
    yield from _ends(sorted(rivals, key=lambda thing: thing.down.centre), _is_above, phrases.TOP, phrases.BOTTOM)
    if not group[0].noun.is_pair:
        yield from _by_size(rivals)
    if len(rivals) == len(group) <= _MOST_IN_ORDER:
        yield from _in_order(order)


def _ends(
    order: Sequence[Thing], comes_first: Callable[[Thing, Thing], bool], first: tuple[str, ...], last: tuple[str, ...]
) -> Iterator[Choice]:
    """The first and the last in an order, each where it is so next to all others."""
    if all(comes_first(order[0], other) for other in order[1:]):
        yield Choice(first, order[0])
    if all(comes_first(other, order[-1]) for other in order[:-1]):
        yield Choice(last, order[-1])


def _by_size(rivals: Sequence[Thing]) -> Iterator[Choice]:
    order = sorted(rivals, key=lambda thing: thing.share)
    two = len(order) == 2
    if all(_is_larger(order[-1], other) for other in order[:-1]):
        yield Choice(phrases.LARGER if two else phrases.LARGEST, order[-1])
    # What is cut off or half hidden may be small in the photo only.
    whole = not order[0].is_cut and not any(_touch(order[0], other) for other in order[1:])
    if whole and all(_is_larger(other, order[0]) for other in order[1:]):
        yield Choice(phrases.SMALLER if two else phrases.SMALLEST, order[0])


def _in_order(order: Sequence[Thing]) -> Iterator[Choice]:
    """ "Second from the left", "in the middle": of things that stand in a row, each clear of the next."""
    spread = order[-1].across.centre - order[0].across.centre
    heights = [thing.down.centre for thing in order]
    clear = all(_apart(one.across, other.across) for one, other in pairwise(order))
    if len(order) < 3 or not clear or max(heights) - min(heights) > spread / 2:
        return
    if len(order) % 2:
        yield Choice(phrases.MIDDLE, order[len(order) // 2])
    for place in ORDINALS:
        if place <= (len(order) + 1) // 2:
            yield Choice(phrases.rank(place, left=True), order[place - 1])
            yield Choice(phrases.rank(place, left=False), order[-place])


def _apart(one: Extent, other: Extent) -> bool:
    """Whether `one` comes first: neither reaches the other's centre."""
    return one.centre < other.low and one.high < other.centre and other.centre - one.centre >= _GAP


def _is_above(one: Thing, other: Thing) -> bool:
    """Whether that is how people would put it, rather than by left and right."""
    beside = abs(one.across.centre - other.across.centre)
    return _apart(one.down, other.down) and other.down.centre - one.down.centre > beside


def _is_larger(one: Thing, other: Thing) -> bool:
    return one.share >= _LARGER * other.share and one.box_area >= _LARGER * other.box_area


def _touch(one: Thing, other: Thing) -> bool:
    # Masks drawn by hand leave a few pixels between.
    grown = cv2.dilate(one.mask.astype(np.uint8), np.ones((11, 11), np.uint8))
    return bool((grown.astype(bool) & other.mask).any())


def _extent(mask: Mask, axis: int) -> Extent:
    counts, unit = np.count_nonzero(mask, axis=axis), max(mask.shape)
    places = np.flatnonzero(counts)
    centre = float((places * counts[places]).sum() / counts.sum()) + 0.5
    return Extent(places[0] / unit, centre / unit, (places[-1] + 1) / unit)
