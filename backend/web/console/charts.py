"""Line charts as geometry: where lines, points and ticks of an SVG go. Knows nothing of what is drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 14, 30
_MOST_LABELS = 7


@dataclass(frozen=True)
class Series:
    """One line. values: one a label; None where there is none, which leaves a gap."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Point:
    """Where a value is, and what it says when it is pointed at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A drawn series. paths: of its unbroken stretches, as SVG has them."""

    name: str
    paths: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """What a template draws. ticks: height and text; labels: place and text, as many as can be read beside each other.

    has_points: whether values are few enough to be marked one by one.
    """

    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]
    has_points: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def line_chart(labels: Sequence[str], series: Sequence[Series], low: float = 0.0, high: float = 1.0) -> Chart:
    """A chart of values between `low` and `high`, one a label, evenly spaced. Others are drawn at the border."""
    places = [_across(number, len(labels)) for number in range(len(labels))]
    ticks = tuple((_down(value, low, high), f"{value:.2g}") for value in _quarters(low, high))
    every = max(1, -(-len(labels) // _MOST_LABELS))
    shown = tuple((place, label) for place, label in list(zip(places, labels, strict=True))[::every])
    lines = tuple(_line(one, places, labels, low, high) for one in series)
    return Chart(lines, ticks, shown, has_points=len(labels) <= 60)


def _line(series: Series, places: Sequence[float], labels: Sequence[str], low: float, high: float) -> Line:
    marks = [
        None if value is None else Point(place, _down(value, low, high), f"{series.name}, {label}: {value:.3f}")
        for place, value, label in zip(places, series.values, labels, strict=True)
    ]
    paths = tuple("M" + " L".join(f"{point.x:.1f},{point.y:.1f}" for point in stretch) for stretch in _stretches(marks))
    return Line(series.name, paths, tuple(filter(None, marks)))


def _stretches(marks: Sequence[Point | None]) -> Iterator[list[Point]]:
    stretch: list[Point] = []
    for mark in [*marks, None]:
        if mark:
            stretch.append(mark)
        elif stretch:
            yield stretch
            stretch = []


def _quarters(low: float, high: float) -> list[float]:
    return [low + (high - low) * quarter / 4 for quarter in range(5)]


def _across(number: int, count: int) -> float:
    share = number / (count - 1) if count > 1 else 0.5
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _down(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - _TOP - _BOTTOM), 1)
