"""A photo's split never moves."""

from __future__ import annotations

from collections import Counter

from ris_core.data.splits import split_of


def test_known_names_stay_where_they_are() -> None:
    # Written down once: a change here would move photos between training and test.
    known = {"0001.jpg": "train", "0008.jpg": "test", "0011.jpg": "test", "0015.jpg": "val", "0016.jpg": "val"}
    assert {name: split_of(name) for name in known} == known


def test_shares() -> None:
    shares = Counter(split_of(f"photo-{number}") for number in range(20_000))
    assert abs(shares["test"] / 20_000 - 0.1) < 0.01
    assert abs(shares["val"] / 20_000 - 0.1) < 0.01
