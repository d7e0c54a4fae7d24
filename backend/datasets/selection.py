"""Which of a task's annotations count."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from backend.datasets.annotations import chosen_annotation

Policy = Literal["best", "ground-truth", "reviewed", "latest", "all", "consensus-vote", "consensus-staple"]


def select(
    annotations: Sequence[Mapping[str, Any]], policy: Policy, says_where: Callable[[Mapping[str, Any]], bool]
) -> list[Mapping[str, Any]]:
    best = chosen_annotation(annotations)
    return [best] if best else []
