"""What to label next: a priority for each pair of a task and a prompt. Numbers only: no model, no file.

    uncertainty    1 - confidence
    disagreement   how far the model's answers under dropout lie apart
    diversity      unlike what is labelled and all before it: greedy k-centre (Gonzalez 1985; Sener and Savarese 2018)
    coverage       prompts with few corrections first, in turns; of one prompt the least sure pair first
    random         by a seed
    mixed          all at once: the next pair is the one with the highest product of its uncertainty, its distance from
                   everything before it, and 1 / sqrt(1 + corrections of its prompt, those before it included) (ours)

The confidence is calibrated: it is the IoU to expect of the answer. So 1 - confidence is what correcting the answer
gains at most. The distance to the decision "there or not" would leave out what is surely there and poorly drawn.

diversity and mixed choose CENTRES pairs one by one; the rest follow by what they would be worth after those. The model
changes, and all is ranked anew, long before a person gets there.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.settings import Strategy

STRATEGIES: tuple[str, ...] = get_args(Strategy)

Embeddings: TypeAlias = NDArray[np.float32]
Values: TypeAlias = NDArray[np.float64]

# Each takes a pass over all pairs: 2 ms where there are 10,000 of them.
CENTRES = 400
# Labelled pairs that are looked at together.
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Pair:
    """A task and something asked of it; no two pairs of a list have the same of both.

    confidence: the IoU to expect of the answer, [0, 1]. disagreement: [0, 1]. embedding: (D,), its direction counts.
    What isn't a number counts as 0. shown: whether the answer is a mask that was written.
    """

    task: int
    prompt: str
    confidence: float
    disagreement: float
    embedding: Embeddings
    shown: bool = True


def rank(
    pairs: Sequence[Pair],
    strategy: str,
    corrections: Mapping[str, int],
    seed: int,
    labelled: Embeddings | None = None,
) -> Values:
    """How soon to label each of N pairs: (N,) priorities in [0, 1], the highest first, whatever the pairs' order.

    strategy: one of STRATEGIES, or BadRequest is raised. corrections: how many each prompt has; none where it isn't in
    it. seed: of "random". labelled: (M, D), embeddings of pairs that are labelled already; their directions count.
    """
    if strategy not in STRATEGIES:
        raise BadRequest(f"There is no strategy {strategy!r:.40}. Choose one of {', '.join(STRATEGIES)}.")
    if not pairs:
        return np.zeros(0)
    order = sorted(range(len(pairs)), key=lambda number: (pairs[number].task, pairs[number].prompt))
    priorities = np.empty(len(pairs))
    priorities[order] = _rank([pairs[number] for number in order], strategy, corrections, seed, labelled)
    return priorities


def _rank(
    pairs: Sequence[Pair], strategy: str, corrections: Mapping[str, int], seed: int, labelled: Embeddings | None
) -> Values:
    """(N,) priorities of pairs that are sorted by task and prompt."""
    uncertainty = 1 - _numbers([pair.confidence for pair in pairs])
    if strategy == "uncertainty":
        return uncertainty
    if strategy == "disagreement":
        return _numbers([pair.disagreement for pair in pairs])
    if strategy == "random":
        return np.array([_draw(pair, seed) for pair in pairs])
    if strategy == "coverage":
        return _by_position(_in_turns(pairs, uncertainty, corrections))
    prompts = [pair.prompt for pair in pairs]
    if strategy == "mixed":
        return _by_position(_spread(pairs, labelled, uncertainty, prompts, corrections))
    # As if each had a prompt of its own.
    return _by_position(_spread(pairs, labelled, np.ones(len(pairs)), range(len(pairs)), {}))


def _in_turns(pairs: Sequence[Pair], uncertainty: Values, corrections: Mapping[str, int]) -> list[int]:
    """Indices of pairs: next is always one of a prompt that has the fewest corrections by then."""
    of_prompt: dict[str, list[int]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        of_prompt[pair.prompt].append(number)
    turns: list[tuple[int, float, int]] = []
    for prompt, numbers in of_prompt.items():
        numbers.sort(key=lambda number: (-uncertainty[number], number))
        before = corrections.get(prompt, 0)
        turns += [(before + turn, -uncertainty[number], number) for turn, number in enumerate(numbers)]
    return [number for _, _, number in sorted(turns)]


def _spread(
    pairs: Sequence[Pair],
    labelled: Embeddings | None,
    weight: Values,
    prompts: Sequence[Hashable],
    corrections: Mapping[str, int],
) -> list[int]:
    """Indices of pairs: next is always the one with the highest weight * distance / sqrt(1 + corrections).

    weight: (N,). prompts: one a pair, whose corrections count together.
    """
    vectors = _directions(np.stack([pair.embedding for pair in pairs]))
    names = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    prompt = np.array([names[prompt] for prompt in prompts])
    counts = np.array([float(corrections.get(str(name), 0)) for name in names])
    nearest = _distance_to_any(vectors, labelled)
    # Nothing lies before the first one: that is a typical one, not an outlier.
    value = nearest if nearest is not None else 2 - _distance(vectors @ _directions(vectors.mean(axis=0)[None])[0])
    nearest = np.full(len(pairs), 2.0) if nearest is None else nearest
    chosen: list[int] = []
    left = np.ones(len(pairs), dtype=bool)
    for _ in range(min(CENTRES, len(pairs))):
        worth = weight * value / np.sqrt(1 + counts)[prompt]
        number = int(np.argmax(np.where(left, worth, -1.0)))
        chosen.append(number)
        left[number] = False
        counts[prompt[number]] += 1
        value = nearest = np.minimum(nearest, _distance(vectors @ vectors[number]))
    rest = np.flatnonzero(left)
    worth = weight * value / np.sqrt(1 + counts)[prompt]
    return [*chosen, *rest[np.argsort(-worth[rest], kind="stable")].tolist()]


def _distance_to_any(vectors: Embeddings, labelled: Embeddings | None) -> Values | None:
    """(N,) distances to the nearest of `labelled`; None if there are none."""
    if labelled is None or not len(labelled):
        return None
    others = _directions(labelled)
    blocks = (others[start : start + _BLOCK] for start in range(0, len(others), _BLOCK))
    return _distance(np.max([(vectors @ block.T).max(axis=1) for block in blocks], axis=0))


def _distance(cosines: NDArray[Any]) -> Values:
    """Cosines of angles between vectors of length 1 -> the distances of their ends, [0, 2]."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), 0)), dtype=np.float64)


def _directions(vectors: Embeddings) -> Embeddings:
    """(N, D) -> the same at length 1; all that have no direction get the same."""
    finite = np.nan_to_num(np.asarray(vectors, dtype=np.float32), posinf=0.0, neginf=0.0)
    # By the greatest part first, so that no square overflows or vanishes.
    greatest = np.abs(finite).max(axis=1, keepdims=True)
    finite = np.where(greatest > 0, finite, 1) / np.where(greatest > 0, greatest, 1)
    return np.asarray(finite / np.linalg.norm(finite, axis=1, keepdims=True), dtype=np.float32)


def _by_position(order: Sequence[int]) -> Values:
    """Indices, the first one to come first -> (N,) priorities from 1 down to 1 / N."""
    priorities = np.empty(len(order))
    priorities[list(order)] = 1 - np.arange(len(order)) / len(order)
    return priorities


def _numbers(values: Sequence[float]) -> Values:
    """(N,), cut to [0, 1]; what isn't a finite number is 0."""
    return np.clip(np.nan_to_num(np.array(values, dtype=np.float64), posinf=0.0, neginf=0.0), 0, 1)


def _draw(pair: Pair, seed: int) -> float:
    """[0, 1), the same for a pair whatever stands beside it."""
    digest = hashlib.sha256(f"{seed}/{pair.task}/{pair.prompt}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
