"""What annotators did to predictions. Masks are compared: Label Studio 1.23.2 doesn't say that a polygon was moved.

- An annotation is compared with the prediction that it names as its parent, else with the one that has most of its
  regions. In it a sentence's masks are those proposed for the same sentence, or with the same regions' ids.
- Where there is no such prediction, as for answers that were only shown in the editor, nothing can be compared, and
  the regions' own `origin` decides: what Label Studio calls a prediction was accepted or, changed, corrected.
- A sentence that was asked for and not found has an IoU of 1 where the annotator agrees, of 0 where something is drawn.

Once measured, it is kept below home (`Ledger`): Label Studio forgets the parent of an annotation when the prediction is
deleted. Without the file, what was deleted counts as never predicted. Knows no HTTP and no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.datasets.annotations import Change, ChangeKind, Correction, Corrections, DrawnObject, Expression, clean
from backend.errors import RegionError
from backend.home import edits_file
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.regions import AnnotatedMasks, read_annotation
from backend.locks import exclusive
from ris_core.files import atomic_write, sha256
from ris_core.masks import Mask
from ris_core.masks import iou as mask_iou

Json = Mapping[str, Any]
FetchPredictions = Callable[[Sequence[int]], Iterable[Json]]
"""Task ids -> those tasks with their `predictions`."""

_DIGITS = 16
_PREDICTED, _CHANGED = "prediction", "prediction-changed"


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction as it was stored. asked: the sentences, cleaned, that it is an answer to."""

    number: int
    version: str
    read: AnnotatedMasks

    @property
    def asked(self) -> set[str]:
        masks = (mask.prompt for mask in self.read.masks)
        return {clean(prompt) for prompt in (*self.read.prompts, *masks) if prompt}

    def masks(self, expression: Expression) -> list[Mask]:
        """HxW bool each, what it proposes for an expression."""
        return [
            mask.mask
            for mask in self.read.masks
            if mask.region_id in expression.regions or clean(mask.prompt or "") == expression.cleaned
        ]


class Ledger:
    """What was measured of a project's annotations, in a file below home. Any number of processes may share it."""

    def __init__(self, home: Path, project: int) -> None:
        self._file = edits_file(home, project)

    def read(self) -> dict[str, dict[str, Any]]:
        """By annotation and expression, see `_key`, the fields of a `Change`; nothing from a file that is damaged."""
        with suppress(OSError, ValueError):
            entries = json.loads(self._file.read_text(encoding="utf-8"))
            return entries if isinstance(entries, dict) else {}
        return {}

    def add(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep more of them."""
        if entries:
            with exclusive(self._file.with_suffix(".lock")):
                kept = json.dumps({**self.read(), **entries}, sort_keys=True, separators=(",", ":"))
                atomic_write(self._file, kept.encode())


def measured(corrections: Corrections, ledger: Ledger, fetch: FetchPredictions, config: LabelConfig) -> Corrections:
    """Corrections with what was done to the predictions. Asks for predictions only where that isn't known yet."""
    known = ledger.read()
    unknown = {item.task: item for item in corrections.items if _is_unknown(item, known)}
    fresh: dict[str, dict[str, Any]] = {}
    for task in fetch(list(unknown)) if unknown else ():
        item = unknown[int(task["id"])]
        changed = compare(item, parent(item, task.get("predictions") or [], config))
        fresh |= {_key(item, each): _fields(each.change) for each in changed.expressions if each.change}
    ledger.add(fresh)
    known |= fresh
    return replace(corrections, items=tuple(_recalled(item, known) for item in corrections.items))


def parent(correction: Correction, predictions: Iterable[Json], config: LabelConfig) -> StoredPrediction | None:
    """The prediction that an annotation was made from; None if none of them is."""
    named = [each for each in predictions if each["id"] == correction.parent_prediction]
    regions = {drawn.region.partition("#")[0] for drawn in correction.objects}
    shared = {int(each["id"]): len(regions & _region_ids(each)) for each in predictions}
    alike = [each for each in predictions if shared[int(each["id"])]]
    best = max(named or alike, key=lambda each: (shared[int(each["id"])], int(each["id"])), default=None)
    if best is None:
        return None
    try:
        read = read_annotation(best.get("result"), config)
    except RegionError:
        return None
    return StoredPrediction(int(best["id"]), str(best.get("model_version") or ""), read)


def compare(correction: Correction, prediction: StoredPrediction | None) -> Correction:
    """The correction, each of its expressions with what was done to the prediction."""
    objects = {drawn.region: drawn for drawn in correction.objects}
    expressions = []
    for each in correction.expressions:
        drawn = [objects[region] for region in each.regions]
        expressions.append(replace(each, change=_change(each, drawn, prediction)))
    return _summed(replace(correction, expressions=tuple(expressions)))


def _change(expression: Expression, drawn: Sequence[DrawnObject], prediction: StoredPrediction | None) -> Change:
    proposed = prediction.masks(expression) if prediction else []
    if prediction is None or not (proposed or expression.cleaned in prediction.asked):
        return _by_origin(drawn)
    submitted = [each.mask() for each in drawn]
    masks = [*proposed, *submitted]
    if len({mask.shape for mask in masks}) > 1:
        # The picture was replaced by one of another size.
        return _by_origin(drawn)
    nothing = np.zeros(masks[0].shape if masks else (1, 1), dtype=np.bool_)
    before, after = (np.logical_or.reduce([nothing, *union]) for union in (proposed, submitted))
    changed = int(np.count_nonzero(before != after))
    kind: ChangeKind = "accepted" if not changed else "corrected" if proposed else "manual"
    return Change(kind, mask_iou(before, after), changed, version=prediction.version)


def _by_origin(drawn: Sequence[DrawnObject]) -> Change:
    origins = {each.origin for each in drawn}
    if origins == {_PREDICTED}:
        return Change("accepted")
    return Change("corrected" if origins & {_PREDICTED, _CHANGED} else "manual")


def _summed(correction: Correction) -> Correction:
    """The correction with the change of all of its expressions together."""
    changes = [each.change for each in correction.expressions if each.change]
    if not changes:
        return correction
    kinds = {change.kind for change in changes}
    ious = [change.iou for change in changes if change.iou is not None]
    pixels = [change.changed_pixels for change in changes if change.changed_pixels is not None]
    total = Change(
        kind=kinds.pop() if len(kinds) == 1 else "corrected",
        iou=sum(ious) / len(ious) if ious else None,
        changed_pixels=sum(pixels) if pixels else None,
        lead_time=correction.lead_time,
        version=next((change.version for change in changes if change.version), None),
    )
    return replace(correction, change=total)


def _is_unknown(correction: Correction, known: Mapping[str, Any]) -> bool:
    """Whether there may be a prediction that the correction hasn't been compared with."""
    proposed = any(drawn.origin in (_PREDICTED, _CHANGED) for drawn in correction.objects)
    if correction.parent_prediction is None and not proposed:
        return False
    return any(_key(correction, expression) not in known for expression in correction.expressions)


def _recalled(correction: Correction, known: Mapping[str, Mapping[str, Any]]) -> Correction:
    objects = {drawn.region: drawn for drawn in correction.objects}
    expressions = []
    for each in correction.expressions:
        entry = known.get(_key(correction, each))
        change = Change(**entry) if entry else _by_origin([objects[region] for region in each.regions])
        expressions.append(replace(each, change=replace(change, lead_time=correction.lead_time)))
    return _summed(replace(correction, expressions=tuple(expressions)))


def _key(correction: Correction, expression: Expression) -> str:
    """What was measured holds as long as an annotation's masks for a sentence stay as they are."""
    runs = sorted(drawn.rle["counts"] for drawn in correction.objects if drawn.region in expression.regions)
    return f"{correction.annotation}:{sha256('/'.join([expression.cleaned, *runs]).encode())[:_DIGITS]}"


def _fields(change: Change) -> dict[str, Any]:
    return {name: value for name, value in asdict(change).items() if value is not None and name != "lead_time"}


def _region_ids(prediction: Json) -> set[str]:
    result = prediction.get("result")
    return (
        {str(region.get("id")) for region in result if isinstance(region, dict)} if isinstance(result, list) else set()
    )
