"""Which annotations count: every policy on its own, against each other, and in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from annotated import annotation, drawn
from hypothesis import given
from hypothesis import strategies as st

from backend.datasets.annotations import chosen_annotation
from backend.datasets.selection import POLICIES, Policy, select
from backend.errors import BadRequest

BLOB = drawn("a", np.ones((3, 4), np.bool_))


def at(minute: int) -> str:
    return f"2026-11-21T02:{minute:02}:00Z"


def of(number: int, person: object, *result: dict[str, Any], minute: int = 0, **extra: Any) -> dict[str, Any]:
    return annotation(number, *result, completed_by=person, updated_at=at(minute), **extra)


def ids(annotations: Sequence[dict[str, Any]], policy: Policy) -> list[int]:
    return [counting["id"] for counting in select(annotations, policy)]


def test_every_policy_is_described() -> None:
    assert set(POLICIES) == set(get_args(Policy))


@pytest.mark.parametrize("policy", ["newest", "", None, ["all"]])
def test_another_policy_is_refused_with_those_that_there_are(policy: Any) -> None:
    with pytest.raises(BadRequest, match=r"no policy .*consensus-staple"):
        select([], policy)


@pytest.mark.parametrize(
    ("policy", "counting"),
    [
        ("best", [3]),
        ("ground-truth", []),
        ("reviewed", []),
        ("latest", [4]),
        ("all", [2, 3, 4]),
        ("consensus-vote", [2, 3, 4]),
        ("consensus-staple", [2, 3, 4]),
    ],
)
def test_three_people_of_whom_the_last_drew_nothing(policy: Policy, counting: list[int]) -> None:
    annotations = [
        of(1, 7, BLOB, minute=1),
        of(2, 7, BLOB, minute=2),
        of(3, {"id": 8, "email": "b@example.com"}, BLOB, minute=3),
        of(4, 9, minute=4),
        of(5, 8, BLOB, minute=5, was_cancelled=True),
    ]
    assert ids(annotations, policy) == counting


@pytest.mark.parametrize("policy", get_args(Policy))
def test_a_ground_truth_stands_alone_where_it_is_asked_for(policy: Policy) -> None:
    annotations = [of(1, 7, ground_truth=True), of(2, 8, BLOB, minute=2), of(3, 9, BLOB, minute=3)]
    expected = {"latest": [3], "all": [1, 2, 3]}
    assert ids(annotations, policy) == expected.get(policy, [1])


@pytest.mark.parametrize("policy", get_args(Policy))
def test_a_skipped_ground_truth_counts_for_nothing(policy: Policy) -> None:
    skipped = of(1, 7, BLOB, ground_truth=True, was_cancelled=True, last_action="accepted")
    assert ids([skipped], policy) == []
    assert ids([], policy) == []


@pytest.mark.parametrize(
    "review",
    [
        {"last_action": "accepted"},
        {"last_action": "fixed_and_accepted"},
        {"reviews": [{"accepted": False}, {"accepted": True}]},
    ],
)
def test_what_a_reviewer_accepted_is_reviewed(review: dict[str, Any]) -> None:
    annotations = [of(1, 7, **review), of(2, 8, BLOB, minute=2)]
    assert ids(annotations, "reviewed") == [1]
    assert ids([*annotations, of(3, 9, minute=3, **review)], "reviewed") == [3]
    assert ids([*annotations, of(3, 9, ground_truth=True)], "reviewed") == [3]


@pytest.mark.parametrize(
    "review",
    [
        {"last_action": "rejected"},
        {"last_action": None, "reviews": None},
        {"reviews": []},
        {"reviews": [{"accepted": True}, {"accepted": False}]},
        {"reviews": [{}]},
    ],
)
def test_what_no_reviewer_accepted_in_the_end_is_not(review: dict[str, Any]) -> None:
    assert ids([of(1, 7, BLOB, **review)], "reviewed") == []


def test_without_results_the_caller_says_where_something_is_drawn() -> None:
    annotations = [of(1, 7, minute=1), of(2, 8, minute=2)]
    for one in annotations:
        del one["result"]
    assert [one["id"] for one in select(annotations, "best", lambda one: one["id"] == 1)] == [1]
    assert [one["id"] for one in select(annotations, "best", lambda one: False)] == [2]


heads = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(1, 99),
            "updated_at": st.sampled_from([None, *map(at, range(4))]),
            "created_at": st.just(at(2)),
            "completed_by": st.sampled_from([None, 1, 2, {"id": 3}, {"id": 3, "email": "c@example.com"}]),
            "ground_truth": st.booleans(),
            "was_cancelled": st.booleans(),
            "last_action": st.sampled_from([None, "accepted", "submitted"]),
            "result": st.sampled_from([[], [BLOB]]),
        }
    ),
    max_size=6,
    unique_by=lambda one: one["id"],
)


def person(one: dict[str, Any]) -> object:
    by = one["completed_by"]
    return by["id"] if isinstance(by, dict) else by


@given(heads, st.sampled_from(get_args(Policy)), st.randoms(use_true_random=False))
def test_what_counts_is_there_not_skipped_one_a_person_and_the_same_in_any_order(
    annotations: list[dict[str, Any]], policy: Policy, chance: Any
) -> None:
    counting = select(annotations, policy)
    shuffled = chance.sample(annotations, len(annotations))
    assert select(shuffled, policy) == counting
    assert all(one in annotations and not one["was_cancelled"] for one in counting)
    assert len({person(one) for one in counting}) == len(counting)
    assert [one["id"] for one in counting] == sorted(one["id"] for one in counting)
    if policy not in ("all", "consensus-vote", "consensus-staple"):
        assert len(counting) <= 1


@given(heads)
def test_the_policies_agree_with_one_another(annotations: list[dict[str, Any]]) -> None:
    best = chosen_annotation(annotations)
    assert select(annotations, "best") == ([best] if best else [])
    assert select(annotations, "consensus-vote") == select(annotations, "consensus-staple")
    true = select(annotations, "ground-truth")
    everybody = select(annotations, "all")
    assert {person(one) for one in everybody} == {person(one) for one in annotations if not one["was_cancelled"]}
    if true:
        assert select(annotations, "best") == select(annotations, "reviewed") == true
        assert select(annotations, "consensus-vote") == true
    else:
        assert select(annotations, "consensus-vote") == everybody
