"""How far a score can be believed, and a map that mends it. Knows numbers alone, no model and no mask.

A score is the IoU that a model expects of its own answer; what it came to is known afterwards. Sources: the expected
calibration error of Guo et al. (2017), with IoUs in the place of hits; Platt's (1999) line through the logit, fitted
to fractions instead of labels.

Ours: a model that says "it isn't there" of what it was never taught mostly doesn't know it. How far a sentence lies
from the names that it was taught is seen beforehand, and its refusal is believed the less, see `belief`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

BINS = 10
# The map is drawn towards changing nothing by as much as about four answers, so that a handful can't bend it far.
_PRIOR = 1.0
# The logit of a certain score is infinite.
_NEARLY = 1e-6
# Tried one after the other; with the largest, a sentence at right angles to all names is believed to 0.00005.
_DOUBTS = tuple(number / 4 for number in range(41))


class Bin(NamedTuple):
    """Answers of like scores. score: their mean. realised: the mean of what they came to. answers: how many."""

    score: float
    realised: float
    answers: int


def reliability(scores: Sequence[float], realised: Sequence[float], bins: int = BINS) -> list[Bin]:
    """Answers put into bins of equal width by their score, each from 0 to 1; empty bins are left out.

    The answers' order makes no difference, not even in the last digit.
    """
    groups: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for pair in zip(scores, realised, strict=True):
        groups[min(int(pair[0] * bins), bins - 1)].append(pair)
    filled = [groups[key] for key in sorted(groups)]
    return [Bin(mean([score for score, _ in pairs]), mean([came for _, came in pairs]), len(pairs)) for pairs in filled]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error in [0, 1]: how far score and outcome lie apart in a bin, for the mean answer."""
    total = sum(group.answers for group in bins)
    return math.fsum(group.answers * abs(group.score - group.realised) for group in bins) / total if total else 0.0


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value, rounded but once, so that their order makes no difference."""
    return math.fsum(values) / len(values)


def corrected(score: float, scale: float, shift: float) -> float:
    """sigmoid(scale * logit(score) + shift): it grows with `score` for any `scale` > 0 and keeps 0 and 1."""
    # Written with odds: the logit of 0 and of 1 is infinite.
    hit = math.pow(score, scale) * math.exp(shift)
    return hit / (hit + math.pow(1 - score, scale))


def belief(distance: float, doubt: float) -> float:
    """What a refusal's score is multiplied with: 1 for a name that was taught, less the further (0 to 2) from one."""
    return math.exp(-doubt * distance)


def misfit(scores: Sequence[float], realised: Sequence[float]) -> float:
    """How badly scores foretold what came, summed over the answers: the cross-entropy in nats."""
    given = torch.tensor(scores, dtype=torch.float64).clamp(_NEARLY, 1 - _NEARLY)
    return F.binary_cross_entropy(given, torch.tensor(realised, dtype=torch.float64), reduction="sum").item()


def fit_doubt(scores: Sequence[float], realised: Sequence[float], distances: Sequence[float]) -> float:
    """How much less to believe refusals the further what was asked lies from a name: the best foretelling `belief`.

    Each doubt that is tried comes with the line through the logit that fits it best, see `fit_correction`.
    """

    def missed(doubt: float) -> float:
        beliefs = [belief(distance, doubt) for distance in distances]
        line = fit_correction(scores, realised, beliefs)
        return misfit([corrected(score, *line) * part for score, part in zip(scores, beliefs, strict=True)], realised)

    return min(_DOUBTS, key=missed) if any(distances) else 0.0


def fit_correction(
    scores: Sequence[float], realised: Sequence[float], beliefs: Sequence[float] | None = None
) -> tuple[float, float]:
    """Scale (above 0) and shift for `corrected`, by maximum likelihood of what the answers came to, in [0, 1].

    beliefs: what each corrected score is multiplied with before it is compared; nothing, unless given.
    """
    logits = torch.logit(torch.tensor(scores, dtype=torch.float64), eps=_NEARLY)
    target = torch.tensor(realised, dtype=torch.float64)
    factor = torch.tensor(beliefs if beliefs is not None else [1.0] * len(scores), dtype=torch.float64)
    # The scale's logarithm, which keeps it above 0, and the shift.
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        mended = factor * (line[0].exp() * logits + line[1]).sigmoid()
        missed = F.binary_cross_entropy(mended.clamp(_NEARLY, 1 - _NEARLY), target, reduction="sum")
        total = missed + _PRIOR / 2 * line.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    scale, shift = line.tolist()
    return math.exp(scale), shift
