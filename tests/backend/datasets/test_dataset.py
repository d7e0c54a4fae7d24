"""What an instance knows of its mask, and a folder that is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from small_project import build, contents, write_snapshot

from backend.datasets.dataset import DatasetImage, Instance
from ris_core.masks import bounding_box, encode_rle


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24)))
def test_area_and_box_are_the_masks(mask: np.ndarray) -> None:
    instance = Instance(1, 1, encode_rle(mask), {})
    assert instance.area == mask.sum()
    assert instance.bbox == bounding_box(mask)
    assert np.array_equal(instance.mask(), mask)


@given(st.lists(arrays(np.bool_, (6, 7)), max_size=4))
def test_what_was_drawn_later_lies_on_top(masks: list[np.ndarray]) -> None:
    instances = tuple(Instance(n, 1, encode_rle(mask), {}) for n, mask in enumerate(masks))
    layers = DatasetImage(1, "a.png", Path("a"), 7, 6, "", "train", instances, ()).layers()
    for row, column in np.ndindex(6, 7):
        above = [position for position, mask in enumerate(masks, 1) if mask[row, column]]
        assert layers[row, column] == (above[-1] if above else 0)


def test_a_snapshot_that_is_read_and_written_is_the_same(tmp_path: Path) -> None:
    snapshot = build(tmp_path / "home")
    write_snapshot(snapshot.folder, tmp_path / "out", "coco")
    assert contents(tmp_path / "out") == contents(snapshot.folder)
