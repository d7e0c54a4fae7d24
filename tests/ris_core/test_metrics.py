"""The figures, by hand and against scikit-learn's Jaccard score."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from ris_core.metrics import Score, score, summarise


def square(side: int) -> np.ndarray:
    mask = np.zeros((10, 10), dtype=bool)
    mask[:side, :side] = True
    return mask


def test_iou_equals_an_independent_implementation() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        truth, given = random.random((2, 12, 9)) < random.random()
        expected = jaccard_score(truth.ravel(), given.ravel(), zero_division=1.0)
        assert score(given, truth, refused=False).iou == pytest.approx(expected)


def test_overall_and_mean_part_ways() -> None:
    scores = [score(square(10), square(10), False), score(square(2), square(4), False)]
    figures = summarise(scores)
    assert figures["oIoU"] == pytest.approx((100 + 4) / (100 + 16))
    assert figures["mIoU"] == pytest.approx((1 + 0.25) / 2)


def test_a_threshold_is_met_by_equality() -> None:
    figures = summarise([Score(5, 10, True, False), Score(7, 10, True, False), Score(9, 10, True, False)])
    found = [figures[f"Prec@{threshold}"] for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert found == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3])


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
