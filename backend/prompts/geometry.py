"""Where somebody pointed: the smart points and rectangles of an interactive request. Knows no HTTP, files or model.

What Label Studio 1.23.2 sends of them is a list of all smart points, or of all smart rectangles, of one label that are
still there. With Auto-Accept Suggestions it deletes them as soon as they are answered, without it once people accept or
reject. `is_positive` is false for a point drawn with Alt held down; rectangles don't have it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from backend.labelstudio.json_values import is_number, objects_in
from ris_core.inference.prompt import Box, Point
from ris_core.masks import Mask

_POINTS = ("keypoint", "keypointlabels")
_BOXES = ("rectangle", "rectanglelabels")
# Labels by which people say that the thing isn't there, where a mask can't have them.
_BESIDE = ("not this", "not", "negative", "background")


@dataclass(frozen=True)
class Rectangle:
    """A rectangle as it was drawn.

    x, y: of its top left corner; width, height: all shares of the picture's. rotation: degrees, clockwise about that
    corner. positive: the thing is inside, and not elsewhere. key: its region's id.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0
    positive: bool = True
    key: str = ""

    def box(self, size: tuple[int, ...]) -> Box:
        """The box around it on a picture of that (height, width), within the picture."""
        height, width = size[:2]
        angle = math.radians(self.rotation)
        along = np.array([0, 1, 1, 0]) * self.width * width
        across = np.array([0, 0, 1, 1]) * self.height * height
        columns = self.x + (along * math.cos(angle) - across * math.sin(angle)) / width
        rows = self.y + (along * math.sin(angle) + across * math.cos(angle)) / height
        ends = columns.min(), rows.min(), columns.max(), rows.max()
        return Box(*(float(min(max(end, 0.0), 1.0)) for end in ends))

    def area(self, size: tuple[int, ...]) -> Mask:
        """HxW bool of a picture of that (height, width): the pixels whose centres it holds."""
        height, width = size[:2]
        down, right = np.mgrid[0:height, 0:width] + 0.5
        right, down = right - self.x * width, down - self.y * height
        angle = math.radians(self.rotation)
        along = right * math.cos(angle) + down * math.sin(angle)
        across = down * math.cos(angle) - right * math.sin(angle)
        inside = (along >= 0) & (along <= self.width * width) & (across >= 0) & (across <= self.height * height)
        return np.asarray(inside, dtype=np.bool_)


@dataclass(frozen=True)
class GeometricPrompt:
    """What was drawn. Points and rectangles are never sent together, but may come to be about one thing.

    label: what Label Studio stores for the label they were drawn with. selected: that label is the selected region's.
    keys: the ids of what was drawn. size: (height, width) of the picture, None where nothing says it.
    """

    points: tuple[Point, ...] = ()
    rectangles: tuple[Rectangle, ...] = ()
    label: str | None = None
    selected: bool = False
    keys: frozenset[str] = frozenset()
    size: tuple[int, int] | None = None

    @property
    def positive(self) -> bool:
        """Whether it shows where the thing is, and not only where it isn't."""
        signs = [*(point.positive for point in self.points), *(one.positive for one in self.rectangles)]
        return any(signs)

    def things(self) -> list[GeometricPrompt]:
        """Each positive rectangle is a thing of its own; all points are about one."""
        beside = tuple(rectangle for rectangle in self.rectangles if not rectangle.positive)
        inside = [rectangle for rectangle in self.rectangles if rectangle.positive]
        if len(inside) < 2:
            return [self]
        return [replace(self, rectangles=(one, *beside), keys=frozenset({one.key} - {""})) for one in inside]

    @cached_property
    def box(self) -> Box | None:
        """Around the positive rectangles."""
        boxes = [rectangle.box(self.size or (1, 1)) for rectangle in self.rectangles if rectangle.positive]
        if not boxes:
            return None
        nearest = min(box.left for box in boxes), min(box.top for box in boxes)
        return Box(*nearest, max(box.right for box in boxes), max(box.bottom for box in boxes))

    def trim(self, mask: Mask) -> Mask:
        """HxW bool without what lies outside a turned rectangle, and without what a negative one holds."""
        for rectangle in self.rectangles:
            if not rectangle.positive:
                mask = mask & ~rectangle.area(mask.shape)
            elif rectangle.rotation:
                mask = mask & rectangle.area(mask.shape)
        return mask


def read_geometry(context: Mapping[str, Any], labels: Sequence[str] = ()) -> GeometricPrompt | None:
    """The smart points and rectangles of an interactive request's context; None if there are none.

    labels: what Label Studio stores for those that masks can have.
    """
    points, rectangles, keys, names, size = [], [], set[str](), list[str](), None
    selected = False
    for region in objects_in(context.get("result")):
        if not isinstance(region.get("value"), Mapping):
            continue
        kind, value = region.get("type"), region["value"]
        if kind not in (*_POINTS, *_BOXES):
            continue
        drawn_with, borrowed = _strings(value.get(str(kind))), _strings(value.get("labels"))
        beside = any(name.casefold() in _BESIDE and name not in labels for name in drawn_with)
        # Label Studio leaves it out where nobody pressed Alt; some versions write a number.
        positive = bool(region.get("is_positive", True)) and not beside
        if kind in _POINTS and (shares := _shares(value, "x", "y")):
            points.append(Point(**shares, positive=positive))
        elif kind in _BOXES and (shares := _shares(value, "x", "y", "width", "height")):
            rotation = value.get("rotation")
            degrees = float(rotation) if is_number(rotation) else 0.0
            rectangles.append(Rectangle(**shares, rotation=degrees, positive=positive, key=str(region.get("id") or "")))
        names += [] if beside else drawn_with or borrowed
        # A tag without labels takes that of the region which is selected.
        selected = selected or (not drawn_with and bool(borrowed))
        keys |= {str(region["id"])} if region.get("id") else set()
        size = _size(region) or size
    if not points and not rectangles:
        return None
    label = next(iter(names), None)
    return GeometricPrompt(tuple(points), tuple(rectangles), label, selected, frozenset(keys), size)


def _strings(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _size(region: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = region.get("original_height"), region.get("original_width")
    return (round(height), round(width)) if is_number(height) and is_number(width) else None


def _shares(value: Mapping[str, Any], *names: str) -> dict[str, float] | None:
    """Percentages of a region as shares; None if one is missing or no number."""
    shares = {name: float(value[name]) / 100 for name in names if is_number(value.get(name))}
    return shares if len(shares) == len(names) else None
