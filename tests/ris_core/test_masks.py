"""Masks and COCO's forms of them, against counts made by hand and by a second, slow implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ris_core.errors import DatasetError
from ris_core.masks import bounding_box, decode_rle, encode_rle, encode_runs, iou, segmentation_to_mask

masks = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda shape: arrays(np.bool_, shape))


@given(masks)
def test_run_lengths_are_lossless(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert isinstance(rle["counts"], str)
    assert (decode_rle(rle) == mask).all()


@given(masks)
def test_uncompressed_run_lengths(mask: np.ndarray) -> None:
    counts, value = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            counts.append(0)
            value = not value
        counts[-1] += 1
    assert (decode_rle({"size": list(mask.shape), "counts": counts}) == mask).all()


@given(masks)
def test_box_is_the_tightest(mask: np.ndarray) -> None:
    x, y, width, height = (int(side) for side in bounding_box(mask))
    assert mask[y : y + height, x : x + width].sum() == mask.sum()
    if mask.any():
        inside = mask[y : y + height, x : x + width]
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_overlapping_polygons_are_united() -> None:
    first, second = [0, 0, 6, 0, 6, 6, 0, 6], [3, 3, 9, 3, 9, 9, 3, 9]
    mask = segmentation_to_mask([first, second], 10, 10)
    assert mask.sum() == 36 + 36 - 9
    assert mask[4, 4]


def test_a_line_encloses_nothing() -> None:
    assert not segmentation_to_mask([[1, 1, 5, 5]], 8, 8).any()


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [5]},
        {"size": [2], "counts": "04"},
        {"counts": "04"},
        {"size": [2, 2]},
    ],
)
def test_bad_run_lengths_are_refused(rle: dict[str, object]) -> None:
    with pytest.raises(DatasetError):
        decode_rle(rle)


def test_run_lengths_of_another_size_are_refused() -> None:
    with pytest.raises(DatasetError, match="its image 4 x 4"):
        segmentation_to_mask(encode_rle(np.ones((3, 3), dtype=bool)), 4, 4)


def test_iou_by_hand() -> None:
    first, second = np.zeros((2, 4, 4), dtype=bool)
    first[:2], second[1:3] = True, True
    assert iou(first, second) == pytest.approx(4 / 12)
    assert iou(first, first) == 1
    assert iou(np.zeros_like(first), np.zeros_like(first)) == 1


@given(masks)
def test_runs_become_run_lengths_without_pixels(mask: np.ndarray) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(), [False]])))
    assert encode_runs(edges[0::2], edges[1::2], *mask.shape) == encode_rle(mask)
    # A run that is cut in two is the same.
    if len(edges) and edges[1] - edges[0] > 1:
        starts, stops = (np.insert(edges[part], at, edges[0] + 1) for part, at in ((np.s_[0::2], 1), (np.s_[1::2], 0)))
        assert encode_runs(starts, stops, *mask.shape) == encode_rle(mask)
