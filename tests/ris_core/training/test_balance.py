"""What a project's expressions weigh, next to each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_core.data import Sample
from ris_core.training.balance import balance


def sample(sentence: str = "the cup", number: int = 1, origin: str = "", there: bool = False) -> Sample:
    masks = ({"size": [48, 64], "counts": "0"},) if there else ()
    return Sample(Path(f"{number}.png"), number, number, "train", sentence, 48, 64, masks, origin=origin)


def test_a_frequent_prompt_counts_more_but_not_by_as_much() -> None:
    weights = balance([*[sample()] * 16, sample("the spoon")])
    assert weights[0] == pytest.approx(weights[-1] / 4)
    assert sum(weights[:-1]) == pytest.approx(4 * weights[-1])


def test_what_a_person_changed_counts_most() -> None:
    origins = ("corrected", "manual", "", "absent", "accepted")
    many = [sample(f"the thing {number}", number, "manual") for number in range(20)]
    corrected, manual, unknown, absent, accepted = balance(
        [*(sample(origin, 99, origin) for origin in origins), *many]
    )[:5]
    assert corrected > manual == unknown == absent > accepted > 0


def test_accepted_masks_are_a_quarter_at_most() -> None:
    few, many = [sample("the cup", 1, "corrected")], [sample("the spoon", n, "accepted") for n in range(2, 402)]
    weights = balance([*few, *many])
    assert sum(weights[1:]) == pytest.approx(sum(weights) / 4)
    # Nothing else is there to learn from.
    assert balance(many) == pytest.approx([0.25 / 20] * 400)


def test_what_isnt_there_is_a_quarter_at_most() -> None:
    there = [sample("the cup", number, there=True) for number in range(9)]
    absent = [sample("the spoon", number) for number in range(9, 34)]
    weights = balance([*there, *absent])
    assert sum(weights[9:]) == pytest.approx(sum(weights) / 4)
    # So it is where most was accepted, and few absent things keep the weight of others.
    accepted = [sample("the cup", number, "accepted", there=True) for number in range(40, 440)]
    corrected = [sample("the cup", 500, "corrected", there=True)]
    weights = balance([*corrected, *absent, *accepted])
    assert sum(weights[1:26]) == pytest.approx(sum(weights) / 4)
    some = balance([*there, sample("the fork", 600)])
    assert some[9] == pytest.approx(3 * some[0]), "one prompt was given nine times"


def test_what_is_new_is_drawn_three_times_as_often() -> None:
    old, new = balance([sample("the cup", 1), sample("the spoon", 2)], {2})
    assert new == pytest.approx(3 * old)


def test_nothing_weighs_nothing() -> None:
    assert balance([]) == []
