"""Points and rectangles: read from what the editor sends, and applied to masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import recorded

from backend.prompts.geometry import Box, GeometricPrompt, Point, read_geometry
from ris_core.masks import Mask

# Two things, 20x40: columns 2 to 9 and columns 22 to 37.
LEFT, RIGHT = np.zeros((20, 40), np.bool_), np.zeros((20, 40), np.bool_)
LEFT[4:16, 2:10] = True
RIGHT[4:16, 22:38] = True
BOTH = LEFT | RIGHT


def same(kept: Mask, expected: Mask) -> bool:
    return kept.dtype == np.bool_ and np.array_equal(kept, expected)


def test_a_point_keeps_the_part_that_it_lies_on() -> None:
    assert same(GeometricPrompt((Point(0.1, 0.5),)).keep(BOTH), LEFT)
    assert same(GeometricPrompt((Point(0.1, 0.5), Point(0.8, 0.5))).keep(BOTH), BOTH)


def test_a_point_just_beside_a_thing_means_it() -> None:
    # Column 10, one pixel from the left thing; and column 15, far from both.
    assert same(GeometricPrompt((Point(10.4 / 40, 10.5 / 20),)).keep(BOTH), LEFT)
    assert not GeometricPrompt((Point(15 / 40, 0.5),)).keep(BOTH).any()


def test_a_negative_point_drops_the_part_that_it_lies_on() -> None:
    assert same(GeometricPrompt((Point(0.1, 0.5, positive=False),)).keep(BOTH), RIGHT)
    assert same(GeometricPrompt((Point(0.1, 0.5, positive=False), Point(0.8, 0.5))).keep(BOTH), RIGHT)


def test_a_part_with_points_of_both_kinds_is_divided() -> None:
    # Pixel centres 24 and 36 of the right thing: the border is at column 30.
    geometry = GeometricPrompt((Point(24 / 40, 0.5), Point(36 / 40, 0.5, positive=False)))
    expected = RIGHT.copy()
    expected[:, 30:] = False
    assert same(geometry.keep(BOTH), expected)


def test_a_rectangle_keeps_what_lies_mostly_inside_cut_at_its_edge() -> None:
    # Columns 0 to 29: the whole left thing and half of the right one.
    assert same(GeometricPrompt(boxes=(Box(0, 0, 0.5, 1),)).keep(BOTH), LEFT)
    expected = RIGHT.copy()
    expected[:, :24] = False
    assert same(GeometricPrompt(boxes=(Box(24 / 40, 0, 16 / 40, 1),)).keep(BOTH), expected)


def test_a_rectangle_inside_one_thing_keeps_that_much_of_it() -> None:
    expected = np.zeros_like(RIGHT)
    expected[8:12, 24:28] = True
    assert same(GeometricPrompt(boxes=(Box(24 / 40, 0.4, 4 / 40, 0.2),)).keep(BOTH), expected)


def test_a_speck_inside_a_rectangle_is_not_what_is_meant() -> None:
    speck = RIGHT.copy()
    speck[17, 25] = True
    expected = speck.copy()
    expected[:, 27:] = False
    assert same(GeometricPrompt(boxes=(Box(22 / 40, 0, 5 / 40, 1),)).keep(speck), expected)


def test_a_negative_rectangle_takes_away_what_it_holds() -> None:
    expected = BOTH.copy()
    expected[:, 30:] = False
    assert same(GeometricPrompt(boxes=(Box(0.75, 0, 0.25, 1, positive=False),)).keep(BOTH), expected)


def test_a_rectangle_turns_about_its_corner() -> None:
    """A quarter turn clockwise takes what was to the right of the corner below it, and what was below to the left."""
    turned = GeometricPrompt(boxes=(Box(10 / 40, 0, 20 / 40, 10 / 20, rotation=90),)).keep(np.ones((20, 40), np.bool_))
    expected = np.zeros((20, 40), np.bool_)
    expected[:20, :10] = True
    assert same(turned, expected)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=4),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.floats(-360, 360), st.booleans()), max_size=2),
)
def test_nothing_is_ever_added(points: list[Any], boxes: list[Any]) -> None:
    kept = GeometricPrompt(tuple(Point(*each) for each in points), tuple(Box(*each) for each in boxes)).keep(BOTH)
    assert not (kept & ~BOTH).any()


def test_nothing_is_nowhere() -> None:
    empty = np.zeros((5, 5), np.bool_)
    assert same(
        GeometricPrompt((Point(0.5, 0.5), Point(0.1, 0.1, positive=False)), (Box(0, 0, 1, 1),)).keep(empty), empty
    )


def test_what_the_editor_sends_is_read() -> None:
    context = recorded("predict-interactive-keypoint")["body"]["params"]["context"]
    assert read_geometry(context) == GeometricPrompt((Point(0.35, 0.5),), label="Thing")


def region(kind: str, positive: object = None, **value: object) -> dict[str, Any]:
    return {"type": kind, "value": value} | ({} if positive is None else {"is_positive": positive})


def test_points_and_rectangles_of_either_kind_are_read() -> None:
    context = {
        "result": [
            region("keypoint", 0, x=10, y=20),
            region("keypointlabels", 1, x=1, y=2, keypointlabels=["cat"]),
            region("rectanglelabels", x=10, y=20, width=30, height=40, rotation=5, rectanglelabels=["dog"]),
            region("rectangle", False, x=0, y=0, width=1, height=1),
        ]
    }
    boxes = (Box(0.1, 0.2, 0.3, 0.4, 5.0), Box(0, 0, 0.01, 0.01, positive=False))
    assert read_geometry(context) == GeometricPrompt((Point(0.1, 0.2, False), Point(0.01, 0.02)), boxes, "cat")


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        [None, 3],
        [region("textarea", text=["a"])],
        [region("keypoint", x="10", y=20)],
        [region("keypoint", x=float("nan"), y=20)],
        [region("keypoint", x=True, y=20)],
        [{"type": "rectangle"}, {"type": "rectanglelabels", "value": {"rectanglelabels": "cat"}}],
    ],
)
def test_anything_else_is_no_place(result: object) -> None:
    assert read_geometry({"result": result}) is None
