"""What Label Studio sends of points and rectangles, and what they cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.prompts.geometry import GeometricPrompt, Rectangle, read_geometry
from ris_core.inference.prompt import Box, Point
from ris_core.masks import Mask

RECORDED = Path(__file__).parents[2] / "fixtures" / "label-studio-1.23.2"
FULL = np.ones((20, 40), np.bool_)


def recorded(name: str) -> dict[str, Any]:
    body = json.loads((RECORDED / f"predict-interactive-{name}.json").read_text())["body"]
    context: dict[str, Any] = body["params"]["context"]
    return context


def same(one: Mask, other: Mask) -> bool:
    return bool(np.array_equal(one, other))


def test_a_key_point_as_label_studio_sends_it() -> None:
    drawn = GeometricPrompt((Point(0.35, 0.5),), label="Thing", keys=frozenset({"k1"}), size=(240, 320))
    assert read_geometry(recorded("keypoint")) == drawn


def test_points_are_positive_unless_alt_was_held_down() -> None:
    geometry = read_geometry(recorded("points"))
    assert geometry is not None
    assert [point.positive for point in geometry.points] == [True, True, False]
    assert len(geometry.keys) == 3
    assert geometry.points[2] == Point(pytest.approx(0.6, abs=0.01), pytest.approx(0.4, abs=0.01), False)
    assert (geometry.label, geometry.selected, geometry.positive) == (None, False, True)


def test_a_point_drawn_while_a_region_is_selected_says_so() -> None:
    geometry = read_geometry(recorded("selected"))
    assert geometry is not None
    assert (len(geometry.points), geometry.label, geometry.selected) == (1, "cat", True)


def test_a_rectangle_as_label_studio_sends_it() -> None:
    geometry = read_geometry(recorded("rectangle"))
    assert geometry is not None
    assert geometry.box == Box(*(pytest.approx(side, abs=0.01) for side in (0.2, 0.2, 0.6, 0.6)))
    assert geometry.positive


def test_a_label_that_no_mask_can_have_says_not_this() -> None:
    def drawn(name: str) -> dict[str, Any]:
        value = {"x": 10, "y": 10, "width": 1, "keypointlabels": [name]}
        return {"result": [{"type": "keypointlabels", "id": "a", "value": value}]}

    beside = read_geometry(drawn("Not this"), ["cat"])
    assert beside is not None
    assert (beside.positive, beside.label) == (False, None)
    thing = read_geometry(drawn("background"), ["background"])
    assert thing is not None
    assert (thing.positive, thing.label) == (True, "background")


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        ["no region"],
        [{"type": "keypointlabels"}],
        [{"type": "keypointlabels", "value": {"x": 1}}],
        [{"type": "keypointlabels", "value": {"x": "1", "y": 2}}],
        [{"type": "rectanglelabels", "value": {"x": 1, "y": 2, "width": float("nan"), "height": 3}}],
        [{"type": "brushlabels", "value": {"x": 1, "y": 2}}],
    ],
)
def test_what_is_no_place_is_passed_over(result: object) -> None:
    assert read_geometry({"result": result}) is None


def test_each_rectangle_is_a_thing_of_its_own_and_all_points_are_one() -> None:
    beside = Rectangle(0, 0, 0.1, 0.1, positive=False, key="n")
    one, two = Rectangle(0, 0, 0.5, 0.5, key="a"), Rectangle(0.5, 0.5, 0.5, 0.5, key="b")
    both = GeometricPrompt(rectangles=(one, beside, two), keys=frozenset("anb"))
    assert [(thing.rectangles, thing.keys) for thing in both.things()] == [
        ((one, beside), frozenset("a")),
        ((two, beside), frozenset("b")),
    ]
    points = GeometricPrompt((Point(0, 0), Point(1, 1)))
    assert points.things() == [points]


def test_a_turned_rectangle_is_cut_off_at_its_edge() -> None:
    """Ten wide and five high, turned by 90 degrees about its top left corner: the five columns left of it."""
    turned = Rectangle(20 / 40, 5 / 20, 10 / 40, 5 / 20, rotation=90)
    expected = np.zeros_like(FULL)
    expected[5:15, 15:20] = True
    assert same(GeometricPrompt(rectangles=(turned,)).trim(FULL), expected)
    box = GeometricPrompt(rectangles=(turned,), size=(20, 40)).box
    assert box == Box(*(pytest.approx(side) for side in (15 / 40, 5 / 20, 20 / 40, 15 / 20)))


def test_an_upright_rectangle_cuts_nothing_off_and_a_negative_one_what_it_holds() -> None:
    assert same(GeometricPrompt(rectangles=(Rectangle(0, 0, 0.1, 0.1),)).trim(FULL), FULL)
    expected = FULL.copy()
    expected[:, 30:] = False
    assert same(GeometricPrompt(rectangles=(Rectangle(0.75, 0, 0.25, 1, positive=False),)).trim(FULL), expected)


@given(
    st.tuples(*[st.floats(-0.5, 1.5)] * 2, *[st.floats(0.01, 1)] * 2, st.floats(-360, 360)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_the_box_around_a_rectangle_holds_all_of_it(
    sides: tuple[float, float, float, float, float], size: tuple[int, int]
) -> None:
    rectangle = Rectangle(*sides)
    rows, columns = np.nonzero(rectangle.area(size))
    box = rectangle.box(size)
    assert (box.left * size[1] <= columns + 0.5 + 1e-6).all()
    assert (box.right * size[1] >= columns + 0.5 - 1e-6).all()
    assert (box.top * size[0] <= rows + 0.5 + 1e-6).all()
    assert (box.bottom * size[0] >= rows + 0.5 - 1e-6).all()
