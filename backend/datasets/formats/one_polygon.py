"""A mask as one polygon, for formats that know neither holes nor parts.

OpenCV's fill, by which such polygons are read, cuts coordinates down to whole pixels, and fills the border with what is
inside. So the outlines run within the border pixels, close to their outer edges: cut down, they are the pixels
themselves, and at any other scale they lie where the mask ends, too.

Outlines are joined by bridges of no width, there and back. A bridge runs along a row or a column from one outline to
the next, so to a hole through the mask: it fills nothing that isn't in it. Between two parts it fills a line of pixels;
that is all that a polygon of this kind adds.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import itemgetter

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.masks.polygon import Ring, simplify, simplify_ring
from ris_core.masks import Mask, bounding_box

_Ring = NDArray[np.intp]
"""Nx2, in halves of pixels: every point of an outline."""
# From the edge of a pixel. Far more than rounding moves a point, far less than a pixel.
_INSET = 1 / 16


def one_polygon(mask: Mask, tolerance: float = 0.0) -> Ring:
    """The outlines of a mask (HxW bool, not empty) joined to one polygon; all within the picture, 4 points or more.

    tolerance: how far an outline may be off, in pixels. A mask that would collapse to a line keeps its exact one.
    """
    rings = _rings(mask)
    bridges = _bridges(rings)
    path = _joined(rings, bridges, tolerance)
    return path if cv2.contourArea(path.astype(np.float32)) > 0 else _joined(rings, bridges, 0)


def parts_of(mask: Mask) -> int:
    """How many parts a mask (HxW bool) has; pixels that touch at a corner are of one."""
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def _rings(mask: Mask) -> list[_Ring]:
    """The outlines of parts and of holes. Each pixel is four, so that an outline passes it on the side it is of."""
    left, top, width, height = (int(side) for side in bounding_box(mask))
    halves = mask[top : top + height, left : left + width].astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(halves, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0].astype(np.intp) + 2 * np.array([left, top]) for contour in contours]


def _bridges(rings: Sequence[_Ring]) -> list[tuple[int, int]]:
    """Bridges, each by the two points that it joins, that make one of all rings. Ring are numbered through all rings.

    They are the shortest along rows and columns that do (Kruskal's method). Rings of which no row and no column meets
    another get a bridge from near to near.
    """
    points, ring_of = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    groups, bridges = _Groups(len(rings)), []
    for start, end in _sights(points, ring_of):
        if groups.join(ring_of[start], ring_of[end]):
            bridges.append((start, end))
    group_of = np.array([groups.of(ring) for ring in range(len(rings))])[ring_of]
    first, *others = np.unique(group_of)
    for group in others:
        joined, own = np.flatnonzero(group_of == first), np.flatnonzero(group_of == group)
        start = joined[_nearest(points[joined], points[own[0]])]
        bridges.append((int(start), int(own[_nearest(points[own], points[start])])))
        group_of[own] = first
    return bridges


def _sights(points: _Ring, ring_of: _Ring) -> list[tuple[int, int]]:
    """Pairs of points of two rings with nothing between them in their row or column, the nearest of two rings first.

    Between two such points all is in the mask or nothing is.
    """
    pairs = []
    for along in (0, 1):
        order = np.lexsort((ring_of, points[:, along], points[:, 1 - along]))
        pair = np.stack([order[:-1], order[1:]], axis=1)
        is_line = np.diff(points[order, 1 - along]) == 0
        pairs.append(pair[is_line & (np.diff(ring_of[order]) != 0)])
    pair = np.concatenate(pairs)
    length = np.abs(np.diff(points[pair], axis=1)).sum(axis=(1, 2))
    low, high = np.sort(ring_of[pair], axis=1).T
    order = np.lexsort((pair[:, 0], length, high, low))
    is_first = np.diff(low[order] * len(ring_of) + high[order], prepend=-1) != 0
    shortest = order[is_first]
    return [(int(start), int(end)) for start, end in pair[shortest[np.argsort(length[shortest], kind="stable")]]]


class _Groups:
    """Which of `count` things have been joined."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def of(self, thing: int) -> int:
        """The thing that stands for the group."""
        while self._above[thing] != thing:
            self._above[thing] = self._above[self._above[thing]]
            thing = self._above[thing]
        return thing

    def join(self, first: int, second: int) -> bool:
        """Whether the two weren't joined before."""
        first, second = self.of(first), self.of(second)
        self._above[max(first, second)] = min(first, second)
        return first != second


def _joined(rings: Sequence[_Ring], bridges: Sequence[tuple[int, int]], tolerance: float) -> Ring:
    """The rings as one, from the first ring outwards: each goes around those behind its bridges on its own way."""
    starts = np.cumsum([0, *(len(ring) for ring in rings)])
    detours: dict[int, list[tuple[int, Ring]]] = defaultdict(list)
    entries = list(_outwards(bridges, starts))
    for ring, entry, above, leave in reversed(entries):
        detours[above].append((leave, _around(rings[ring], entry, detours.pop(ring, []), tolerance)))
    return _around(rings[0], 0, detours.pop(0, []), tolerance)[:-1]


def _outwards(bridges: Sequence[tuple[int, int]], starts: _Ring) -> Iterator[tuple[int, int, int, int]]:
    """Of each ring but the first: ring, where it is entered, the ring before it, and where that is left."""
    ends: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
    for bridge in bridges:
        for here, there in (bridge, bridge[::-1]):
            above, ring = (int(np.searchsorted(starts, point, "right")) - 1 for point in (here, there))
            ends[above].append((ring, int(there - starts[ring]), above, int(here - starts[above])))
    reached, waiting = {0}, [0]
    for above in waiting:
        for end in ends[above]:
            if end[0] not in reached:
                reached.add(end[0])
                waiting.append(end[0])
                yield end


def _around(ring: _Ring, entry: int, detours: Sequence[tuple[int, Ring]], tolerance: float) -> Ring:
    """The way around a ring, from its entry back to it, with detours on the way, each from one of its points."""
    closed = _placed(np.concatenate([ring[entry:], ring[: entry + 1]]))
    pieces, back = [], 0
    turned = [((leave - entry) % len(ring), detour) for leave, detour in detours]
    for leave, detour in sorted(turned, key=itemgetter(0)):
        pieces += [_simplified(closed[back : leave + 1], tolerance), detour]
        back = leave
    return np.concatenate([*pieces, _simplified(closed[back:], tolerance)])


def _placed(ring: _Ring) -> Ring:
    """Halves of pixels -> pixels: the near half close to the pixel's near edge, the far one to the far."""
    return np.asarray(ring // 2 + np.where(ring % 2, 1 - _INSET, _INSET), np.float64)


def _simplified(line: Ring, tolerance: float) -> Ring:
    """A line without points that lie straight between others, and simplified if there is a tolerance."""
    before, after = line[1:-1] - line[:-2], line[2:] - line[1:-1]
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    turns |= (before * after).sum(axis=1) < 0
    corners = line[np.concatenate([[True], turns, [True]])] if len(line) > 2 else line
    if tolerance <= 0 or len(corners) < 3:
        return corners
    if (corners[0] == corners[-1]).all():
        return np.concatenate([simplify_ring(corners[:-1], tolerance), corners[-1:]])
    return simplify(corners, tolerance)


def _nearest(points: _Ring, point: _Ring) -> int:
    offset = points - point
    return int(np.argmin(np.einsum("ij,ij->i", offset, offset)))
