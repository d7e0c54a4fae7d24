"""Which of a task's annotations count."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from backend.datasets.annotations import chosen_annotation

Policy = Literal["best", "ground-truth", "reviewed", "latest", "all", "consensus-vote", "consensus-staple"]


def select(
    annotations: Sequence[Mapping[str, Any]], policy: Policy, says_where: Callable[[Mapping[str, Any]], bool]
) -> list[Mapping[str, Any]]:
    if policy == "all":
        last = {str(a.get("completed_by")): a for a in sorted(annotations, key=lambda a: str(a["updated_at"]))}
        return sorted(last.values(), key=lambda a: int(a["id"]))
    best = chosen_annotation(annotations)
    return [best] if best else []
