"""Polygons against an obvious reader, and their promise: no pixel differs that is further off than the tolerance."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from backend.errors import RegionError
from backend.labelstudio.masks.polygon import fill, outlines, polygon
from ris_core.masks import Mask

noise = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=16)).filter(np.any)
points = st.tuples(*[st.floats(-4, 13, width=32) | st.integers(-8, 26).map(lambda half: half / 2)] * 2)


@st.composite
def blobs(draw: st.DrawFn) -> Mask:
    """A few ellipses, drawn over each other and cut out of each other."""
    mask = np.zeros((draw(st.integers(8, 48)), draw(st.integers(8, 48))), np.uint8)
    for _ in range(draw(st.integers(1, 5))):
        centre = draw(st.tuples(st.integers(0, 48), st.integers(0, 48)))
        axes = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
        cv2.ellipse(mask, centre, axes, draw(st.integers(0, 179)), 0, 360, draw(st.integers(0, 2)) > 0, -1)
    assume(mask.any())
    return mask > 0


def largest_part(mask: Mask) -> Mask:
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return numbers == 1 + np.argmax(boxes[1:, cv2.CC_STAT_AREA])


def winding(ring: list, x: float, y: float) -> int | None:
    """How often a polygon winds around a point: the sum of the angles seen from there. None on the outline."""
    seen = np.array(ring) - (x, y)
    following = np.roll(seen, -1, axis=0)
    across, along = seen[:, 0] * following[:, 1] - seen[:, 1] * following[:, 0], (seen * following).sum(axis=1)
    if ((np.abs(across) < 1e-6) & (along <= 1e-6)).any():
        return None
    return round(np.arctan2(across, along).sum() / (2 * np.pi))


def distances_to_outline(mask: Mask) -> np.ndarray:
    """HxW: how far each pixel's centre is from the nearest edge between a pixel of the mask and another."""
    around = np.pad(mask, 1).astype(int)
    level = [(c, r, c + 1, r) for r, c in np.argwhere(np.diff(around, axis=0)[:, 1:-1])]
    upright = [(c, r, c, r + 1) for r, c in np.argwhere(np.diff(around, axis=1)[1:-1])]
    x1, y1, x2, y2 = np.array(level + upright).T[:, :, None, None]
    y, x = np.indices(mask.shape) + 0.5
    return np.hypot(x - np.clip(x, x1, x2), y - np.clip(y, y1, y2)).min(axis=0)


@settings(deadline=None)
@given(st.lists(points, min_size=3, max_size=8), st.integers(1, 9), st.integers(1, 9))
def test_a_polygon_covers_the_pixels_whose_centres_it_winds_around(ring: list, height: int, width: int) -> None:
    for (row, column), covered in np.ndenumerate(fill(np.array(ring), height, width)):
        times = winding(ring, column + 0.5, row + 0.5)
        assert times is None or covered == (times != 0)


@settings(deadline=None)
@given(noise | blobs())
@example(np.ones((1, 1), np.bool_))
@example(np.eye(5, dtype=np.bool_))
@example(~np.eye(5, dtype=np.bool_))
@example(np.eye(5, dtype=np.bool_)[::-1])
@example(np.kron([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.ones((3, 3))).astype(np.bool_))
@example(np.indices((9, 9)).sum(axis=0) % 2 == 0)
def test_without_tolerance_a_part_reads_back_exactly(mask: Mask) -> None:
    part = largest_part(mask)
    assert (fill(polygon(part, 0), *part.shape) == part).all()


@settings(deadline=None)
@given(noise | blobs(), st.floats(0.1, 6))
def test_only_pixels_within_the_tolerance_of_the_outline_differ(mask: Mask, tolerance: float) -> None:
    part = largest_part(mask)
    differing = fill(polygon(part, tolerance), *part.shape) != part
    if differing.any():
        assert distances_to_outline(part)[differing].max() <= tolerance + 1e-9


def test_straight_edges_take_no_points() -> None:
    part = np.zeros((40, 60), np.bool_)
    part[10:30, 20:50] = True
    assert polygon(part, 0).tolist() == [[20, 10], [50, 10], [50, 30], [20, 30]]


def test_a_circle_takes_few_points() -> None:
    part = cv2.circle(np.zeros((400, 400), np.uint8), (200, 200), 150, 1, -1) > 0
    ring = polygon(part, 1.0)
    assert len(ring) <= 60
    covered = fill(ring, 400, 400)
    assert np.count_nonzero(covered & part) / np.count_nonzero(covered | part) > 0.99


def test_a_hole_is_bridged_there_and_back() -> None:
    part = np.ones((20, 20), np.bool_)
    part[8:12, 8:12] = False
    ring = polygon(part, 0)
    assert len(ring) == 4 + 4 + 2
    assert (fill(ring, 20, 20) == part).all()
    # A hole that the tolerance reaches across is gone, and no bridge leads to it.
    assert len(polygon(part, 6)) == 4


def test_a_thin_part_stays_however_large_the_tolerance() -> None:
    part = np.zeros((9, 9), np.bool_)
    part[4, 2:7] = True
    assert (fill(polygon(part, 50), 9, 9) == part).all()


def test_what_is_outside_the_image_is_cut_off() -> None:
    ring = np.array([[-10, -10], [30, -10], [30, 3], [-10, 3]], float)
    assert np.count_nonzero(fill(ring, 5, 8)) == 3 * 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_point_that_is_nowhere_is_refused(bad: float) -> None:
    with pytest.raises(RegionError, match="finite"):
        fill(np.array([[0, 0], [5, bad], [5, 5]]), 8, 8)


def test_a_polygon_bomb_is_refused_before_it_is_read() -> None:
    ring = np.array([[0, 0], [1, 10_000]] * 50_000, float)
    start = time.perf_counter()
    with pytest.raises(RegionError, match="100000 points"):
        fill(ring, 10_000, 10_000)
    assert time.perf_counter() - start < 0.5


def test_a_large_noisy_part_is_quick() -> None:
    part = largest_part(np.random.default_rng(3).random((120, 160)) > 0.35)
    start = time.perf_counter()
    assert (fill(polygon(part, 0), *part.shape) == part).all()
    # Some hundred holes, far worse than any answer.
    assert time.perf_counter() - start < 15


@settings(deadline=None)
@given(blobs() | noise)
def test_outlines_are_the_mask_by_cocos_own_fill(mask: Mask) -> None:
    polygons = [ring.ravel().tolist() for ring in outlines(mask)]
    covered = coco_mask.decode(coco_mask.frPyObjects(polygons, *mask.shape)).sum(axis=2)
    assert np.array_equal(covered, mask)
    assert len(polygons) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((4, 5), bool)) == []
