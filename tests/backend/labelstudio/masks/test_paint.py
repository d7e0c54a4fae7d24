"""Runs of pixels, painted."""

from __future__ import annotations

import numpy as np

from backend.labelstudio.masks import paint


def test_runs_go_on_from_row_to_row() -> None:
    mask = paint(np.array([1, 5, 8]), np.array([3, 5, 10]), 3, 4)
    assert mask.astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert not paint(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 2, 2).any()
