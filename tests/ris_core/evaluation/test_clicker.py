"""The simulated annotator clicks inside what is wrong, as far from its edge as can be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ris_core.evaluation.clicker import Click, next_click, random_click
from ris_core.masks import Mask

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=20)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def blank() -> Mask:
    return np.zeros((30, 40), dtype=bool)


def test_first_in_the_middle_of_the_thing() -> None:
    truth = blank()
    truth[10:21, 10:31] = True
    click = next_click(blank(), truth)
    assert click is not None and click.positive
    assert click.row == 15 and 15 <= click.column <= 25


def test_the_larger_mistake_comes_first() -> None:
    truth, answer = blank(), blank()
    truth[2:6, 2:6] = True
    answer[15:25, 15:25] = True
    click = next_click(answer, truth)
    assert click is not None and not click.positive
    assert answer[click.row, click.column]


def test_no_click_where_there_is_no_photo() -> None:
    truth, valid = blank(), np.ones((30, 40), dtype=bool)
    truth[:, 20:] = True
    valid[:, 20:] = False
    assert next_click(blank(), truth, valid) is None


def test_nothing_to_mend() -> None:
    truth = blank()
    truth[3:9, 3:9] = True
    assert next_click(truth, truth) is None


@given(PAIRS)
def test_a_click_is_where_the_answer_is_wrong(pair: tuple[Mask, Mask]) -> None:
    answer, truth = pair
    click = next_click(answer, truth)
    assert (click is None) == np.array_equal(answer, truth)
    if click is not None:
        assert truth[click.row, click.column] == click.positive != answer[click.row, click.column]


@given(SHAPES.flatmap(lambda shape: arrays(bool, shape)), st.integers(0, 5))
def test_a_random_click_is_on_the_thing(truth: Mask, seed: int) -> None:
    click = random_click(truth, np.random.default_rng(seed))
    assert (click is None) == (not truth.any())
    assert click is None or click == Click(click.column, click.row, positive=bool(truth[click.row, click.column]))
