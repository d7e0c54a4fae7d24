"""Block diagrams as plain SVG: boxes, arrows and labels on a card of its own colour, so that light and dark pages do.

A drawing that can't be read isn't written: text that leaves its box, boxes and labels that overlap, an arrow through
a box or across another are errors. Knows nothing of what is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal
from xml.sax.saxutils import escape

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
Kind = Literal["image", "text", "joint", "answer", "panel"]

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
INK, QUIET, LINE, PAPER, EDGE = "#1d2733", "#56636f", "#4a5763", "#fbfaf7", "#cfcabf"
# Fill and edge, told apart without red and green as well: what is known of the photo, of the sentence, of both.
COLOURS: dict[Kind, tuple[str, str]] = {
    "image": ("#dcebf8", "#2f78b7"),
    "text": ("#fdebcd", "#c8811a"),
    "joint": ("#e7e3f5", "#6b57ad"),
    "answer": ("#dff0e6", "#2e8661"),
    "panel": ("none", EDGE),
}
TITLE, NOTE = 17.0, 15.0
# Widths of characters in ems, those of the widest of the fonts, so that the text fits in all of them.
_NARROW, _WIDE = set("iljI.,:;|!'"), set("mwMWO@%×→≥≤≠−+=")
# Of a letter: F_v is lowered, A^T raised.
_SHIFTED = re.compile(r"(?<=\w)([_^])(\w)")


class CardError(ValueError):
    """What is drawn can't be read."""


@dataclass(frozen=True)
class Area:
    """A rectangle, in pixels of the card."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Area) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Area) -> bool:
        """Whether `other` lies in it whole."""
        inside = self.left <= other.left and other.right <= self.right
        return inside and self.top <= other.top and other.bottom <= self.bottom

    def shrunk(self, by: float) -> Area:
        """Smaller by so much on each side."""
        return Area(self.left + by, self.top + by, self.right - by, self.bottom - by)


@dataclass(frozen=True)
class Box:
    """A box that was drawn. Where arrows begin and end: `share` is the way along a side, 0 to 1."""

    area: Area
    name: str
    kind: Kind

    def above(self, share: float = 0.5) -> Point:
        """On the upper side."""
        return self._across(share), self.area.top

    def below(self, share: float = 0.5) -> Point:
        """On the lower side."""
        return self._across(share), self.area.bottom

    def left(self, share: float = 0.5) -> Point:
        """On the left side."""
        return self.area.left, self._down(share)

    def right(self, share: float = 0.5) -> Point:
        """On the right side."""
        return self.area.right, self._down(share)

    def _across(self, share: float) -> float:
        return self.area.left + share * (self.area.right - self.area.left)

    def _down(self, share: float) -> float:
        return self.area.top + share * (self.area.bottom - self.area.top)


class Card:
    """One drawing, `width` x `height` pixels, with what it shows said in words for those who can't see it."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.width, self.height, self.title, self.description = width, height, title, description
        self._boxes: list[Box] = []
        self._arrows: list[list[Point]] = []
        self._labels: list[tuple[Area, str]] = []
        self._below: list[str] = []
        self._above: list[str] = []

    def box(self, left: float, top: float, width: float, title: str, *lines: str, kind: Kind, height: float = 0) -> Box:
        """A box with a title and lines below it, in the middle of it; as high as they need, if that isn't said."""
        needed = 20 + (TITLE + 4) + len(lines) * (NOTE + 5) - 4
        height = height or needed
        box = Box(Area(left, top, left + width, top + height), title, kind)
        fill, edge = COLOURS[kind]
        self._below.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="9" fill="{fill}" '
            f'stroke="{edge}" stroke-width="1.5"/>'
        )
        middle, baseline = left + width / 2, top + (height - needed) / 2 + 10 + TITLE - 2
        for number, line in enumerate((title, *lines)):
            size = NOTE if number else TITLE
            room = wide(line, size, bold=not number) + 8
            if room > width or needed > height:
                raise CardError(f"{line!r} doesn't fit its box, {width:g} by {height:g}: it needs {room:.0f}.")
            self._write(line, middle, baseline, size, "middle", QUIET if number else INK, bold=not number)
            baseline += NOTE + 5
        self._boxes.append(box)
        return box

    def panel(self, left: float, top: float, width: float, height: float, title: str) -> Box:
        """A frame around what shows the inside of something."""
        box = Box(Area(left, top, left + width, top + height), title, "panel")
        self._below.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="12" fill="#f3f0e8" '
            f'stroke="{EDGE}" stroke-width="1.5" stroke-dasharray="5 4"/>'
        )
        self.label(left + 14, top + 23, title, size=TITLE, bold=True)
        self._boxes.append(box)
        return box

    def arrow(self, *points: Point, dashed: bool = False, colour: str = LINE) -> None:
        """Through the points, with a head at the last."""
        path = " ".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        self._below.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"{dashes} '
            'marker-end="url(#head)"/>'
        )
        self._arrows.append(list(points))

    def label(
        self, x: float, y: float, text: str, size: float = NOTE, anchor: Anchor = "start", bold: bool = False
    ) -> None:
        """Text outside of boxes, its baseline at y."""
        width = wide(text, size, bold)
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        self._labels.append((Area(left, y - size * 0.8, left + width, y + size * 0.25), text))
        self._write(text, x, y, size, anchor, INK if bold else QUIET, bold)

    def svg(self) -> str:
        """The drawing. Raises CardError for each thing that makes it hard to read."""
        faults = list(self._faults())
        if faults:
            raise CardError(f"{self.title}: " + "; ".join(faults))
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title description" '
                f'font-family="{FONT}">',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="description">{escape(self.description)}</desc>',
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                f'orient="auto"><path d="M0 0.5L8 4L0 7.5z" fill="{LINE}"/></marker></defs>',
                f'<rect x="1" y="1" width="{self.width - 2}" height="{self.height - 2}" rx="16" fill="{PAPER}" '
                f'stroke="{EDGE}"/>',
                *self._below,
                *self._above,
                "</svg>",
                "",
            ]
        )

    def _write(self, text: str, x: float, y: float, size: float, anchor: Anchor, colour: str, bold: bool) -> None:
        weight = ' font-weight="bold"' if bold else ""

        def shifted(match: re.Match[str]) -> str:
            way = size * (0.25 if match[1] == "_" else -0.35)
            return f'<tspan dy="{way:g}" font-size="{size * 0.75:g}">{match[2]}</tspan><tspan dy="{-way:g}">'

        marked, closing = _SHIFTED.subn(shifted, escape(text))
        self._above.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{marked}{'</tspan>' * closing}</text>"
        )

    def _faults(self) -> Iterator[str]:
        whole = Area(0, 0, self.width, self.height).shrunk(8)
        boxes = [box for box in self._boxes if box.kind != "panel"]
        for area, name in (*((box.area, box.name) for box in self._boxes), *self._labels):
            if not whole.holds(area):
                yield f"{name!r} leaves the card"
        for one, other in combinations(self._boxes, 2):
            if one.area.overlaps(other.area) and not (one.kind == "panel" and one.area.holds(other.area)):
                yield f"{one.name!r} overlaps {other.name!r}"
        for (area, text), (beside, name) in combinations([*self._labels, *((box.area, box.name) for box in boxes)], 2):
            if area.overlaps(beside):
                yield f"{text!r} overlaps {name!r}"
        yield from self._arrow_faults([*self._labels, *((box.area.shrunk(1), box.name) for box in boxes)])

    def _arrow_faults(self, things: list[tuple[Area, str]]) -> Iterator[str]:
        for arrow in self._arrows:
            for area, name in things:
                if any(area.overlaps(stroke) for stroke in _strokes(arrow)):
                    yield f"the arrow to {arrow[-1]} runs through {name!r}"
        for one, other in combinations(self._arrows, 2):
            if any(_cross(first, second) for first in pairwise(one) for second in pairwise(other)):
                yield f"the arrows to {one[-1]} and {other[-1]} cross"


def wide(text: str, size: float, bold: bool = False) -> float:
    """Pixels that a text needs at most."""
    ems = 0.0
    for character in _SHIFTED.sub(r"\2", text):
        if character in _NARROW:
            ems += 0.36
        elif character in _WIDE:
            ems += 0.9
        else:
            ems += 0.75 if character.isupper() else 0.42 if character in " ftr()[]-/" else 0.63
    return ems * size * (1.12 if bold else 1)


def _strokes(points: list[Point]) -> list[Area]:
    return [
        Area(min(x, other_x) - 0.5, min(y, other_y) - 0.5, max(x, other_x) + 0.5, max(y, other_y) + 0.5)
        for (x, y), (other_x, other_y) in pairwise(points)
    ]


def _cross(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two segments cross within both; that they touch or branch off is no crossing."""

    def side(line: tuple[Point, Point], point: Point) -> float:
        (x, y), (end_x, end_y) = line
        return (end_x - x) * (point[1] - y) - (end_y - y) * (point[0] - x)

    return side(one, other[0]) * side(one, other[1]) < 0 and side(other, one[0]) * side(other, one[1]) < 0
