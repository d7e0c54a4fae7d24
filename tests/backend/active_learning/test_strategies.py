"""What to label next, from numbers alone: each strategy does what its name says, whatever the pairs' order."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.active_learning.strategies import CENTRES, STRATEGIES, Pair, rank
from backend.errors import BadRequest

NUMBER = st.floats(0, 1) | st.just(float("nan"))
VECTOR = st.lists(st.floats(-2, 2, width=32) | st.just(float("nan")), min_size=3, max_size=3)


@st.composite
def some_pairs(draw: st.DrawFn) -> list[Pair]:
    keys = draw(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc")), unique=True, max_size=12))
    return [Pair(*key, draw(NUMBER), draw(NUMBER), np.array(draw(VECTOR), dtype=np.float32)) for key in keys]


def pair(task: int, prompt: str = "cat", confidence: float = 0.5, disagreement: float = 0.0, at: float = 0.0) -> Pair:
    """A pair whose embedding points at an angle, in degrees."""
    angle = np.radians(at)
    return Pair(task, prompt, confidence, disagreement, np.array([np.cos(angle), np.sin(angle)], dtype=np.float32))


def order(pairs: list[Pair], strategy: str, corrections: dict[str, int] | None = None, **more: object) -> list[int]:
    """The tasks, the first to label first."""
    priorities = rank(pairs, strategy, corrections or {}, 0, **more)  # type: ignore[arg-type]
    return [pairs[number].task for number in np.argsort(-priorities, kind="stable")]


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(pairs=some_pairs(), seed=st.integers(0, 9), shuffled=st.randoms(use_true_random=False))
def test_priorities_are_numbers_from_0_to_1_whatever_the_order(strategy, pairs, seed, shuffled):
    corrections = {"a": 3, "b": 1}
    priorities = rank(pairs, strategy, corrections, seed)
    assert priorities.shape == (len(pairs),)
    assert np.all((priorities >= 0) & (priorities <= 1))
    turned = shuffled.sample(range(len(pairs)), len(pairs))
    again = rank([pairs[number] for number in turned], strategy, corrections, seed)
    assert np.array_equal(again, priorities[turned])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_list_has_no_priorities(strategy):
    assert rank([], strategy, {}, 0).shape == (0,)


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(BadRequest, match=r"'entropy'.*uncertainty, .*mixed"):
        rank([], "entropy", {}, 0)


def test_uncertainty_is_what_lacks_to_confidence():
    assert rank([pair(1, confidence=0.75), pair(2, confidence=0.25)], "uncertainty", {}, 0).tolist() == [0.25, 0.75]


def test_disagreement_goes_by_the_given_number():
    assert order([pair(1, disagreement=0.1), pair(2, disagreement=0.6), pair(3)], "disagreement") == [2, 1, 3]


@pytest.mark.parametrize("strategy", ["diversity", "mixed"])
def test_twins_are_kept_apart(strategy):
    pairs = [pair(1, at=0), pair(2, at=0), pair(3, at=60), pair(4, at=60), pair(5, at=120), pair(6, at=120)]
    first = order(pairs, strategy)[:3]
    assert {(task + 1) // 2 for task in first} == {1, 2, 3}


@pytest.mark.parametrize("strategy", ["diversity", "mixed"])
def test_what_is_labelled_counts_as_chosen(strategy):
    pairs = [pair(1, at=0), pair(2, at=45), pair(3, at=90)]
    labelled = np.array([[2, 0], [1, 1]], dtype=np.float32)
    assert order(pairs, strategy, labelled=labelled)[0] == 3


@pytest.mark.parametrize("strategy", ["diversity", "mixed"])
def test_the_first_of_all_is_a_typical_one(strategy):
    pairs = [pair(1, at=150), pair(2, at=0), pair(3, at=10), pair(4, at=-10)]
    assert order(pairs, strategy)[0] in (2, 3)


def test_diversity_is_spread_no_less_than_half_as_well_as_could_be():
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(60, 3)).astype("f4")
    pairs = [Pair(task, "cat", 0.5, 0, embedding) for task, embedding in enumerate(embeddings)]
    vectors = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    chosen = vectors[order(pairs, "diversity")[:6]]
    farthest = _radius(vectors, chosen)
    # Gonzalez' bound, held against the best of many random choices.
    others = (vectors[generator.choice(60, 6, replace=False)] for _ in range(300))
    assert farthest <= 2 * min(_radius(vectors, other) for other in others)


def _radius(vectors, centres):
    return np.linalg.norm(vectors[:, None] - centres[None], axis=2).min(axis=1).max()


def test_coverage_takes_prompts_in_turns_and_the_least_sure_of_each_first():
    pairs = [pair(1, "cat", 0.2), pair(2, "cat", 0.1), pair(3, "dog", 0.9), pair(4, "dog", 0.8), pair(5, "cup", 0.0)]
    assert order(pairs, "coverage", {"cup": 1}) == [2, 4, 5, 1, 3]


def test_mixed_prefers_the_unsure_the_different_and_the_seldom():
    assert order([pair(1, confidence=0.9), pair(2, confidence=0.1)], "mixed") == [2, 1]
    labelled = np.array([[1, 0]], dtype=np.float32)
    assert order([pair(1, at=5), pair(2, at=80)], "mixed", labelled=labelled) == [2, 1]
    assert order([pair(1, "cat"), pair(2, "dog")], "mixed", {"cat": 3}) == [2, 1]


def test_random_differs_by_seed_and_is_even():
    pairs = [pair(task) for task in range(1000)]
    priorities = rank(pairs, "random", {}, 1)
    assert not np.array_equal(priorities, rank(pairs, "random", {}, 2))
    assert abs(priorities.mean() - 0.5) < 0.05
    assert np.array_equal(priorities[:10], rank(pairs[:10], "random", {}, 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ten_thousand_pairs_take_less_than_two_seconds(strategy):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(10_000, 256)).astype(np.float32)
    scores = generator.random((10_000, 2))
    pairs = [
        Pair(number // 4, f"thing {number % 50}", *score, vector)
        for number, (score, vector) in enumerate(zip(scores, vectors, strict=True))
    ]
    assert len({(pair.task, pair.prompt) for pair in pairs}) == len(pairs) > CENTRES
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        rank(pairs, strategy, {}, 0)
        seconds.append(time.perf_counter() - started)
    # The quickest: a neighbour's work, or BLAS threads that wait for a core, aren't ours.
    assert min(seconds) < 2
