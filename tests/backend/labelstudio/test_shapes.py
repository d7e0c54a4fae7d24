"""Rectangles, ellipses and what else no mask tag drew, as the pixels that they cover."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio import label_config
from backend.labelstudio.masks import brush
from backend.labelstudio.shapes import FilledShape, filled_shapes

HEIGHT, WIDTH = 24, 32
CONFIG = label_config.parse(
    '<View><Image name="img" value="$image"/>'
    '<BrushLabels name="brush" toName="img"><Label value="cat"/></BrushLabels>'
    '<RectangleLabels name="box" toName="img"><Label value="cat"/></RectangleLabels>'
    '<EllipseLabels name="oval" toName="img"><Label value="sun" alias="s" category="40"/></EllipseLabels>'
    '<RectangleLabels name="point" toName="img" smart="true"><Label value="cat"/></RectangleLabels>'
    '<Labels name="names" toName="img"><Label value="leaf"/></Labels><Polygon name="outline" toName="img"/>'
    '<KeyPoint name="dot" toName="img" smart="false"/></View>'
)
Told = list[tuple[str, str, str]]


def region(name: str, kind: str, value: dict[str, Any], **extra: Any) -> dict[str, Any]:
    place = {"id": "r", "from_name": name, "to_name": "img", "type": kind, "origin": "manual"}
    return {**place, "original_width": WIDTH, "original_height": HEIGHT, "value": value, **extra}


def box(x: float, y: float, width: float, height: float, rotation: float = 0, **extra: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": ["cat"]}
    return region("box", "rectanglelabels", value, **extra)


def oval(x: float, y: float, across: float, down: float, rotation: float = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "radiusX": across, "radiusY": down, "rotation": rotation, "ellipselabels": ["s"]}
    return region("oval", "ellipselabels", value)


def filled(*regions: dict[str, Any]) -> tuple[list[FilledShape], Told]:
    told: Told = []
    return filled_shapes(list(regions), CONFIG, lambda *what: told.append(what)), told


def inside(test: Any) -> np.ndarray:
    """A pixel at a time."""
    return np.array([[test(column + 0.5, row + 0.5) for column in range(WIDTH)] for row in range(HEIGHT)])


def turned_back(x: float, y: float, around: tuple[float, float], degrees: float) -> tuple[float, float]:
    turn, dx, dy = math.radians(-degrees), x - around[0], y - around[1]
    return dx * math.cos(turn) - dy * math.sin(turn), dx * math.sin(turn) + dy * math.cos(turn)


# Off the grid of pixel centres, where a rounding would decide.
_percent = st.integers(-20, 120).map(lambda number: number + 0.137)
_size = st.integers(1, 90).map(lambda number: number + 0.211)
_degrees = st.sampled_from([0.0, 17.3, 45.1, 90.0, 133.7, 211.3, 359.9])


@given(_percent, _percent, _size, _size, _degrees)
def test_a_rectangle_turns_around_its_corner(x: float, y: float, width: float, height: float, turn: float) -> None:
    corner = x * WIDTH / 100, y * HEIGHT / 100
    across, down = width * WIDTH / 100, height * HEIGHT / 100

    def covers(column: float, row: float) -> bool:
        along, aside = turned_back(column, row, corner, turn)
        return 0 <= along < across and 0 <= aside < down

    (shape,), told = filled(box(x, y, width, height, turn))
    assert np.array_equal(shape.mask, inside(covers))
    assert (shape.kind, shape.labels, shape.is_turned, told) == ("rectangle", ("cat",), turn != 0, [])


@given(_percent, _percent, _size, _size, _degrees)
def test_an_ellipse_turns_around_its_centre(x: float, y: float, across: float, down: float, turn: float) -> None:
    centre = x * WIDTH / 100, y * HEIGHT / 100

    def covers(column: float, row: float) -> bool:
        along, aside = turned_back(column, row, centre, turn)
        return math.hypot(along / (across * WIDTH / 100), aside / (down * HEIGHT / 100)) <= 1

    (shape,), _ = filled(oval(x, y, across, down, turn))
    assert np.array_equal(shape.mask, inside(covers))
    assert (shape.kind, shape.labels) == ("ellipse", ("sun",))


def test_a_tag_without_labels_has_those_of_the_same_id() -> None:
    outline = region("outline", "polygon", {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "closed": True})
    names = region("names", "labels", {**outline["value"], "labels": ["leaf"]})
    (shape,), told = filled(outline, names)
    assert (shape.kind, shape.labels, told) == ("polygon", ("leaf",), [])
    assert shape.mask[: HEIGHT // 2, : WIDTH // 2].all() and shape.mask.sum() == HEIGHT * WIDTH // 4


def test_an_answer_whose_mask_is_there_isnt_repeated_by_its_box() -> None:
    mask = np.ones((HEIGHT, WIDTH), bool)
    value = {"format": "rle", "rle": brush.encode(mask), "brushlabels": ["cat"]}
    answered = {"meta": {"text": ["prompt: the cat"], "answer": "one"}}
    drawn = region("brush", "brushlabels", value, **answered)
    assert filled(drawn, box(0, 0, 100, 100, **answered)) == ([], [])
    (shape,), _ = filled(drawn, box(0, 0, 50, 50, meta={"text": ["prompt: a cat"]}, score=0.5, origin="prediction"))
    assert (shape.prompts, shape.score, shape.origin) == (("a cat",), 0.5, "prediction")


@pytest.mark.parametrize(
    ("drawn", "kind", "what"),
    [
        (box(0, 0, 10, 10, to_name="other"), "region", "on another picture"),
        (box(0, 0, 10, 10, from_name="gone"), "unknown tag", 'no tag "gone"'),
        (box(0, 0, 10, 10, from_name="point"), "region", '"point" is what people point with'),
        (region("dot", "keypoint", {"x": 1, "y": 1, "width": 1}), "region", "a key point covers nothing"),
        (box(0, 0, math.nan, 10), "region", "aren't numbers that fit"),
        (box(0, 0, "10", 10), "region", "aren't numbers that fit"),
        (box(0, 0, 10**400, 10), "region", "aren't numbers that fit"),
        (box(0, 0, 10, 10, original_width=None), "region", "the size of its image"),
        (oval(0, 0, 0, 10), "region", "radius isn't above 0"),
        (region("outline", "polygon", {"points": [[0, 0], [1, 1]], "closed": True}), "region", "three or more"),
        (region("gone", "brushlabels", {"format": "rle", "rle": [1, 2]}), "unknown tag", 'no tag "gone"'),
    ],
)
def test_what_is_left_out_is_told(drawn: dict[str, Any], kind: str, what: str) -> None:
    (good,), told = filled(drawn, box(0, 0, 50, 50, id="good"))
    assert good.region_id == "good"
    ((told_kind, region_id, message),) = told
    assert (told_kind, region_id) == (kind, "r")
    assert what in message
