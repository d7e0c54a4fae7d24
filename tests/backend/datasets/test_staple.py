"""STAPLE against ITK's, by iteration and at its end, and on masks whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from backend.datasets.staple import Truth, staple

Masks = NDArray[np.bool_]


def itk(masks: Masks, iterations: int) -> tuple[Truth, int]:
    """Its answer, and after how many iterations: it stops a little earlier than ours."""
    reference = sitk.STAPLEImageFilter()
    reference.SetForegroundValue(1)
    reference.SetMaximumIterations(iterations)
    answer = reference.Execute([sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks])
    return (
        Truth(
            probability=sitk.GetArrayFromImage(answer),
            sensitivity=np.array(reference.GetSensitivity()),
            specificity=np.array(reference.GetSpecificity()),
        ),
        # The one after which nothing moves isn't counted.
        min(reference.GetElapsedIterations() + 1, iterations),
    )


def difference(first: Truth, second: Truth) -> float:
    return max(
        float(np.abs(getattr(first, name) - getattr(second, name)).max())
        for name in ("probability", "sensitivity", "specificity")
    )


def disks(*of: tuple[float, float, float]) -> Masks:
    """60x70 each; of: radius, row and column of the middle."""
    rows, columns = np.mgrid[:60, :70]
    return np.stack([(rows - row) ** 2 + (columns - column) ** 2 <= radius**2 for radius, row, column in of])


def imperfect(seed: int, truth: NDArray[np.bool_], rates: list[tuple[float, float]]) -> Masks:
    """What people of a sensitivity and specificity draw of the truth, pixel by pixel."""
    noise = np.random.default_rng(seed).random((len(rates), *truth.shape))
    return np.stack(
        [
            np.where(truth, roll < sensitivity, roll > specificity)
            for roll, (sensitivity, specificity) in zip(noise, rates, strict=True)
        ]
    )


@st.composite
def sets_of_masks(draw: Any) -> Masks:
    """One to five people's masks, somewhere drawn and somewhere free, more or less alike."""
    base = draw(arrays(np.bool_, (7, 9)))
    flips = draw(
        st.lists(arrays(np.bool_, (7, 9), elements=st.sampled_from([True, *[False] * 5])), min_size=1, max_size=5)
    )
    masks = np.stack([base ^ flip for flip in flips])
    masks[:, 0, 0], masks[:, -1, -1] = True, False
    return masks


@settings(deadline=None)
@given(sets_of_masks(), st.integers(1, 12))
def test_every_iteration_is_itks(masks: Masks, iterations: int) -> None:
    theirs, done = itk(masks, iterations)
    assert difference(staple(masks, iterations=done), theirs) < 1e-8


@settings(deadline=None)
@given(sets_of_masks(), st.integers(0, 40), st.integers(1, 12))
def test_background_is_pixels_that_nobody_drew(masks: Masks, rows: int, iterations: int) -> None:
    padded = np.pad(masks, ((0, 0), (0, rows), (0, 0)))
    theirs, done = itk(padded, iterations)
    ours = staple(masks, background=rows * masks.shape[2], iterations=done)
    cut = Truth(theirs.probability[: masks.shape[1]], theirs.sensitivity, theirs.specificity)
    assert difference(ours, cut) < 1e-8


@pytest.mark.parametrize(
    "masks",
    [
        disks((15, 30, 30), (17, 30, 30), (19, 30, 30)),
        disks((15, 30, 30), (15, 30, 33), (15, 28, 33)),
        disks((15, 30, 30), (15, 30, 31), (21, 34, 34)),
        disks((13, 30, 30), (15, 30, 30), (17, 30, 30), (19, 30, 31), (14, 29, 30)),
        disks((2, 5, 5), (3, 5, 6), (2, 5, 6)),
    ],
    ids=["one in another", "shifted", "one wild", "five", "small"],
)
def test_it_ends_where_itk_ends(masks: Masks) -> None:
    ours, (theirs, _) = staple(masks), itk(masks, 10_000)
    assert difference(ours, theirs) < 1e-3
    assert np.array_equal(ours.probability > 0.5, theirs.probability > 0.5)


def test_it_finds_how_good_people_are_and_believes_the_good_ones() -> None:
    truth = disks((15, 30, 35))[0]
    rates = [(0.98, 0.99), (0.95, 0.97), (0.7, 0.8), (0.7, 0.8), (0.6, 0.85), (0.6, 0.8)]
    masks = imperfect(0, truth, rates)
    estimate = staple(masks)
    # Some 700 pixels of the thing: a standard error of 0.02.
    assert np.allclose(estimate.sensitivity, [rate[0] for rate in rates], atol=0.05)
    assert np.allclose(estimate.specificity, [rate[1] for rate in rates], atol=0.03)
    # Where most are bad, the vote is too.
    wrong = np.count_nonzero((estimate.probability > 0.5) != truth)
    assert wrong < 0.4 * np.count_nonzero((2 * masks.sum(axis=0) > len(masks)) != truth)


def test_one_person_is_believed_and_so_are_all_who_agree() -> None:
    mask = disks((9, 20, 20))
    for count in (1, 2, 7):
        estimate = staple(np.repeat(mask, count, axis=0))
        assert np.array_equal(estimate.probability, mask[0].astype(float))
        assert (estimate.sensitivity == 1).all()
        assert (estimate.specificity == 1).all()


@pytest.mark.parametrize("value", [True, False])
def test_where_there_is_only_the_thing_or_nothing_of_it_nobody_is_found_wanting(value: bool) -> None:
    estimate = staple(np.full((3, 4, 5), value))
    assert (estimate.probability == value).all()
    assert (estimate.sensitivity == 1).all()
    assert (estimate.specificity == 1).all()


def test_many_people_are_no_more_patterns_than_there_are_pixels() -> None:
    truth = disks((15, 30, 35))[0]
    masks = imperfect(1, truth, [(0.9, 0.9)] * 70)
    assert np.array_equal(staple(masks).probability > 0.5, truth)


def test_two_people_of_whom_one_drew_less_leave_it_undecided() -> None:
    masks = disks((15, 30, 30), (12, 30, 30))
    assert np.allclose(staple(masks, background=999).probability[masks[0] & ~masks[1]], 0.5, rtol=0, atol=1e-9)
