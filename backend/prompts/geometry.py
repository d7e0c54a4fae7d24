"""Where somebody pointed: the smart points and rectangles of an interactive request, and what a mask has there.

Pure: knows no HTTP, no files and no model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ris_core.masks import Mask

# How far from a thing a click may land and still mean it: this share of the picture's longer side.
_REACH = 0.02
# Parts that lie mostly inside a rectangle and make up less of what it holds are specks.
_LEAST = 0.1

_POINTS = ("keypoint", "keypointlabels")
_BOXES = ("rectangle", "rectanglelabels")


@dataclass(frozen=True)
class Point:
    """A click. x, y: shares of the picture's width and height, [0, 1]. positive: on the thing, and not beside it."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle.

    x, y: of its top left corner; width, height: all shares of the picture's. rotation: degrees, clockwise about that
    corner. positive: the thing is inside, and not elsewhere.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0
    positive: bool = True


@dataclass(frozen=True)
class GeometricPrompt:
    """Points and rectangles together. label: what Label Studio stores for the label they were drawn with."""

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    label: str | None = None

    def keep(self, mask: Mask) -> Mask:
        """What of HxW bool is meant.

        Of its connected parts those at a positive point, and those that lie mostly inside a positive rectangle, cut
        off at its edge. What a negative rectangle holds goes, and each part at a negative point; a part that has
        points of both kinds is divided, each pixel going with the nearest.
        """
        parts = _connected(mask)
        positive = [point for point in self.points if point.positive]
        boxes = [box for box in self.boxes if box.positive]
        meant = [*(_inside(box, mask, parts) for box in boxes), *(_part_at(point, parts) for point in positive)]
        kept = np.logical_or.reduce(meant) if meant else mask
        for box in (box for box in self.boxes if not box.positive):
            kept = kept & ~_area(box, mask.shape)
        return kept & ~self._unwanted(parts, positive)

    def _unwanted(self, parts: NDArray[np.int32], positive: list[Point]) -> Mask:
        unwanted = np.zeros(parts.shape, np.bool_)
        for point in self.points:
            if not point.positive:
                part = _part_at(point, parts)
                rivals = [other for other in positive if (part & _part_at(other, parts)).any()]
                unwanted |= part & _nearer(point, rivals, parts.shape) if rivals else part
        return unwanted


def read_geometry(context: Mapping[str, Any]) -> GeometricPrompt | None:
    """The smart points and rectangles of an interactive request's context; None if there are none."""
    points, boxes, labels = [], [], list[str]()
    for region in context.get("result") or ():
        if not isinstance(region, Mapping) or not isinstance(region.get("value"), Mapping):
            continue
        kind, value = region.get("type"), region["value"]
        # Label Studio leaves it out where nobody pressed Alt; some versions write a number.
        positive = bool(region.get("is_positive", True))
        if kind in _POINTS and (shares := _shares(value, "x", "y")):
            points.append(Point(**shares, positive=positive))
        elif kind in _BOXES and (shares := _shares(value, "x", "y", "width", "height")):
            rotation = value.get("rotation")
            degrees = float(rotation) if _is_number(rotation) else 0.0
            boxes.append(Box(**shares, rotation=degrees, positive=positive))
        if kind in (*_POINTS, *_BOXES) and isinstance(drawn_with := value.get(str(kind)), list):
            labels += [label for label in drawn_with if isinstance(label, str)]
    return GeometricPrompt(tuple(points), tuple(boxes), next(iter(labels), None)) if points or boxes else None


def _shares(value: Mapping[str, Any], *names: str) -> dict[str, float] | None:
    """Percentages of a region as shares; None if one is missing or no number."""
    shares = {name: float(value[name]) / 100 for name in names if _is_number(value.get(name))}
    return shares if len(shares) == len(names) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _connected(mask: Mask) -> NDArray[np.int32]:
    """HxW: 0 beside the mask, else the number of the connected part; corners connect."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(parts, dtype=np.int32)


def _inside(box: Box, mask: Mask, parts: NDArray[np.int32]) -> Mask:
    clipped = mask & _area(box, mask.shape)
    sizes = np.bincount(parts.ravel())
    within = np.bincount(parts[clipped], minlength=len(sizes))
    mostly = 2 * within >= sizes
    mostly[0] = False
    kept = clipped & mostly[parts]
    # Where one mask covers several things that touch, none of it may lie mostly inside, or only a speck.
    return kept if np.count_nonzero(kept) >= _LEAST * np.count_nonzero(clipped) else clipped


def _area(box: Box, shape: tuple[int, ...]) -> Mask:
    height, width = shape
    down, right = np.mgrid[0:height, 0:width] + 0.5
    right, down = right - box.x * width, down - box.y * height
    angle = math.radians(box.rotation)
    along = right * math.cos(angle) + down * math.sin(angle)
    across = down * math.cos(angle) - right * math.sin(angle)
    inside = (along >= 0) & (along <= box.width * width) & (across >= 0) & (across <= box.height * height)
    return np.asarray(inside, dtype=np.bool_)


def _part_at(point: Point, parts: NDArray[np.int32]) -> Mask:
    """The connected part that is nearest to a point and within its reach; nothing if there is none."""
    rows, columns = np.nonzero(parts)
    distances = _distances(point, rows, columns, parts.shape)
    if not len(rows) or distances.min() > max(1.0, _REACH * max(parts.shape)):
        return np.zeros(parts.shape, np.bool_)
    nearest = int(distances.argmin())
    return np.asarray(parts == parts[rows[nearest], columns[nearest]])


def _nearer(point: Point, others: list[Point], shape: tuple[int, ...]) -> Mask:
    """The pixels that are nearer to a point than to any of the others."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    rest = np.min([_distances(other, rows, columns, shape) for other in others], axis=0)
    return np.asarray(_distances(point, rows, columns, shape) < rest)


def _distances(
    point: Point, rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """From a point to the pixels' centres, in pixels."""
    return np.asarray(np.hypot(rows + 0.5 - point.y * shape[0], columns + 0.5 - point.x * shape[1]))
