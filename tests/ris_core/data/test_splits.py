"""A photo's split never moves."""

from __future__ import annotations

from collections import Counter

from ris_core.data.splits import fold_of, is_blind, split_of


def test_known_names_stay_where_they_are() -> None:
    # Written down once: a change here would move photos between training and test.
    splits = {"0001.jpg": "train", "0008.jpg": "test", "0011.jpg": "test", "0015.jpg": "val", "0016.jpg": "val"}
    assert {name: split_of(name) for name in splits} == splits


def test_shares() -> None:
    shares = Counter(split_of(f"photo-{number}") for number in range(20_000))
    assert abs(shares["test"] / 20_000 - 0.1) < 0.01
    assert abs(shares["val"] / 20_000 - 0.1) < 0.01


def test_a_share_of_what_is_held_out_is_blind_and_a_larger_share_holds_it_too() -> None:
    held_out = [f"photo-{number}" for number in range(20_000) if split_of(f"photo-{number}") != "train"]
    tenth = [name for name in held_out if is_blind(name, 0.1)]
    assert abs(len(tenth) / len(held_out) - 0.1) < 0.02
    assert {split_of(name) for name in tenth} == {"val", "test"}
    assert all(is_blind(name, 0.2) for name in tenth)
    assert not any(is_blind(name, 0.0) for name in held_out)
    assert not any(is_blind(f"photo-{number}", 1.0) for number in range(200) if split_of(f"photo-{number}") == "train")


def test_folds_are_of_one_size_and_cut_across_splits() -> None:
    names = [f"photo-{number}" for number in range(20_000)]
    folds = Counter((split_of(name), fold_of(name)) for name in names)
    assert {fold for _, fold in folds} == set(range(5))
    assert all(abs(folds["test", fold] / 2000 - 0.2) < 0.05 for fold in range(5))
    assert all(abs(folds["train", fold] / 16_000 - 0.2) < 0.02 for fold in range(5))


def test_known_names_stay_in_their_folds() -> None:
    assert [fold_of(name) for name in ("0001.jpg", "0008.jpg", "0011.jpg", "0015.jpg")] == [1, 2, 3, 3]
