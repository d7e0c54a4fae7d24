"""Masks and COCO's forms of them, against counts made by hand and by a second, slow implementation."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from ris_core.errors import DatasetError
from ris_core.masks import bounding_box, decode_rle, encode_rle, encode_runs, iou, segmentation_to_mask

masks = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda shape: arrays(np.bool_, shape))


@given(masks)
def test_run_lengths_are_lossless(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert isinstance(rle["counts"], str)
    assert (decode_rle(rle) == mask).all()


@given(masks)
def test_pycocotools_reads_the_same(mask: np.ndarray) -> None:
    assert (coco.decode(encode_rle(mask)).astype(bool) == decode_rle(encode_rle(mask))).all()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_large_masks_are_read_as_pycocotools_reads_them(share: float) -> None:
    """Runs of several characters, and differences below nought."""
    rng = np.random.default_rng(0)
    mask = rng.random((700, 1100)) < share
    mask[100:400, 200:900] ^= True
    rle = encode_rle(mask)
    decoded = decode_rle(rle)
    assert decoded.dtype == np.bool_ and (decoded == mask).all()
    assert (coco.decode(rle).astype(bool) == decoded).all()
    assert (decode_rle({**rle, "counts": rle["counts"].encode()}) == mask).all()


@given(masks, st.data())
def test_damaged_run_lengths_are_a_mask_or_refused(mask: np.ndarray, data: st.DataObject) -> None:
    """Pycocotools crashed on some of them, process and all."""
    rle = encode_rle(mask)
    text = list(rle["counts"])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.text(st.characters(max_codepoint=130), max_size=8)
        )
    with suppress(DatasetError):
        assert segmentation_to_mask({**rle, "counts": "".join(text)}, *mask.shape).shape == mask.shape


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
        {"size": [2, 2], "counts": "0"},
        {"size": [2, 2], "counts": "0T"},
        {"size": [2, 2], "counts": "PPPPPPPPPP4"},
        {"size": [2, 2], "counts": "05O"},
        {"size": [2, 2], "counts": "0\x7f"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": 4},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [2, 2], "counts": [float("nan"), 4]},
        {"size": [2, 2], "counts": [10**30]},
        {"size": [2, 2], "counts": ["a"]},
        {"size": [-2, -2], "counts": [4]},
        {"size": [float("inf"), 2], "counts": [4]},
        {"size": None, "counts": [4]},
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


@pytest.mark.parametrize("size", [[10**6, 10**6], [10**30, 1], None, "44", [4], [4, None], {"a": 4}])
def test_run_lengths_of_a_size_that_is_none_are_refused_before_anything_is_made(size: object) -> None:
    with pytest.raises(DatasetError, match="its image 4 x 4"):
        segmentation_to_mask({"size": size, "counts": [10**12]}, 4, 4)


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
