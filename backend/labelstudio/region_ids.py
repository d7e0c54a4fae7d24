"""Ids by which a prompt that is asked again in the editor replaces its own answer. Knows no model.

Label Studio 1.23.2 puts a region in the place of the one that has its id, so the same prompt gives the same ids: those
of the prediction that the picture was opened with, where that answers the prompt. An answer that somebody
changed stays: the new one gets other ids. What was changed is known from the draft, which the editor saves a few
seconds later.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np

from backend.labelstudio.json_values import objects_in
from backend.labelstudio.regions import Region, part_of, regions_of
from ris_core.files import sha256

_DIGITS = 12
# What places an outline, in percent of the picture, and how far the editor's rounding may move it.
_OUTLINE = ("points", "x", "y", "width", "height")
_SAME = 0.05


def stable_ids(
    regions: Sequence[Region], prompt: str, task: Mapping[str, Any], offered: Sequence[Region] = ()
) -> list[Region]:
    """The regions that answer a prompt, with ids that follow from it, from their tag and from their number there.

    prompt: as expressions are compared. task: as Label Studio sends it, with the drafts of whoever is at work on it.
    offered: what a prediction of the task's answers to the same prompt, if there is one.
    """
    rows = [row for name in ("drafts", "annotations") for row in objects_in(task.get(name))]
    drawn = {str(region.get("id")): region for row in rows for region in regions_of(row.get("result"))}
    numbers: Counter[str] = Counter()
    named = []
    for region in regions:
        place = _place(region)
        before = [one for one in offered if one.get("id") and _place(one) == place][numbers[place] :][:1]
        numbers[place] += 1
        hashed = (sha256(f"{prompt}|{place}|{numbers[place]}|{attempt}".encode())[:_DIGITS] for attempt in count())
        candidates = chain(((str(one["id"]), one) for one in before), ((name, region) for name in hashed))
        name = next(name for name, as_answered in candidates if not _is_changed(drawn.get(name), as_answered))
        named.append({**region, "id": name})
    return named


def _place(region: Region) -> str:
    return f"{region.get('from_name')}|{part_of(region, 'value').get(str(region.get('type')))}"


def _is_changed(drawn: Region | None, region: Region) -> bool:
    """Whether somebody gave an answer of ours another shape or label."""
    if drawn is None:
        return False
    before, now, labels = part_of(drawn, "value"), part_of(region, "value"), str(region.get("type"))
    # Of outlines Label Studio doesn't note that they were moved.
    moved = any(not _is_close(before.get(name), now[name]) for name in _OUTLINE if name in now)
    return drawn.get("origin") != "prediction" or moved or (before.get(labels) or []) != now.get(labels)


def _is_close(before: Any, now: Any) -> bool:
    try:
        return np.shape(before) == np.shape(now) and bool(np.allclose(before, now, atol=_SAME))
    except (TypeError, ValueError, OverflowError):
        return False
