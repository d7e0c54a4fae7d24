"""The gate: whether a candidate may take the place of the version in production. Numbers only: no model, no file.

There is one rule. Both versions answer the held-out expressions, those about photos that no version is trained on, at
full resolution. An expression's score is its IoU, 0 where a target is refused; without a target it is 1 for a refusal,
else 0.

What is true is what a person said: drew, changed, or rejected. A mask that was accepted is the answer of the version
that was shown, mostly the one in production, which would have 1.000 by construction where a candidate that finds the
thing as well has 0.9. People accept what they would have drawn otherwise, two people's masks agree to 0.85 to 0.9; so
agreement with an accepted mask counts up to 0.85 (`ris_core.evaluation.convention`), for both versions
and for scores that were kept, and no mask gains by being production's own. To lose the thing then costs as much as to
find one that was drawn gains: luck, which was production's where its answer was accepted and the candidate's where it
was not, weighs the same on both sides. To leave accepted masks out would ask after production's failures alone, and
pass whatever fails elsewhere. What no rule mends: who is shown a mask draws less than who isn't. So a share of the
held-out tasks is shown without one (RIS_PRELABEL_BLIND).

A candidate passes if

1. there is enough to compare: `needed` expressions, half of them with a target, these about a quarter as many photos,
   and a quarter of them said by a person. Else the answer is "not yet", and says how many more it takes;
2. it is no worse: the mean difference of the scores is at least 0, and its lower bound above -0.0075. That is the 10 %
   quantile over 10,000 bootstrap draws of photos, each with all of its expressions, since these succeed and fail
   together (Efron and Tibshirani 1993, paired);
3. refusals don't pay for masks: over the expressions with a target the mean hasn't fallen by more than 0.02, beyond
   chance (the 90 % quantile of that bootstrap);
4. what worked before still works: over the expressions that a version in production ever answered well, by 0.5 or
   more, the mean score hasn't fallen by more than 0.02 below the first good scores, beyond chance.

The first good scores travel from card to card. Were a candidate compared with the last version alone, it could lose a
little each time; so all falls together are held against the same references. Beyond chance, for a good score is in part
luck, which no successor has twice: by the plain mean half of those that only learn something new would be held back.
So it is with targets, whose mean over thirty of them chance alone moves by a few hundredths.

How often simulated candidates pass, 100 each (`make bench-gate`; truly: the change of the expected score):

    truly                  +0.16  +0.09  +0.03   0.00  -0.03  -0.10
    20 held out             0.99   0.94   0.57   0.32   0.11   0.00
    60                      1.00   0.97   0.60   0.27   0.05   0.00
    200                     1.00   1.00   0.89   0.18   0.00   0.00

and where 80 % of the held-out expressions were accepted from production, docs/learning.md has all of it:

    truly                                +0.05  +0.03   0.00  -0.03
    100 held out                          0.81   0.56   0.13   0.01
    the same, accepted masks in full      0.00   0.00   0.00   0.00

A sentence that is asked of a photo twice, in two tasks that show the same picture, is one expression with the mean of
its scores. A score that is no number from 0 to 1 fails the candidate. The same scores in any order give the same
verdict, and a better answer of the candidate never costs it the promotion.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.datasets import fingerprints
from ris_core.evaluation.convention import ACCEPTED_TOLERANCE

MARGIN = 0.02
# What may have been lost at worst in the mean of all. By 0.02, one candidate in fifteen that is worse by 0.03 passes.
LEAST = -0.0075
QUANTILE = 0.10
GOOD_SCORE = 0.5
_RESAMPLES, _SEED = 10_000, 0
# Draws that are looked at together; each takes 20 bytes.
_BLOCK = 2_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ComparedExpression:
    """One held-out expression, answered by both versions.

    photo, target: digests of the picture and of the masks that are meant; target is empty where there is none.
    before, after: the scores of the version in production and of the candidate. accepted: the masks that are meant are
    a version's own, which a person let stand; then the scores are `Score.correct` of such.
    """

    task: int
    prompt: str
    photo: str
    target: str
    before: float
    after: float
    accepted: bool = False

    @property
    def has_target(self) -> bool:
        """Whether a mask is meant; else a refusal is right."""
        return bool(self.target)


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    numbers: all that it went by. reference_scores: the first good score of each expression that is held out now, the
    candidate's own included. Kept in its card as "worked", they are what a next candidate is held to.
    """

    decision: Literal["passed", "failed", "not yet"]
    reason: str
    numbers: Mapping[str, float | int]
    reference_scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the candidate may go into production."""
        return self.decision == "passed"

    def as_json(self) -> dict[str, Any]:
        """As a version's card has it under "gate"; the reference scores stand beside it."""
        return {"decision": self.decision, "reason": self.reason, "numbers": dict(self.numbers)}


@dataclass(frozen=True)
class _Expression:
    """A sentence about a photo, however many tasks ask it. key: what it and its answer are known by in a card."""

    key: str
    photo: str
    has_target: bool
    before: float
    after: float
    accepted: bool

    @property
    def difference(self) -> float:
        return self.after - self.before


def judge(
    compared: Sequence[ComparedExpression], needed: int, reference_scores: Mapping[str, float] | None = None
) -> Verdict:
    """Apply the rule to what both versions made of the held-out expressions.

    Args:
        needed: expressions that it takes.
        reference_scores: `Verdict.reference_scores` of the version in production, from its card.
    """
    if broken := sum(not (0 <= scored.before <= 1 and 0 <= scored.after <= 1) for scored in compared):
        reason = f"{broken} of {len(compared)} scores are no numbers from 0 to 1, so one of the versions is broken."
        return Verdict("failed", reason, {"expressions": len(compared), "needed": needed})
    expressions = _distinct(compared)
    references = _updated(reference_scores or {}, {expression.key: expression.before for expression in expressions})
    numbers = _measure(expressions, references) | {"needed": needed}
    reached = _updated(references, {expression.key: expression.after for expression in expressions})
    if missing := _missing(numbers):
        return Verdict("not yet", missing, numbers, reached)
    on = f"{numbers['expressions']} held-out expressions about {numbers['photos']} photos"
    if failures := _failures(numbers):
        return Verdict("failed", f"It fails on {on}: {'; '.join(failures)}.", numbers, reached)
    change = f"{numbers['before']:.3f} -> {numbers['after']:.3f} in the mean, at least {numbers['lower_bound']:+.3f}"
    return Verdict("passed", f"It is no worse on {on}: {change}.", numbers, reached)


def _distinct(compared: Sequence[ComparedExpression]) -> list[_Expression]:
    """One entry a sentence and photo, in an order that doesn't depend on that of `compared`."""
    groups: dict[tuple[str, str], list[ComparedExpression]] = defaultdict(list)
    for scored in compared:
        groups[scored.photo, scored.prompt].append(scored)
    return [_join(*identity, groups[identity]) for identity in sorted(groups)]


def _join(photo: str, prompt: str, group: Sequence[ComparedExpression]) -> _Expression:
    # Whoever draws a mask anew asks for something else, of which nothing is known yet.
    key = fingerprints.held_out(photo, (scored.target for scored in group), prompt)
    before, after = fmean([scored.before for scored in group]), fmean([scored.after for scored in group])
    has_target, accepted = (
        any(values) for values in zip(*((one.has_target, one.accepted) for one in group), strict=True)
    )
    return _Expression(key, photo, has_target, before, after, accepted)


def _updated(references: Mapping[str, float], scores: Mapping[str, float]) -> dict[str, float]:
    """The first good score of each expression, as far as it had one."""
    good = {key: score for key, score in scores.items() if score >= GOOD_SCORE}
    return {key: references.get(key, good.get(key, 0.0)) for key in scores if key in references or key in good}


def _measure(expressions: Sequence[_Expression], references: Mapping[str, float]) -> dict[str, float | int]:
    targets = [expression for expression in expressions if expression.has_target]
    referenced = [expression for expression in expressions if expression.key in references]
    numbers: dict[str, float | int] = {
        "expressions": len(expressions),
        "photos": len(set(_photos(expressions))),
        "targets": len(targets),
        "target_photos": len(set(_photos(targets))),
        "accepted": sum(expression.accepted for expression in expressions),
    }
    if expressions:
        differences = [expression.difference for expression in expressions]
        numbers["before"] = fmean([expression.before for expression in expressions])
        numbers["after"] = fmean([expression.after for expression in expressions])
        numbers["difference"] = fmean(differences)
        numbers["lower_bound"] = bound(differences, _photos(expressions), QUANTILE)
    if targets:
        gains = [expression.difference for expression in targets]
        numbers["target_difference"] = fmean(gains)
        numbers["target_upper_bound"] = bound(gains, _photos(targets), 1 - QUANTILE)
    if referenced:
        # Scores that were kept before this rule are 1 where the answer was accepted.
        falls = [one.after - min(references[one.key], _most(one)) for one in referenced]
        numbers["worked"] = len(referenced)
        numbers["worked_difference"] = fmean(falls)
        numbers["worked_upper_bound"] = bound(falls, _photos(referenced), 1 - QUANTILE)
    return numbers


def _most(expression: _Expression) -> float:
    return ACCEPTED_TOLERANCE if expression.accepted else 1.0


def _photos(expressions: Sequence[_Expression]) -> list[str]:
    return [expression.photo for expression in expressions]


def _missing(numbers: Mapping[str, float | int]) -> str:
    """What there is too little of to compare versions; empty if there is enough."""
    needed = int(numbers["needed"])
    wanted = (
        (needed - numbers["expressions"], "held-out expressions"),
        (-(-needed // 2) - numbers["targets"], "of them with a mask"),
        (-(-needed // 4) - numbers["target_photos"], "held-out photos that show one"),
        (
            -(-needed // 4) - numbers["expressions"] + numbers["accepted"],
            "expressions that a person drew, changed or rejected",
        ),
    )
    missing = [f"{number} more {what}" for number, what in wanted if number > 0]
    if not missing:
        return ""
    listed = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    return f"Not yet: to compare versions it takes {listed}. About one photo in five is held out, so keep annotating."


def _failures(numbers: Mapping[str, float | int]) -> list[str]:
    failures = []
    if numbers["difference"] < 0:
        failures.append(f"the mean score falls from {numbers['before']:.3f} to {numbers['after']:.3f}")
    elif numbers["lower_bound"] <= LEAST:
        failures.append(
            f"the mean score may as well have fallen by {-numbers['lower_bound']:.3f}, more photos would tell"
        )
    if numbers["target_upper_bound"] < -MARGIN:
        failures.append(f"where there is a mask to find, it falls by {-numbers['target_difference']:.3f}")
    if numbers.get("worked_upper_bound", 0) < -MARGIN:
        lost = -numbers["worked_difference"]
        failures.append(f"of what worked before, {numbers['worked']} expressions, it loses {lost:.3f} in the mean")
    return failures


def bound(values: Sequence[float], photos: Sequence[str], quantile: float) -> float:
    """A bootstrap quantile of the mean: photos are drawn anew, each with all of its values. The seed is fixed."""
    _, index = np.unique(np.asarray(photos), return_inverse=True)
    sums, counts = np.bincount(index, np.asarray(values, dtype=np.float64)), np.bincount(index)
    generator = np.random.default_rng(_SEED)
    rows = max(1, min(_RESAMPLES, _BLOCK // len(sums)))
    means: list[Floats] = []
    for start in range(0, _RESAMPLES, rows):
        size = min(rows, _RESAMPLES - start), len(sums)
        draws = generator.integers(len(sums), size=size, dtype=np.int32)
        means.append(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))
    return float(np.quantile(np.concatenate(means), quantile))
