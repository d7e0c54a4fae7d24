"""Things of one mask come apart where clicks say so, and whatever clicks say the mask is kept whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ris_core.inference.instances import one_each, split, tell_apart
from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Prompt
from ris_core.masks import Mask


class Clicked:
    """Answers each click with what a function makes of its pixel."""

    def __init__(self, answer: Callable[[int, int], Mask]) -> None:
        self.answer, self.clicks = answer, 0

    def segment(self, image: object, prompts: Sequence[Prompt]) -> list[Prediction]:
        self.clicks += len(prompts)
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Prediction:
        [point] = prompt.points
        blank = self.answer(0, 0)
        mask = self.answer(int(point.y * blank.shape[0]), int(point.x * blank.shape[1]))
        return Prediction("", mask, True, 1.0, 0.8, 0.8)


def disc(x: int, y: int, radius: int = 20) -> Mask:
    return np.asarray(cv2.circle(np.zeros((120, 200), np.uint8), (x, y), radius, 1, -1) > 0)


def whichever(*things: Mask) -> Clicked:
    """Each click is answered by the thing that it is on."""
    nothing = np.zeros_like(things[0])
    return Clicked(lambda row, column: next((thing for thing in things if thing[row, column]), nothing))


def assert_same(found: Sequence[Mask], things: Sequence[Mask]) -> None:
    assert len(found) == len(things)
    for thing in things:
        assert max((thing & one).sum() / (thing | one).sum() for one in found) > 0.95


def test_things_that_touch_come_apart() -> None:
    left, right = disc(60, 60), disc(100, 60) & ~disc(60, 60)
    assert cv2.connectedComponents((left | right).astype(np.uint8))[0] == 2
    assert_same(split(whichever(left, right), None, left | right), [left, right])  # type: ignore[arg-type]


def test_things_that_lie_apart_stay_apart_where_clicks_say_nothing() -> None:
    left, right = disc(50, 60), disc(150, 60)
    nothing = Clicked(lambda row, column: np.zeros((120, 200), bool))
    assert_same(split(nothing, None, left | right), [left, right])  # type: ignore[arg-type]


def test_one_thing_behind_another_is_one() -> None:
    whole = disc(100, 60, 50)
    seen = whole.copy()
    seen[:, 90:110] = False
    assert len(split(whichever(whole), None, seen)) == 1  # type: ignore[arg-type]


def test_a_thing_stays_whole_where_clicks_give_now_one_part_and_now_another() -> None:
    whole, shirt = disc(100, 60, 50), disc(100, 80, 15)
    [thing] = split(whichever(shirt, whole), None, whole)  # type: ignore[arg-type]
    assert np.array_equal(thing, whole)


def test_specks_are_no_things() -> None:
    large, speck = disc(60, 60, 40), disc(180, 100, 2)
    [thing] = split(whichever(large, speck), None, large | speck)  # type: ignore[arg-type]
    assert np.array_equal(thing, large | speck)


SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
DRAWN = SHAPES.flatmap(
    lambda shape: st.tuples(arrays(bool, shape), st.lists(arrays(bool, shape), min_size=1, max_size=4))
)


@settings(max_examples=60, deadline=None)
@given(DRAWN)
def test_whatever_clicks_give_the_things_are_disjoint_and_make_up_the_mask(drawn: tuple[Mask, list[Mask]]) -> None:
    mask, answers = drawn
    numbers = iter(range(10_000))
    predictor = Clicked(lambda row, column: answers[next(numbers) % len(answers)])
    things = split(predictor, None, mask)  # type: ignore[arg-type]
    total = np.sum(things, axis=0) if things else np.zeros(mask.shape)
    assert np.array_equal(total, mask.astype(int))
    assert all(thing.any() for thing in things)
    assert [thing.sum() for thing in things] == sorted((thing.sum() for thing in things), reverse=True)


def test_clicks_are_few_however_large_the_mask() -> None:
    predictor = Clicked(lambda row, column: np.ones((120, 200), bool))
    split(predictor, None, np.ones((120, 200), bool))  # type: ignore[arg-type]
    assert predictor.clicks <= 33


@pytest.mark.parametrize("present", [True, False])
def test_an_answer_is_one_for_each_of_its_things(present: bool) -> None:
    left, right = disc(50, 60), disc(150, 60)
    answer = Prediction("the discs", left | right if present else np.zeros_like(left), present, 0.9, 0.8, 0.7)
    each = one_each(tell_apart(whichever(left, right), None, answer))  # type: ignore[arg-type]
    if not present:
        assert each == [answer]
        return
    assert_same([one.mask for one in each], [left, right])
    assert {(one.prompt, one.score, one.present) for one in each} == {("the discs", 0.7, True)}
