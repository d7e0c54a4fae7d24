"""Masks as polygons, and polygons as masks. Knows nothing of regions or HTTP.

Coordinates are pixels: the pixel in row r and column c is the square from (c, r) to (c + 1, r + 1), and a polygon
covers the pixels whose centres it winds around, as the editor's canvas fills it (the non-zero rule).

A mask's outline runs along the edges of its pixels, so it covers just the mask. It is simplified by Douglas and
Peucker's method (1973), with distances to the segment and not to its line: all that is left out lies within the
tolerance of the segment that stands in for it. The two wind alike around whatever is further away, so the polygon
differs from the mask in pixels alone whose centres lie within the tolerance of the mask's outline.

A polygon in Label Studio is one ring. A hole is joined to it by a bridge of no width, there and back, which covers
nothing: the hole reads back as exactly as the outline does.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter

import cv2
import numpy as np
import numpy.typing as npt

from backend.errors import RegionError
from backend.labelstudio.masks import paint
from ris_core.masks import Mask

# Nx2: x and y of each point, in pixels; the last is joined to the first.
Ring = npt.NDArray[np.float64]
_Point = npt.NDArray[np.float64]

# Reading costs time and memory for each row that an edge crosses; an outline drawn by hand has some ten thousand.
_MOST_CROSSINGS = 5_000_000


def polygon(part: Mask, tolerance: float) -> Ring:
    """The outline of a part (HxW bool, its pixels 8-connected, at least one), its holes bridged.

    tolerance: in pixels; 0 keeps every corner. A part that would collapse to a line keeps its exact outline.
    """
    exact, *holes = _trace(part)
    outline = simplify_ring(exact, tolerance)
    simple = (simplify_ring(hole, tolerance)[::-1] for hole in holes)
    # Two corners enclose nothing: all of that hole lies within the tolerance.
    return _bridged(outline if len(outline) > 2 else exact, [hole for hole in simple if len(hole) > 2])


def outlines(mask: Mask, tolerance: float = 0.0) -> list[Ring]:
    """The outline of each part of a mask (HxW bool), holes bridged, from the top down; none of an empty one.

    tolerance: in pixels. At 0 every edge but a bridge's lies on the grid of pixel corners and no two parts share a
    pixel: so COCO's own fill (maskApi.c's rleFrPoly: even-odd, in which a way there and back is nothing) gives the
    very mask, its parts added up.
    """
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    rings = []
    for number in range(1, count):
        left, top, across, down = (int(side) for side in boxes[number, :4])
        part = numbers[top : top + down, left : left + across] == number
        rings.append(polygon(part, tolerance) + np.array([left, top]))
    return rings


def fill(ring: Ring, height: int, width: int) -> Mask:
    """The pixels (HxW bool) that a polygon covers; what lies outside the image is cut off.

    Raises RegionError if a coordinate isn't finite, or the polygon is too complicated to be a drawing.
    """
    if not np.isfinite(ring).all():
        raise RegionError("A point of the polygon isn't a finite number. Draw it again.")
    # Each edge from its upper to its lower end, so that a bridge is cut at the very same places there and back.
    following = np.roll(ring, -1, axis=0)
    falls = ring[:, 1] <= following[:, 1]
    upper, lower = np.where(falls[:, None], ring, following), np.where(falls[:, None], following, ring)
    # An edge crosses the centres of the rows from `first` up to `last`.
    first, last = (np.ceil(np.clip(end[:, 1], 0, height) - 0.5).astype(np.int64) for end in (upper, lower))
    count = last - first
    if int(count.sum()) > _MOST_CROSSINGS:
        raise RegionError(f"The polygon of {len(ring)} points is too complicated to read. Draw it with fewer.")
    edge = np.repeat(np.arange(len(ring)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
    (left, top), (right, bottom) = upper[edge].T, lower[edge].T
    x = left + (row + 0.5 - top) / (bottom - top) * (right - left)
    pixel = row * width + np.ceil(np.clip(x, 0, width) - 0.5).astype(np.int64)
    # Every row is crossed up as often as down, so that the winding is 0 again where the next begins.
    order = np.argsort(pixel, kind="stable")
    pixel, inside = pixel[order], np.cumsum(np.where(falls[edge], 1, -1)[order])[:-1] != 0
    return paint(pixel[:-1][inside], pixel[1:][inside], height, width)


def _trace(part: Mask) -> list[Ring]:
    """The outlines of a part, each clockwise from its first corner by rows: the outer one, then the holes'.

    Along each row of pixel corners, those where an outline turns are by turns the beginning and the end of a
    horizontal edge, and along each column of a vertical one. So sorting joins them.
    """
    around = np.pad(part, 1)
    above_left, above_right, below_left, below_right = (
        around[rows, columns] for rows in (np.s_[:-1], np.s_[1:]) for columns in (np.s_[:-1], np.s_[1:])
    )
    # Where two pixels touch diagonally, outlines turn twice in one point.
    falling = above_left & below_right & ~above_right & ~below_left
    rising = above_right & below_left & ~above_left & ~below_right
    y, x = np.nonzero(above_left ^ above_right ^ below_left ^ below_right | falling | rising)
    corner = np.repeat(np.arange(len(x)), 1 + (falling | rising)[y, x])
    second = np.diff(corner, prepend=-1) == 0
    y, x = y[corner], x[corner]
    # Of two turns in one point, the first in its row ends the edge from the left. In its column it ends the edge from
    # above or begins the one below, whichever makes the two pixels one part.
    by_column = np.lexsort((second ^ falling[y, x], y, x))
    vertical = np.empty_like(by_column)
    vertical[by_column[0::2]], vertical[by_column[1::2]] = by_column[1::2], by_column[0::2]
    corners = np.stack([x, y], axis=1).astype(np.float64)
    return [corners[ring] for ring in _cycles(vertical.tolist())]


def _cycles(vertical: list[int]) -> Iterator[list[int]]:
    """The corners of each ring in order. Corner i has a horizontal edge to i ^ 1, and a vertical one to vertical[i]."""
    seen = bytearray(len(vertical))
    for start in range(len(vertical)):
        ring: list[int] = []
        corner = start
        while not seen[corner]:
            ring += (corner, corner ^ 1)
            seen[corner] = seen[corner ^ 1] = True
            corner = vertical[corner ^ 1]
        if ring:
            yield ring


def simplify(line: Ring, tolerance: float) -> Ring:
    """The points of a line to keep, both ends, which differ, among them. tolerance: in pixels."""
    kept, chains = {0, len(line) - 1}, [(0, len(line) - 1)]
    while chains:
        first, last = chains.pop()
        if last - first < 2:
            continue
        distances = _distances(line[first + 1 : last], line[first], line[last])
        furthest = int(np.argmax(distances))
        if distances[furthest] > tolerance:
            middle = first + 1 + furthest
            kept.add(middle)
            chains += [(first, middle), (middle, last)]
    return line[sorted(kept)]


def simplify_ring(ring: Ring, tolerance: float) -> Ring:
    """The corners of a ring to keep; only two where all of it lies within the tolerance of a segment."""
    if tolerance <= 0:
        return ring
    closed = np.concatenate([ring, ring[:1]])
    far = int(np.argmax(np.hypot(*(ring - ring[0]).T)))
    return np.concatenate([simplify(half, tolerance)[:-1] for half in (closed[: far + 1], closed[far:])])


def _distances(points: Ring, start: _Point, end: _Point) -> npt.NDArray[np.float64]:
    """Of each point to the segment from start to end, which differ."""
    along = end - start
    share = np.clip((points - start) @ along / (along @ along), 0, 1)
    distances: npt.NDArray[np.float64] = np.hypot(*(points - start - share[:, None] * along).T)
    return distances


def _bridged(ring: Ring, holes: Sequence[Ring]) -> Ring:
    """The ring, on its way going around each hole, there and back between two corners near each other."""
    detours = []
    for hole in holes:
        near = _nearest(hole, ring[_nearest(ring, hole[0])])
        detours.append((_nearest(ring, hole[near]), np.concatenate([hole[near:], hole[: near + 1]])))
    pieces, back = [], 0
    for leave, detour in sorted(detours, key=itemgetter(0)):
        pieces += [ring[back : leave + 1], detour]
        back = leave
    return np.concatenate([*pieces, ring[back:]])


def _nearest(ring: Ring, point: _Point) -> int:
    offset = ring - point
    return int(np.argmin(np.einsum("ij,ij->i", offset, offset)))
