"""How much each of a project's expressions counts when training draws: prompts, origins, and what is new. All ours.

A hundred masks of one prompt and five of another shouldn't make a model that knows the first alone; nor should masks
that a person only waved through drown those that somebody drew: learning mostly from itself, a model drifts. And one
that mostly hears of things that they aren't there learns to refuse.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence

from ris_core.data.folder import Sample

# What a person changed tells most, what was accepted is known already; masks of other origin lie between.
_ORIGINS = {"corrected": 1.0, "rejected": 1.0, "accepted": 0.25, "taught": 0.25}
_USUAL = 0.75
# Accepted masks are no more than this share of all that is drawn, before things that aren't there become fewer.
_ACCEPTED = 0.25
# What a teacher said is no more than half of it: people's word counts at least as much.
_TAUGHT = 0.5
# These are no more than this share in the end: base models learn one to three targets as well.
_ABSENT = 0.25
# So many times as often is drawn what hasn't been learnt from; the rest is drawn beside it, against forgetting.
_NEW = 3.0


def balance(samples: Sequence[Sample], new: Collection[int] = ()) -> list[float]:
    """One weight, above 0, for each sample: as often as that, next to the others', it should be drawn.

    A prompt's weight grows with the root of how often it was given: frequent ones count more, but not by as much. `new`
    are image ids that haven't been learnt from.
    """
    given = Counter(sample.sentence for sample in samples)
    weights = [
        _ORIGINS.get(sample.origin, _USUAL)
        * (_NEW if sample.image_id in new else 1.0)
        / math.sqrt(given[sample.sentence])
        for sample in samples
    ]
    weights = _limited(weights, [sample.origin == "taught" for sample in samples], _TAUGHT)
    weights = _limited(weights, [sample.origin == "accepted" for sample in samples], _ACCEPTED)
    return _limited(weights, [not sample.has_target for sample in samples], _ABSENT)


def _limited(weights: Sequence[float], which: Sequence[bool], share: float) -> list[float]:
    """The weights, those of `which` made smaller so that they are no more than a share of all."""
    limited = sum(weight for weight, is_one in zip(weights, which, strict=True) if is_one)
    others = sum(weights) - limited
    # Where there are no others, there is nothing to hold them against.
    most = share / (1 - share) * others or limited
    factor = min(1.0, most / limited) if limited else 1.0
    return [weight * (factor if is_one else 1.0) for weight, is_one in zip(weights, which, strict=True)]
