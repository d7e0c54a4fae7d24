"""Polygons as Florence-2 writes them, in words for places: read, and filled in."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ris_core.masks import Mask

# Places along either side of a photo.
BINS = 1000

_ENDS = ("<s>", "</s>", "<pad>")
_OPEN, _CLOSE = "<poly>", "</poly>"
_PLACE = re.compile(r"<loc_(\d+)>")
# Fewer words than this in a row are no answer: a stray place in a caption, for example.
_ANSWER = re.compile(rf"(?:<loc_\d+>|<sep>|{_OPEN}|{_CLOSE}){{4,}}")
_THING = re.compile(rf"{_OPEN}(.*?){_CLOSE}")
_POLYGON = re.compile(r"((?:<loc_\d+>)+)(?:<sep>|$)")
# OpenCV takes corners in sixteenths of a pixel.
_SHIFT = 4


class Polygon(NamedTuple):
    """corners: (P, 2) column and row in bins, [0, BINS). words: where it stands in the answer, first and after last."""

    corners: NDArray[np.int64]
    words: tuple[int, int]


def parse(words: Sequence[str]) -> list[list[Polygon]]:
    """The things that an answer means, each one polygon or several; as the library's post-processing reads them."""
    spelt = ["" if word in _ENDS else word for word in words]
    starts = [0, *accumulate(map(len, spelt))]
    things = []
    for start, thing in _things("".join(spelt)):
        found = []
        for polygon in _POLYGON.finditer(thing):
            begins, ends = (start + place for place in polygon.span(1))
            # What is spelt as nothing begins where the next word does.
            stands = bisect_right(starts, begins) - 1, bisect_left(starts, ends)
            found.append(Polygon(_corners(polygon[1]), stands))
        things += [found] if found else []
    return things


def _things(text: str) -> Iterator[tuple[int, str]]:
    """Where each thing's polygons begin in a text, and what they are."""
    for answer in _ANSWER.finditer(text):
        # The library takes a place before this for the end of a caption.
        beyond = _PLACE.sub("", answer[0], count=1) if _PLACE.match(answer[0]) else answer[0]
        if "<loc_" not in beyond and _OPEN not in beyond:
            continue
        if _OPEN in answer[0] and _CLOSE in answer[0]:
            yield from ((answer.start() + thing.start(1), thing[1]) for thing in _THING.finditer(answer[0]))
        else:
            yield answer.start(), answer[0]


def _corners(text: str) -> NDArray[np.int64]:
    numbers = [int(place) for place in _PLACE.findall(text)]
    return np.array(numbers[: len(numbers) // 2 * 2], np.int64).reshape(-1, 2)


def filled(polygons: Sequence[Polygon], size: tuple[int, int]) -> Mask:
    """The mask (h, w) of a thing: what is inside any of its polygons; one without an area has no inside."""
    mask = np.zeros(size, np.uint8)
    for corners, _ in polygons:
        # Corners on one line enclose nothing, and would be drawn as that line.
        if len(corners) > 2 and np.linalg.matrix_rank(corners - corners[0]) > 1:
            # The middle of a bin is meant; a pixel's own middle is its whole number.
            places = (corners + 0.5) * (size[1] / BINS, size[0] / BINS) - 0.5
            cv2.fillPoly(mask, [np.rint(places * 2**_SHIFT).astype(np.int32)], 1, shift=_SHIFT)
    return mask.astype(np.bool_)
