"""Which annotations of a task count. Pure; knows no more of an annotation than its head: who, when, marked how.

POLICIES is the one place that says what there is; which masks come of it, `annotations` and `consensus` say.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from backend.datasets.annotations import (
    chosen_annotation,
    last_of_people,
    precedence,
    something_is_drawn,
    submitted,
)
from backend.errors import BadRequest

Policy = Literal["best", "ground-truth", "reviewed", "latest", "all", "consensus-vote", "consensus-staple"]

POLICIES: Mapping[Policy, str] = {
    "best": "the ground truth, else the last one; one in which nothing is drawn gives way to another person's",
    "ground-truth": "the ground truth alone",
    "reviewed": "the ground truth, else the last one that a reviewer accepted or fixed",
    "latest": "the last one submitted, whoever it is from and whatever is in it",
    "all": "every person's last one",
    "consensus-vote": "the ground truth, else what most people drew, pixel by pixel",
    "consensus-staple": "the ground truth, else what people drew, weighed by how far each can be trusted (STAPLE)",
}
"""What counts under each policy. Skipped annotations never do."""

# What Label Studio's enterprise edition notes as the last thing that happened to an annotation.
_ACCEPTED = ("accepted", "fixed_and_accepted")

Annotation = Mapping[str, Any]


def check_policy(policy: object) -> None:
    """Raise BadRequest if there is no such policy."""
    if not isinstance(policy, str) or policy not in POLICIES:
        raise BadRequest(f"There is no policy {policy!r:.100} for what counts. Choose from {', '.join(POLICIES)}.")


def select(
    annotations: Sequence[Annotation], policy: Policy, says_where: Callable[[Annotation], bool] = something_is_drawn
) -> list[Annotation]:
    """The annotations of one task that count, by rising id, whatever order they come in; none if nothing counts.

    annotations: as Label Studio's API gives them. says_where: whether anything is drawn in one; "best" alone asks, and
    nothing else looks at a `result`. "all" and the consensus policies give one a person: to be parsed one by one, and
    for a consensus given to `consensus`. The others give one at most. Raises BadRequest if there is no such policy.
    """
    check_policy(policy)
    if policy == "all":
        return sorted(last_of_people(annotations), key=itemgetter("id"))
    if policy == "best":
        return _some(chosen_annotation(annotations, says_where))
    counting = submitted(annotations)
    if policy == "latest":
        return _some(max(counting, key=_submitted_at, default=None))
    true = _last(filter(_is_ground_truth, counting))
    if true or policy == "ground-truth":
        return true
    if policy == "reviewed":
        return _last(filter(_is_accepted, counting))
    return sorted(last_of_people(annotations), key=itemgetter("id"))


def _is_ground_truth(annotation: Annotation) -> bool:
    return bool(annotation.get("ground_truth"))


def _is_accepted(annotation: Annotation) -> bool:
    """Whether a reviewer, in the enterprise edition, let it pass. The open-source edition has the star alone."""
    reviews = annotation.get("reviews") or [{}]
    return annotation.get("last_action") in _ACCEPTED or reviews[-1].get("accepted") is True


def _submitted_at(annotation: Annotation) -> tuple[Any, ...]:
    return precedence(annotation)[1:]


def _last(annotations: Iterable[Annotation]) -> list[Annotation]:
    return _some(max(annotations, key=precedence, default=None))


def _some(annotation: Annotation | None) -> list[Annotation]:
    return [] if annotation is None else [annotation]
