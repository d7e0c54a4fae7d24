"""Whatever the weights, how often each is drawn follows them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ris_core.training.sampling import resample


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_counts_follow_weights_to_within_one(weights: list[float], start: float) -> None:
    counts, total = resample(weights, start), sum(weights)
    assert sum(counts) == len(weights)
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - weight * len(weights) / total) < 1 + 1e-6
