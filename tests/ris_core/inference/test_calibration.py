"""How far scores can be believed, by hand and on synthetic answers whose truth is known."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ris_core.inference.calibration import (
    Bin,
    belief,
    calibration_error,
    corrected,
    fit_correction,
    fit_doubt,
    misfit,
    reliability,
)

shares = st.floats(0, 1)


def error(scores: list[float], realised: list[float]) -> float:
    return calibration_error(reliability(scores, realised))


def test_bins_hold_answers_of_like_scores() -> None:
    bins = reliability([0.75, 0.3125, 0.375, 0.0, 1.0, 0.9375], [0.25, 0.5, 1.0, 0.0, 0.5, 0.75])
    assert bins == [Bin(0.0, 0.0, 1), Bin(0.34375, 0.75, 2), Bin(0.75, 0.25, 1), Bin(0.96875, 0.625, 2)]
    assert reliability([0.125, 0.625], [1, 0], bins=1) == [Bin(0.375, 0.5, 2)]
    assert reliability([], []) == []


def test_the_error_by_hand() -> None:
    # Three answers that are 0.25 too modest, one that is 0.5 too bold.
    assert error([0.25, 0.25, 0.25, 0.75], [0.5, 0.5, 0.5, 0.25]) == pytest.approx((3 * 0.25 + 0.5) / 4)
    assert error([0.8] * 10, [1] * 5 + [0] * 5) == pytest.approx(0.3)
    # Too bold and too modest make up for each other within a bin: that is what "on average" means.
    assert error([0.5, 0.5], [0.0, 1.0]) == 0
    assert calibration_error([]) == 0


def test_one_outcome_a_score_is_asked_for() -> None:
    with pytest.raises(ValueError, match="shorter"):
        reliability([0.5, 0.6], [1.0])


def synthetic(scale: float, shift: float, count: int = 20_000, seed: int = 0) -> tuple[list[float], list[float]]:
    """Scores, and what they came to if the truth is `corrected(score, scale, shift)`: hit or miss by chance."""
    draw = random.Random(seed)
    scores = [draw.random() for _ in range(count)]
    return scores, [float(draw.random() < corrected(score, scale, shift)) for score in scores]


def test_scores_that_come_true_have_no_error() -> None:
    scores = [number / 64 for number in range(65)]
    assert error(scores, scores) == 0
    assert error(*synthetic(1, 0)) < 0.012


def test_skewed_scores_have_the_error_that_was_built_in() -> None:
    scores = [(number + 0.5) / 1000 for number in range(1000)]
    # The mean of s - s^2 over [0, 1] is 1/6, and within no bin does it change its sign.
    assert error(scores, [score**2 for score in scores]) == pytest.approx(1 / 6, abs=1e-4)


@given(st.lists(st.tuples(shares, shares), min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_answers_makes_no_difference(pairs: list[tuple[float, float]], draw: random.Random) -> None:
    before = reliability(*zip(*pairs, strict=True))
    draw.shuffle(pairs)
    assert reliability(*zip(*pairs, strict=True)) == before
    assert sum(group.answers for group in before) == len(pairs)
    assert 0 <= calibration_error(before) <= 1


@given(shares, shares, st.floats(0.01, 20), st.floats(-8, 8))
def test_a_correction_keeps_the_order_and_the_ends(one: float, other: float, scale: float, shift: float) -> None:
    low, high = sorted((one, other))
    # A last digit may go either way.
    assert 0 <= corrected(low, scale, shift) <= corrected(high, scale, shift) + 1e-12 <= 1 + 1e-12
    assert (corrected(0, scale, shift), corrected(1, scale, shift)) == (0, 1)
    assert corrected(one, 1, 0) == pytest.approx(one)


@given(st.floats(0.001, 0.999), st.floats(0.1, 5), st.floats(-4, 4))
def test_a_correction_is_a_line_through_the_logit(score: float, scale: float, shift: float) -> None:
    line = scale * math.log(score / (1 - score)) + shift
    assert corrected(score, scale, shift) == pytest.approx(1 / (1 + math.exp(-line)))


def test_no_number_stays_none() -> None:
    assert math.isnan(corrected(math.nan, 2, 1))


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.4, -1.2), (2.5, 0.7)])
def test_the_fit_finds_what_was_built_in(scale: float, shift: float) -> None:
    scores = [(number + 0.5) / 2000 for number in range(2000)]
    fitted = fit_correction(scores, [corrected(score, scale, shift) for score in scores])
    assert fitted == pytest.approx((scale, shift), abs=0.02)


def test_the_fit_mends_answers_it_has_not_seen() -> None:
    """Scores that are far too bold: fitted on one half, judged on the other."""
    line = fit_correction(*synthetic(0.5, -1, 1000))
    scores, realised = synthetic(0.5, -1, 5000, seed=1)
    assert error(scores, realised) > 0.15
    mended = [corrected(score, *line) for score in scores]
    assert error(mended, realised) < 0.03
    assert np.array_equal(np.argsort(mended), np.argsort(scores))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=30))
def test_the_fit_grows_with_the_score_whatever_it_is_given(pairs: list[tuple[float, float]]) -> None:
    scale, shift = fit_correction(*zip(*pairs, strict=True))
    assert 0 < scale < math.inf
    assert math.isfinite(shift)


def test_scores_that_mean_the_opposite_still_keep_their_order() -> None:
    scores = [number / 100 for number in range(101)]
    scale, shift = fit_correction(scores, [1 - score for score in scores])
    assert 0 < scale < 0.2
    assert corrected(0.9, scale, shift) == pytest.approx(0.5, abs=0.15)


def test_a_refusal_of_what_was_never_taught_is_believed_less() -> None:
    assert belief(0, 3) == belief(0.4, 0) == 1
    assert belief(0.2, 3) > belief(0.4, 3) == pytest.approx(math.exp(-1.2))


def test_the_doubt_that_was_built_in_is_found() -> None:
    scores = [0.3 + 0.6 * (number % 10) / 10 for number in range(400)]
    distances = [(number % 5) / 8 for number in range(400)]
    realised = [corrected(score, 0.8, 0.5) * belief(far, 3) for score, far in zip(scores, distances, strict=True)]
    assert fit_doubt(scores, realised, distances) == 3
    scale, shift = fit_correction(scores, realised, [belief(far, 3) for far in distances])
    assert (scale, shift) == pytest.approx((0.8, 0.5), abs=0.1)
    assert fit_doubt(scores, scores, [0.0] * 400) == 0


def test_misfit_is_least_for_scores_that_come_true() -> None:
    assert misfit([0.5, 0.5], [0, 1]) == pytest.approx(2 * math.log(2))
    assert misfit([0.1, 0.9], [0.1, 0.9]) < misfit([0.2, 0.9], [0.1, 0.9])
    assert math.isfinite(misfit([0.0, 1.0], [1.0, 0.0]))


def test_nothing_and_little_change_nothing_and_little() -> None:
    assert fit_correction([], []) == (1, 0)
    # One wrong refusal, of which the model was nearly sure.
    assert corrected(0.9, *fit_correction([0.9], [0.0])) > 0.5
