"""The figures, by hand, against scikit-learn's Jaccard score, and against a slow count of pixels."""

from __future__ import annotations

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from ris_core.evaluation.convention import ACCEPTED_TOLERANCE
from ris_core.evaluation.metrics import Score, interval, score, summarise

Case: TypeAlias = tuple[list[bool], list[bool] | None, bool, float]
"""The raw mask and the target row by row, whether the model refused, and the score that it gave itself."""


def square(side: int) -> np.ndarray:
    mask = np.zeros((10, 10), dtype=bool)
    mask[:side, :side] = True
    return mask


def test_iou_equals_an_independent_implementation() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        truth, given = random.random((2, 12, 9)) < random.random()
        expected = jaccard_score(truth.ravel(), given.ravel(), zero_division=0.0)
        assert score(given, truth, refused=False).iou == pytest.approx(expected)


def test_overall_and_mean_part_ways() -> None:
    scores = [score(square(10), square(10), False), score(square(2), square(4), False)]
    figures = summarise(scores)
    assert figures["oIoU"] == pytest.approx((100 + 4) / (100 + 16))
    assert figures["mIoU"] == pytest.approx((1 + 0.25) / 2)


def test_a_threshold_is_met_by_equality() -> None:
    figures = summarise([Score(5, 10, True, False), Score(7, 10, True, False), Score(9, 10, True, False)])
    precisions = [figures[f"Prec@{threshold}"] for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert precisions == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_a_refused_target_counts_as_zero() -> None:
    refused = score(square(5), square(5), refused=True)
    assert (refused.intersection, refused.union, refused.iou) == (0, 25, 0)
    figures = summarise([refused, score(square(5), square(5), False), score(square(0), None, True)])
    assert figures["mIoU"] == 0.5
    assert figures["oIoU"] == 0.5
    assert figures["T-acc"] == 0.5
    assert figures["N-acc"] == 1


def test_absent_things_stay_out_of_the_ious() -> None:
    figures = summarise([score(square(3), square(3), False), score(square(9), None, False)])
    assert (figures["expressions"], figures["mIoU"], figures["oIoU"], figures["N-acc"]) == (2, 1, 1, 0)


def test_without_absent_things_there_is_no_accuracy_of_absence() -> None:
    figures = summarise([score(square(3), square(3), False)])
    assert "N-acc" not in figures and "T-acc" not in figures
    assert summarise([]) == {"expressions": 0}


def test_correct_is_what_gref_coco_averages() -> None:
    assert score(square(0), None, refused=True).correct == 1
    assert score(square(3), None, refused=False).correct == 0
    assert score(square(2), square(4), refused=False).correct == 0.25


def test_agreement_with_what_a_person_only_accepted_counts_up_to_the_tolerance() -> None:
    same = replace(score(square(3), square(3), refused=False), accepted=True)
    assert (same.iou, same.correct) == (1, ACCEPTED_TOLERANCE)
    half = replace(score(square(2), square(4), refused=False), accepted=True)
    assert half.correct == half.iou == 0.25
    assert summarise([same, half])["mIoU"] == (ACCEPTED_TOLERANCE + 0.25) / 2
    assert interval([same], ["a"]) == (ACCEPTED_TOLERANCE, ACCEPTED_TOLERANCE)
    assert replace(score(square(0), None, refused=True), accepted=True).correct == 1


def test_nothing_found_of_nothing_drawn_is_no_hit() -> None:
    """A target without a pixel exists in real data; its IoU is 0, as in the field's code."""
    empty = score(square(0), square(0), refused=True)
    assert (empty.intersection, empty.union, empty.iou, empty.correct) == (0, 0, 0, 0)
    assert summarise([empty])["oIoU"] == 0


def test_a_refused_target_keeps_the_raw_masks_union() -> None:
    """The trap: were the mask emptied first, the union would be the target's 16 pixels alone."""
    mask, target = np.zeros((2, 10, 10), dtype=bool)
    mask[:5, :5], target[4:8, 4:8] = True, True
    refused = score(mask, target, refused=True)
    assert (refused.intersection, refused.union) == (0, 25 + 16 - 1)
    answered = score(mask, target, refused=False)
    assert (answered.intersection, answered.union) == (1, 25 + 16 - 1)


def test_a_refused_absent_thing_adds_nothing() -> None:
    """A model may paint pixels and still say that the thing isn't there."""
    refused, missed = score(square(7), None, refused=True), score(square(7), None, refused=False)
    assert (refused.intersection, refused.union) == (0, 0)
    assert (missed.intersection, missed.union) == (0, 49)


def test_gref_coco_by_hand() -> None:
    """IoU 1/4 (4 of 16 pixels), a target refused (0 of 9), one absent thing refused, one given 25 pixels."""
    scores = [
        score(square(2), square(4), False, expected=0.25),
        score(square(3), square(3), True, expected=0.55),
        score(square(6), None, True, expected=0.95),
        score(square(5), None, False, expected=0.95),
    ]
    figures = summarise(scores)
    assert figures["gIoU"] == pytest.approx((0.25 + 0 + 1 + 0) / 4)
    assert figures["cIoU"] == pytest.approx(4 / (16 + 9 + 0 + 25))
    assert figures["oIoU"] == pytest.approx(4 / (16 + 9))
    assert figures["mIoU"] == pytest.approx(0.125)
    assert (figures["N-acc"], figures["T-acc"]) == (0.5, 0.5)
    # Two of four share a bin and came to 0.5 in the mean.
    assert figures["ECE"] == pytest.approx((0 + 0.55 + 2 * 0.45) / 4)


def test_absent_things_alone() -> None:
    figures = summarise([score(square(2), None, True), score(square(3), None, False), score(square(0), None, True)])
    assert figures == {"expressions": 3, "gIoU": 2 / 3, "cIoU": 0, "N-acc": 2 / 3, "ECE": pytest.approx(1 / 3)}
    assert summarise([score(square(2), None, True)])["cIoU"] == 0


def slow(cases: list[Case]) -> dict[str, Fraction]:
    """Every figure once more, pixel by pixel in fractions, without a line of ours."""
    overlaps, unions, values, hits = [], [], [], []
    for mask, target, refused, _ in cases:
        truth = target or [False] * len(mask)
        overlap = sum(1 for one, other in zip(mask, truth, strict=True) if one and other)
        union = sum(1 for one, other in zip(mask, truth, strict=True) if one or other)
        if refused:
            overlap = 0
            if target is None:
                union = 0
        overlaps.append(overlap)
        unions.append(union)
        iou = Fraction(overlap, union) if union else Fraction(0)
        values.append(iou if target is not None else Fraction(int(refused)))
        hits.append(refused == (target is None))
    there = [number for number, case in enumerate(cases) if case[1] is not None]
    absent = [number for number, case in enumerate(cases) if case[1] is None]

    def average(numbers: list[int], of: list) -> Fraction:
        return sum((Fraction(of[number]) for number in numbers), Fraction(0)) / len(numbers)

    def overall(numbers: list[int]) -> Fraction:
        return Fraction(sum(overlaps[n] for n in numbers), sum(unions[n] for n in numbers) or 1)

    everything = list(range(len(cases)))
    figures = {"expressions": Fraction(len(cases)), "ECE": Fraction(0)}
    if there:
        figures |= {"oIoU": overall(there), "mIoU": average(there, values)}
        for tenths in range(5, 10):
            figures[f"Prec@0.{tenths}"] = average(there, [value >= Fraction(tenths, 10) for value in values])
    if absent:
        figures |= {"gIoU": average(everything, values), "cIoU": overall(everything), "N-acc": average(absent, hits)}
        if there:
            figures["T-acc"] = average(there, hits)
    for lowest in range(10):
        inside = [number for number in everything if min(9, 10 * Fraction(cases[number][3]) // 1) == lowest]
        if inside:
            gap = abs(average(inside, [case[3] for case in cases]) - average(inside, values))
            figures["ECE"] += gap * len(inside) / len(cases)
    return figures


def pixels(count: int = 12) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=count, max_size=count)


# Scores that are exact in binary: on which side of a bin's edge they lie is beyond doubt.
cases = st.tuples(pixels(), st.none() | pixels(), st.booleans(), st.integers(0, 64).map(lambda number: number / 64))


def judge(case: Case) -> Score:
    mask, target, refused, expected = case
    shaped = [None if drawn is None else np.array(drawn).reshape(3, 4) for drawn in (mask, target)]
    return score(*shaped, refused, expected)


@settings(deadline=None, max_examples=200)
@given(st.lists(cases, min_size=1, max_size=8))
def test_every_figure_equals_a_slow_count(given: list[Case]) -> None:
    figures = summarise([judge(case) for case in given])
    expected = slow(given)
    assert figures.keys() == expected.keys()
    assert figures == pytest.approx({name: float(value) for name, value in expected.items()})


def test_several_processes_find_what_one_does() -> None:
    """Parts scored in real processes, joined in another order: the same figures to the last digit."""
    draw = np.random.default_rng(0)
    arguments = [
        (draw.random((30, 40)) < draw.random(), target if draw.random() < 0.7 else None, bool(draw.random() < 0.3))
        for target in draw.random((300, 30, 40)) < 0.4
    ]
    expected = [float(value) for value in draw.random(len(arguments))]
    columns = [*zip(*arguments, strict=True), expected]
    alone = [score(*case) for case in zip(*columns, strict=True)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        joined = list(pool.map(score, *columns, chunksize=75))
    assert joined == alone
    random.Random(1).shuffle(joined)
    assert summarise(joined) == summarise(alone)


def scores_of(*ious: tuple[int, int]) -> list[Score]:
    return [Score(intersection, union, True, False) for intersection, union in ious]


def test_the_interval_is_of_photos() -> None:
    """Photos whose expressions fare alike: by expression the interval would be a fourth as wide."""
    ious = [(photo % 11, 10) for photo in range(110) for _ in range(16)]
    photos = [number // 16 for number in range(len(ious))]
    low, high = interval(scores_of(*ious), photos)
    # Mean 0.5, standard deviation of a photo sqrt(0.1), of the mean of 110 of them 0.0302.
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.0302, 0.5 + 1.96 * 0.0302), abs=0.008)
    alone, together = interval(scores_of(*ious), list(range(len(ious)))), high - low
    assert alone[1] - alone[0] == pytest.approx(together / 4, rel=0.1)


def test_the_interval_is_the_same_in_any_order() -> None:
    draw = random.Random(0)
    pairs = [
        (Score(draw.randrange(50), 50, draw.random() < 0.8, False), f"{draw.randrange(12)}.jpg") for _ in range(90)
    ]
    before = interval(*zip(*pairs, strict=True))
    draw.shuffle(pairs)
    assert interval(*zip(*pairs, strict=True)) == before
    assert interval(*zip(*pairs, strict=True), seed=1) != before
    mean = summarise([entry for entry, _ in pairs])["mIoU"]
    assert before[0] < mean < before[1]


def test_the_interval_of_little() -> None:
    assert interval(scores_of((1, 4), (3, 4)), ["a", "a"]) == (0.5, 0.5)
    assert interval([score(square(0), None, True)], ["a"]) == (0, 0)
    assert interval([], []) == (0, 0)
