"""How far people agree: against scikit-learn's kappa and figures taken from whole masks, by hand, in any order."""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from annotators import Mask, box, person, thing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score

from backend.datasets.agreement import BINS, Agreement, kappa
from backend.datasets.annotations import Correction
from ris_core.masks import iou

WHOLE = box(0, 0, 10, 10)


def agreement(*tasks: list[Correction], worst: int = 50) -> dict[str, Any]:
    gathered = Agreement(worst)
    for corrections in tasks:
        gathered.add(corrections)
    figures = gathered.as_json()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    return figures


def means(figures: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(figures[name] for name in ("objects", "matched", "iou", "dice"))


def test_two_people_by_hand() -> None:
    first = person(1, thing(WHOLE), thing(box(12, 0, 15, 5), "dog"))
    second = person(2, thing(box(0, 0, 10, 8)))
    figures = agreement([first, second])
    dice = 2 * 80 / 180
    assert means(figures) == (
        3,
        pytest.approx(2 / 3, abs=1e-6),
        pytest.approx(1.6 / 3, abs=1e-6),
        pytest.approx(2 * dice / 3, abs=1e-6),
    )
    assert means(figures["by_label"]["cat"]) == (2, 1.0, 0.8, pytest.approx(dice, abs=1e-6))
    assert means(figures["by_label"]["dog"]) == (1, 0.0, 0.0, 0.0)
    assert figures["by_label"]["dog"]["kappa"] == 0.0
    assert (figures["tasks"], figures["alone"], figures["left_out"]) == (1, 0, 0)
    (pair,) = figures["by_pair"]
    assert (pair["annotators"], pair["tasks"], means(pair)) == ([101, 102], 1, means(figures))
    assert pair["by_label"] == figures["by_label"]
    assert figures["worst"] == [
        {"task": 7, "annotations": [1, 2], **{name: figures[name] for name in ("objects", "matched", "iou", "dice")}}
    ]
    assert figures["histogram"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_of_three_people_every_pair_is_compared() -> None:
    figures = agreement([person(1, thing(WHOLE)), person(2, thing(WHOLE)), person(3)])
    assert means(figures) == (4, 0.5, 0.5, 0.5)
    assert [(pair["annotators"], pair["iou"]) for pair in figures["by_pair"]] == [
        ([101, 102], 1.0),
        ([101, 103], 0.0),
        ([102, 103], 0.0),
    ]
    assert figures["by_label"]["cat"]["kappa"] == pytest.approx(1 / 3, abs=1e-6)


def test_another_label_is_no_agreement() -> None:
    figures = agreement([person(1, thing(WHOLE)), person(2, thing(WHOLE, "dog"))])
    assert means(figures) == (2, 0.0, 0.0, 0.0)
    assert set(figures["by_label"]) == {"cat", "dog"}


def test_holes_and_parts_count() -> None:
    ring = WHOLE & ~box(3, 3, 7, 7)
    parts = box(12, 0, 14, 6) | box(16, 0, 18, 6)
    figures = agreement([person(1, thing(ring), thing(parts, "dog")), person(2, thing(WHOLE), thing(parts, "dog"))])
    assert figures["by_label"]["cat"]["iou"] == 0.84
    assert means(figures["by_label"]["dog"]) == (2, 1.0, 1.0, 1.0)


def test_nothing_to_compare() -> None:
    nothing = (0, None, None, None)
    assert means(agreement()) == nothing
    alone = agreement([person(1, thing(WHOLE))], [])
    assert (means(alone), alone["tasks"], alone["alone"], alone["by_pair"]) == (nothing, 0, 1, [])
    blank = agreement([person(1), person(2)])
    assert (means(blank), blank["tasks"], blank["worst"], sum(blank["histogram"])) == (nothing, 1, [], 0)
    assert [(pair["tasks"], pair["iou"], pair["by_label"]) for pair in blank["by_pair"]] == [(1, None, {})]


def test_masks_of_another_picture_are_not_compared() -> None:
    other = thing(np.ones((5, 6), np.bool_))
    figures = agreement(
        [person(1, other), person(2, thing(WHOLE)), person(3, thing(WHOLE))],
        [person(1, other), person(2, thing(WHOLE))],
    )
    assert (figures["left_out"], figures["tasks"], figures["alone"], figures["iou"]) == (2, 1, 1, 1.0)
    assert [pair["annotators"] for pair in figures["by_pair"]] == [[102, 103]]


def test_people_who_are_not_known_are_a_pair_too() -> None:
    figures = agreement(
        [person(3, thing(WHOLE), completed_by=None), person(2, thing(WHOLE)), person(1, completed_by=None)]
    )
    assert [pair["annotators"] for pair in figures["by_pair"]] == [[None, None], [None, 102]]
    assert figures["by_pair"][1]["tasks"] == 2


def shifted(task: int, columns: int) -> list[Correction]:
    return [person(1, thing(WHOLE), task=task), person(2, thing(box(0, columns, 10, columns + 10)), task=task)]


def test_the_worst_tasks_are_kept_and_all_are_in_the_histogram() -> None:
    tasks = [shifted(task, task % 4) for task in range(1, 41)]
    figures = agreement(*tasks, worst=7)
    assert [entry["task"] for entry in figures["worst"]] == [3, 7, 11, 15, 19, 23, 27]
    assert {entry["iou"] for entry in figures["worst"]} == {round(7 / 13, 6)}
    # IoUs of 1, 9/11, 8/12 and 7/13.
    assert figures["histogram"] == [0, 0, 0, 0, 0, 10, 10, 0, 10, 10]
    assert len(agreement(*tasks)["worst"]) == 30
    assert agreement(*tasks[::-1], worst=7) == figures


def test_memory_does_not_grow_with_the_tasks() -> None:
    def size(thing: Any) -> int:
        inside = thing.items() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
        fields = size(vars(thing)) if hasattr(thing, "__dict__") else 0
        return sys.getsizeof(thing) + fields + sum(map(size, inside))

    gathered = Agreement(worst=10)
    sizes = []
    for task in range(1, 401):
        gathered.add(shifted(task, task % 3 + 1))
        sizes.append(size(gathered))
    assert sizes[-1] < 1.05 * sizes[30]


@pytest.mark.parametrize("pixels", [(0, 0, 0, 0), (9, 0, 0, 0), (0, 0, 0, 9)])
def test_where_both_chose_all_or_nothing_there_is_no_kappa(pixels: tuple[int, int, int, int]) -> None:
    assert kappa(pixels) is None


@settings(deadline=None, max_examples=50)
@given(arrays(np.int64, 4, elements=st.integers(0, 30)).filter(np.any))
def test_kappa_is_sklearns(counts: np.ndarray) -> None:
    first, second = (np.repeat(choices, counts) for choices in ([1, 1, 0, 0], [1, 0, 1, 0]))
    both, one, other, neither = counts.tolist()
    ours = kappa((both, one, other, neither))
    if ours is None:
        assert len({*first, *second}) == 1
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert ours == kappa((both, other, one, neither))


@st.composite
def tasks(draw: Any) -> list[list[Correction]]:
    """Some tasks, each of its own size, with up to four of five people, whose objects of one label don't overlap."""
    gathered = []
    for task in range(1, draw(st.integers(1, 4)) + 1):
        height, width = draw(st.tuples(st.integers(4, 7), st.integers(4, 7)))
        base = draw(arrays(np.uint8, (height, width), elements=st.integers(0, 2)))
        people = []
        for number in draw(st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True)):
            noise = draw(
                arrays(np.int8, (height, width), elements=st.sampled_from([-1] * 7 + [0, 1, 2]), fill=st.just(-1))
            )
            layers = np.where(noise < 0, base, noise)
            labels = draw(st.tuples(st.sampled_from(["cat", "dog"]), st.sampled_from(["cat", "dog"])))
            objects = [
                thing(layers == layer, label) for layer, label in enumerate(labels, 1) if (layers == layer).any()
            ]
            people.append(person(10 * task - number, *objects, task=task, completed_by=number))
        gathered.append(people)
    return gathered


def expected(of_tasks: list[list[Correction]]) -> dict[tuple[int, int, str], dict[str, Any]]:
    """By pair and label, from whole masks: each object's IoU and Dice with its only match, and both people's pixels."""
    figures_of: dict[tuple[int, int, str], dict[str, Any]] = defaultdict(
        lambda: {"iou": [], "dice": [], "pixels": ([], [])}
    )
    for people in of_tasks:
        for one, other in combinations(sorted(people, key=lambda person: person.completed_by or 0), 2):
            assert one.completed_by
            assert other.completed_by
            for label in {drawn.label for drawn in (*one.objects, *other.objects)}:
                entry = figures_of[one.completed_by, other.completed_by, label]
                masks: list[list[Mask]] = [
                    [drawn.mask() for drawn in one_of_them.objects if drawn.label == label]
                    for one_of_them in (one, other)
                ]
                for own, theirs in (masks, masks[::-1]):
                    for mask in own:
                        # Objects of a person don't overlap, so one at most is that near.
                        near = [their for their in theirs if iou(mask, their) > 0.5]
                        entry["iou"].append(iou(mask, near[0]) if near else 0.0)
                        entry["dice"].append(2 * (mask & near[0]).sum() / (mask.sum() + near[0].sum()) if near else 0.0)
                size = (one.objects or other.objects)[0].mask().shape
                for pixels, own in zip(entry["pixels"], masks, strict=True):
                    pixels.append(np.any([np.zeros(size, np.bool_), *own], axis=0).ravel())
    return figures_of


def sklearn_kappa(pixels: tuple[list[Mask], list[Mask]]) -> float | None:
    first, second = map(np.concatenate, pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(cohen_kappa_score(first, second))
    return None if np.isnan(value) else value


@settings(deadline=None, max_examples=60)
@given(tasks())
def test_all_figures_are_those_of_whole_masks(of_tasks: list[list[Correction]]) -> None:
    figures, figures_of = agreement(*of_tasks), expected(of_tasks)
    kappas: dict[str, list[float]] = defaultdict(list)
    labels: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"iou": [], "dice": []})
    by_pair = {tuple(pair["annotators"]): pair for pair in figures["by_pair"]}
    for (one, other, label), entry in figures_of.items():
        of_label = by_pair[one, other]["by_label"][label]
        assert of_label["objects"] == len(entry["iou"])
        assert of_label["matched"] == pytest.approx(np.mean([value > 0 for value in entry["iou"]]), abs=1e-6)
        value = sklearn_kappa(entry["pixels"])
        assert of_label["kappa"] == (None if value is None else pytest.approx(value, abs=1e-6))
        kappas[label] += [] if value is None else [value]
        for name in ("iou", "dice"):
            assert of_label[name] == pytest.approx(np.mean(entry[name]), abs=1e-6)
            labels[label][name] += entry[name]
    assert set(figures["by_label"]) == set(labels)
    for label, lists in labels.items():
        of_label = figures["by_label"][label]
        assert of_label["iou"] == pytest.approx(np.mean(lists["iou"]), abs=1e-6)
        assert of_label["kappa"] == (pytest.approx(np.mean(kappas[label]), abs=1e-6) if kappas[label] else None)
    everything = [value for lists in labels.values() for value in lists["dice"]]
    assert figures["dice"] == (pytest.approx(np.mean(everything), abs=1e-6) if everything else None)
    assert figures["tasks"] + figures["alone"] == len(of_tasks)


@settings(deadline=None, max_examples=60)
@given(tasks(), st.randoms(use_true_random=False))
def test_neither_the_order_of_tasks_nor_of_people_matters(of_tasks: list[list[Correction]], chance: Any) -> None:
    shuffled = [chance.sample(people, len(people)) for people in chance.sample(of_tasks, len(of_tasks))]
    assert agreement(*shuffled) == agreement(*of_tasks)


@settings(deadline=None, max_examples=60)
@given(tasks())
def test_the_worst_and_the_histogram_are_of_the_tasks_one_by_one(of_tasks: list[list[Correction]]) -> None:
    alone = {people[0].task: agreement(people) for people in of_tasks}
    known = {task: figures["iou"] for task, figures in alone.items() if figures["iou"] is not None}
    figures = agreement(*of_tasks)
    assert sum(figures["histogram"]) == len(known)
    assert figures["histogram"] == [sum(alone[task]["histogram"][number] for task in known) for number in range(BINS)]
    worst = sorted((value, task) for task, value in known.items() if value < 1)
    assert [(entry["iou"], entry["task"]) for entry in figures["worst"]] == worst
