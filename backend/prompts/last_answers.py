"""What the editor was answered of late, for clicks that mend it: drafts come to Label Studio only after seconds.

In this process' memory alone: without it a click still finds the masks of the draft. Safe for threads.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cachetools import LRUCache

from backend.prompts.mending import MaskInEditor
from ris_core.masks import decode_rle, encode_rle

# Pictures, and answers of each.
_PICTURES, _EACH = 256, 8


class LastAnswers:
    """The latest answers of each task of each project, oldest first."""

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[int, object], list[tuple[MaskInEditor, dict[str, Any] | None]]] = LRUCache(_PICTURES)
        self._lock = threading.Lock()

    def of(self, project: int, task: object) -> list[MaskInEditor]:
        """Those of one task."""
        with self._lock:
            kept = list(self._kept.get((project, task), ()))
        return [replace(answer, mask=decode_rle(mask) if mask else None) for answer, mask in kept]

    def add(self, project: int, task: object, answers: Sequence[MaskInEditor]) -> None:
        """Keep further ones; each takes the place of those that had one of its regions, or asked the same."""
        # Run lengths: photos may be large.
        new = [
            (replace(answer, mask=None), encode_rle(answer.mask) if answer.mask is not None else None)
            for answer in answers
        ]
        with self._lock:
            before = self._kept.get((project, task), [])
            kept = [row for row in before if not any(_replaces(answer, row[0]) for answer, _ in new)]
            self._kept[project, task] = [*kept, *new][-_EACH:]


def _replaces(new: MaskInEditor, old: MaskInEditor) -> bool:
    same = bool(new.keys & old.keys or (new.sentence and not new.keys and new.sentence == old.sentence))
    return same or not _names(new).isdisjoint(_names(old)) or (not old.ids and old.sentence == new.sentence)


def _names(answer: MaskInEditor) -> set[str]:
    return {name for names in answer.ids.values() for name in names}


def in_place(regions: Sequence[dict[str, Any]], mended: MaskInEditor | None) -> list[dict[str, Any]]:
    """The regions of an answer with the ids of those that it mends, tag by tag; what is more keeps its own."""
    left = {tag: iter(names) for tag, names in mended.ids.items()} if mended else {}
    empty: Iterable[str] = ()
    return [{**region, "id": next(left.get(region["from_name"], iter(empty)), region["id"])} for region in regions]
