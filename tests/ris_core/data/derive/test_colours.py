"""Colours by name, and silence where people might disagree."""

from __future__ import annotations

import numpy as np
import pytest

from ris_core.data.derive.colours import colour_shares, contradictions, dominant, is_dark

EVERYWHERE = np.ones((10, 10), dtype=bool)


def painted(*stripes: tuple[int, tuple[int, int, int]]) -> np.ndarray:
    """10 x 10 pixels: so many rows of each colour."""
    return np.concatenate([np.full((rows, 10, 3), colour, np.uint8) for rows, colour in stripes])


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((200, 20, 20), "red"),
        ((200, 20, 35), "red"),
        ((240, 130, 20), "orange"),
        ((240, 220, 40), "yellow"),
        ((40, 140, 60), "green"),
        ((30, 60, 160), "blue"),
        ((120, 50, 160), "purple"),
        ((240, 120, 190), "pink"),
        ((110, 70, 35), "brown"),
        ((20, 20, 22), "black"),
        ((240, 240, 235), "white"),
        ((120, 120, 122), "grey"),
    ],
)
def test_plain_colours(rgb: tuple[int, int, int], name: str) -> None:
    shares = colour_shares(painted((10, rgb)), EVERYWHERE)
    assert shares == {name: 1.0}
    assert dominant(shares) == name


@pytest.mark.parametrize("rgb", [(0, 150, 150), (200, 160, 140), (180, 182, 181), (230, 170, 20)], ids=str)
def test_colours_between_two_names_have_none(rgb: tuple[int, int, int]) -> None:
    assert colour_shares(painted((10, rgb)), EVERYWHERE) == {}
    assert dominant({}) is None


def test_only_pixels_inside_the_mask_count() -> None:
    image = painted((4, (200, 20, 20)), (6, (30, 60, 160)))
    mask = np.zeros((10, 10), dtype=bool)
    mask[3:5] = True
    assert colour_shares(image, mask) == {"red": 0.5, "blue": 0.5}
    assert colour_shares(image, np.zeros((10, 10), dtype=bool)) == {}


def test_shares_of_a_large_mask_are_those_of_pixels_spread_over_it() -> None:
    image = np.repeat(painted((7, (200, 20, 20)), (3, (30, 60, 160))), 50, axis=0).repeat(50, axis=1)
    shares = colour_shares(image, np.ones((500, 500), dtype=bool))
    assert shares["red"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("shares", "name"),
    [
        ({"red": 0.5, "blue": 0.25}, "red"),
        ({"red": 0.49}, None),
        ({"red": 0.6, "blue": 0.31}, None),
        ({"red": 0.5, "blue": 0.5}, None),
    ],
)
def test_a_dominant_colour_has_half_the_pixels_and_twice_the_next(shares: dict[str, float], name: str | None) -> None:
    assert dominant(shares) == name


def test_contradictions_are_far_off_and_leave_no_trace() -> None:
    assert contradictions("red", {"red": 0.9}) == ["green", "blue", "white", "yellow"]
    assert contradictions("red", {"red": 0.9, "white": 0.05}) == ["green", "blue", "yellow"]
    assert "pink" not in contradictions("red", {"red": 1.0})


def test_night_is_dark_and_a_black_cat_on_snow_is_not() -> None:
    assert is_dark(painted((8, (20, 20, 20)), (2, (250, 250, 250))))
    assert not is_dark(painted((4, (20, 20, 20)), (6, (250, 250, 250))))
