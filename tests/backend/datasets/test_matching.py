"""Which objects are one thing, against scipy's best assignment and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from annotators import Mask, box, person, thing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from backend.datasets.annotations import DrawnObject
from backend.datasets.matching import SAME, match, of_one_size, overlaps
from ris_core.masks import iou


def apart(layers: np.ndarray) -> list[DrawnObject]:
    """The things of a picture in which every pixel shows one, or none."""
    return [thing(layers == number, "cat" if number % 2 else "dog") for number in np.unique(layers) if number]


layers = arrays(np.uint8, (5, 6), elements=st.integers(0, 4))


@settings(deadline=None)
@given(layers, layers, st.data())
def test_of_two_people_it_is_the_best_assignment(first: np.ndarray, noise: np.ndarray, data: st.DataObject) -> None:
    second = np.where(data.draw(arrays(np.bool_, (5, 6))), noise, first)
    one, other = apart(first), apart(second)
    table = np.zeros((len(one), len(other)))
    for row, drawn in enumerate(one):
        for column, opposite in enumerate(other):
            alike = iou(drawn.mask(), opposite.mask()) if drawn.label == opposite.label else 0.0
            table[row, column] = alike if alike > SAME else 0.0
    rows, columns = linear_sum_assignment(table, maximize=True)
    best = {(row, column) for row, column in zip(rows, columns, strict=True) if table[row, column]}
    groups = match([one, other])
    assert {(group[0], group[1]) for group in groups if len(group) == 2} == best
    members = sorted(member for group in groups for member in group.items())
    assert members == [(0, number) for number in range(len(one))] + [(1, number) for number in range(len(other))]


masks = arrays(np.bool_, (4, 4)).filter(np.any)


@settings(deadline=None)
@given(st.lists(st.lists(masks, max_size=4), min_size=1, max_size=4))
def test_every_object_is_in_one_group_with_one_a_person_joined_by_likeness(drawings: list[list[Mask]]) -> None:
    people = [[thing(mask) for mask in drawn] for drawn in drawings]
    groups = match(people)
    members = [member for group in groups for member in group.items()]
    assert sorted(members) == [(who, number) for who, drawn in enumerate(people) for number in range(len(drawn))]
    assert [min(group.items()) for group in groups] == sorted(min(group.items()) for group in groups)
    for group in groups:
        reached, todo = set(), [min(group.items())]
        while todo:
            who, number = todo.pop()
            reached.add((who, number))
            near = (one for one in group.items() if iou(drawings[one[0]][one[1]], drawings[who][number]) > SAME)
            todo += [one for one in near if one not in reached]
        assert reached == set(group.items())
    for position, group in enumerate(groups):
        for other in groups[:position]:
            if not group.keys() & other.keys():
                pairs = [(drawings[a][b], drawings[c][d]) for a, b in group.items() for c, d in other.items()]
                assert all(iou(*pair) <= SAME for pair in pairs)


@settings(deadline=None)
@given(st.lists(masks, max_size=4), st.lists(masks, max_size=4), st.lists(st.booleans(), min_size=8, max_size=8))
def test_overlaps_are_exact(first: list[Mask], second: list[Mask], cats: list[bool]) -> None:
    one = [thing(mask, "cat" if cat else "dog") for mask, cat in zip(first, cats, strict=False)]
    other = [thing(mask, "cat" if cat else "dog") for mask, cat in zip(second, cats[4:], strict=False)]
    expected = [
        (row, column, iou(first[row], second[column]))
        for row in range(len(one))
        for column in range(len(other))
        if one[row].label == other[column].label and (first[row] & second[column]).any()
    ]
    assert list(overlaps(one, other)) == expected


def test_the_best_pair_comes_first_and_nobody_drew_a_thing_twice() -> None:
    drawn = [[thing(box(0, 0, 10, 10))], [thing(box(0, 0, 10, 8)), thing(box(0, 0, 10, 9))]]
    assert match(drawn) == [{0: 0, 1: 1}, {1: 0}]


@pytest.mark.parametrize(("width", "groups"), [(5, [{0: 0}, {1: 0}]), (6, [{0: 0, 1: 0}])])
def test_half_is_not_enough(width: int, groups: list[dict[int, int]]) -> None:
    assert match([[thing(box(0, 0, 10, 10))], [thing(box(0, 0, 10, width))]]) == groups


def test_another_label_is_another_thing() -> None:
    assert match([[thing(box(0, 0, 9, 9))], [thing(box(0, 0, 9, 9), "dog")]]) == [{0: 0}, {1: 0}]


def test_two_that_are_near_to_a_third_are_one_thing() -> None:
    drawn = [[thing(box(0, left, 10, left + 10))] for left in (0, 3, 6)]
    assert match(drawn) == [{0: 0, 1: 0, 2: 0}]
    assert match([drawn[0], [], drawn[2]]) == [{0: 0}, {2: 0}]


def test_nobody_and_nothing() -> None:
    assert match([]) == match([[], []]) == []


BIG, SMALL = box(0, 0, 9, 9), box(0, 0, 9, 9, (10, 12))


def test_whose_masks_are_of_another_size_than_most_is_left_out() -> None:
    people = [person(1, thing(BIG)), person(2, thing(SMALL)), person(3, thing(BIG)), person(4)]
    kept, remarks = of_one_size(people)
    assert [one.annotation for one in kept] == [1, 3, 4]
    assert len(remarks) == 1
    assert "annotation 2, whose masks are of another size than 24 x 20" in remarks[0]


def test_of_equally_many_the_newer_picture_counts_in_any_order() -> None:
    people = [person(1, thing(BIG)), person(2, thing(SMALL)), person(5, thing(BIG), thing(SMALL))]
    for order in (people[:2], people[1::-1]):
        assert [one.annotation for one in of_one_size(order)[0]] == [2]
    assert of_one_size(people[2:])[0] == []


def test_those_of_one_size_are_left_alone() -> None:
    people = [person(2, thing(BIG)), person(1), person(3, thing(BIG))]
    assert of_one_size(people) == (people, [])
