"""What annotators did to predictions. Masks are compared: Label Studio 1.23.2 doesn't say that a polygon was moved.

- An annotation is compared with the prediction that it names as its parent, else with the one that has most of its
  regions. In it a sentence's masks are those proposed for the same sentence, or with the same regions' ids.
- Regions of the parent that nothing is left of were rejected, see `annotations.with_rejections`. Who began with an
  empty picture and asked for one of them alone (the answer has its region's id) said nothing of the others.
- Where there is no such prediction, as for answers that were only shown in the editor, nothing can be compared, and
  the regions' own `origin` decides: what Label Studio calls a prediction was accepted or, changed, corrected.
- A sentence that was asked for and not found has an IoU of 1 where the annotator agrees, of 0 where something is drawn.

Once measured, it is kept below home (`EditLedger`): Label Studio forgets the parent of an annotation when the
prediction is deleted. Without the file, what was deleted counts as never predicted. Knows no HTTP and no model.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.datasets.annotations import (
    Correction,
    Corrections,
    DrawnObject,
    Edit,
    EditKind,
    Expression,
    Offer,
    sentence_of,
    with_rejections,
)
from backend.datasets.fingerprints import annotation_key, edit_keys
from backend.errors import RegionError
from backend.home import edits_file
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.regions import AnnotatedMask, AnnotatedMasks, read_annotation, regions_of
from backend.labelstudio.responses import Json
from backend.locks import exclusive
from backend.prompts.text import clean
from ris_core.files import atomic_write
from ris_core.masks import Mask
from ris_core.masks import iou as mask_iou

FetchPredictions = Callable[[Sequence[int]], Iterable[Json]]
"""Task ids -> those tasks with their `predictions`."""

_PREDICTED, _CHANGED = "prediction", "prediction-changed"


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction as it was stored. is_parent: whether an annotation names it as what it was made from."""

    version: str
    read: AnnotatedMasks
    is_parent: bool = True

    @property
    def prompts(self) -> set[str]:
        """The sentences, cleaned, that it is an answer to."""
        of_masks = (mask.prompt for mask in self.read.masks)
        return {clean(prompt) for prompt in (*self.read.prompts, *of_masks) if prompt}

    def masks(self, expression: Expression) -> list[Mask]:
        """What it proposes for an expression: HxW bool each."""
        return [
            mask.mask
            for mask in self.read.masks
            if (mask.region_id in expression.regions and not _offer(mask).is_by_name)
            or clean(_offer(mask).sentence) == expression.cleaned
        ]


class EditLedger:
    """What was measured of a project's edits, in a file below home. Any number of processes may share it."""

    def __init__(self, home: Path, project: int) -> None:
        self._file = edits_file(home, project)

    def read(self) -> dict[str, dict[str, Any]]:
        """By `edit_keys` the fields of an `Edit`, by `annotation_key` what was rejected; nothing if it is damaged."""
        with suppress(OSError, ValueError):
            entries = json.loads(self._file.read_text(encoding="utf-8"))
            return entries if isinstance(entries, dict) else {}
        return {}

    def add(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep more of them."""
        if entries:
            with exclusive(self._file.with_suffix(".lock")):
                kept = json.dumps({**self.read(), **entries}, sort_keys=True, separators=(",", ":"))
                atomic_write(self._file, kept.encode(), mode=0o600)


def measure_edits(
    corrections: Corrections, ledger: EditLedger, fetch: FetchPredictions, config: LabelConfig
) -> Corrections:
    """Corrections with what was done to the predictions. Fetches predictions only where that isn't in the ledger."""
    entries = ledger.read()
    unmeasured = {item.task: item for item in corrections.items if _is_unmeasured(item, entries)}
    fresh: dict[str, dict[str, Any]] = {}
    for task in fetch(list(unmeasured)) if unmeasured else ():
        item = unmeasured[int(task["id"])]
        parent = find_parent(item, task.get("predictions") or [], config)
        compared = compare(item, parent)
        for expression in compared.expressions:
            keys = edit_keys(item, expression)
            # What was measured while its prediction was there is better than what the origin says.
            if expression.edit and (parent or not entries.keys() & keys):
                fresh[keys[0]] = _fields(expression.edit)
        fresh[annotation_key(item)] = {
            "meant": [[expression.prompt, expression.regions] for expression in compared.expressions]
        }
    ledger.add(fresh)
    entries |= fresh
    return replace(corrections, items=tuple(_recalled(item, entries) for item in corrections.items))


def find_parent(correction: Correction, predictions: Sequence[Json], config: LabelConfig) -> StoredPrediction | None:
    """The prediction that an annotation was made from; None if none of them is."""
    regions = {drawn.region.partition("#")[0] for drawn in correction.objects}

    def rank(prediction: Json) -> tuple[bool, int, int]:
        shared = regions & {str(region.get("id")) for region in regions_of(prediction.get("result"))}
        return prediction["id"] == correction.parent_prediction, len(shared), int(prediction["id"])

    best = max(predictions, key=rank, default=None)
    if best is None or not any(rank(best)[:2]):
        return None
    with suppress(RegionError):
        version, read = str(best.get("model_version") or ""), read_annotation(best.get("result"), config)
        return StoredPrediction(version, read, is_parent=best["id"] == correction.parent_prediction)
    return None


def compare(correction: Correction, prediction: StoredPrediction | None) -> Correction:
    """The correction with what it says of the prediction, each of its expressions with what was done to that."""
    if prediction:
        renamed = _renamed(correction, prediction)
        correction = _with_names(correction, renamed)
        left = {drawn.region.partition("#")[0] for drawn in correction.objects} - renamed.keys()
        if prediction.is_parent:
            gone = [mask for mask in prediction.read.masks if mask.region_id not in left and not mask.is_empty]
            offered = {mask.region_id for mask in prediction.read.masks}
            correction = with_rejections(correction, map(_offer, gone), offered, None)
    return _with_edits(correction, lambda expression, drawn: _edit(expression, drawn, prediction))


def _offer(mask: AnnotatedMask) -> Offer:
    return Offer(mask.prompt, mask.label)


def _renamed(correction: Correction, prediction: StoredPrediction) -> dict[str, str]:
    """The regions that were asked for by their label's name and were given another label -> what that is called."""
    asked = {mask.region_id: mask.label for mask in prediction.read.masks if mask.label and _offer(mask).is_by_name}
    return {
        drawn.region: sentence_of(drawn.label)
        for drawn in correction.objects
        if asked.get(drawn.region, drawn.label) != drawn.label
    }


def _with_names(correction: Correction, renamed: Mapping[str, str]) -> Correction:
    """The correction with those regions under their new names: these are what the model should have answered there."""
    meant: dict[str, Expression] = {}
    for expression in correction.expressions:
        regions = tuple(region for region in expression.regions if region not in renamed)
        if regions or not expression.regions:
            meant[expression.cleaned] = replace(expression, regions=regions)
    for region, name in renamed.items():
        there = meant.get(clean(name), Expression(name, (), Edit("corrected")))
        meant[clean(name)] = replace(there, regions=(*there.regions, region), edit=Edit("corrected"))
    return replace(correction, expressions=tuple(meant.values()))


def _with_edits(
    correction: Correction, edit_of: Callable[[Expression, Sequence[DrawnObject]], Edit | None]
) -> Correction:
    """The correction with the edit of each of its expressions; where there is none, by what Label Studio says."""
    objects = {drawn.region: drawn for drawn in correction.objects}
    expressions = []
    for expression in correction.expressions:
        drawn = [objects[region] for region in expression.regions]
        edit = edit_of(expression, drawn) or expression.edit or _by_origin(drawn)
        expressions.append(replace(expression, edit=edit))
    return replace(correction, expressions=tuple(expressions))


def _edit(expression: Expression, drawn: Sequence[DrawnObject], prediction: StoredPrediction | None) -> Edit | None:
    """What was done to the prediction for an expression; None where that can't be compared."""
    proposed = prediction.masks(expression) if prediction else []
    submitted = [drawn_object.mask() for drawn_object in drawn]
    shapes = {mask.shape for mask in (*proposed, *submitted)}
    # There are two shapes where the image was replaced by one of another size.
    if prediction is None or not (proposed or expression.cleaned in prediction.prompts) or len(shapes) > 1:
        return None
    nothing = np.zeros(shapes.pop() if shapes else (1, 1), dtype=np.bool_)
    before, after = (np.logical_or.reduce([nothing, *union]) for union in (proposed, submitted))
    changed = int(np.count_nonzero(before != after))
    kind: EditKind = "accepted" if not changed else "manual" if not proposed else "corrected" if drawn else "rejected"
    return Edit(kind, mask_iou(before, after), changed, version=prediction.version)


def _by_origin(drawn: Sequence[DrawnObject]) -> Edit:
    origins = {drawn_object.origin for drawn_object in drawn}
    if origins == {_PREDICTED}:
        return Edit("accepted")
    return Edit("corrected" if origins & {_PREDICTED, _CHANGED} else "manual")


def _is_unmeasured(correction: Correction, entries: Mapping[str, Any]) -> bool:
    """Whether there may be a prediction that the correction hasn't been compared with."""
    proposed = any(drawn.origin in (_PREDICTED, _CHANGED) for drawn in correction.objects)
    if correction.parent_prediction is None and not proposed:
        return False
    return annotation_key(correction) not in entries


def _recalled(correction: Correction, entries: Mapping[str, Mapping[str, Any]]) -> Correction:
    """The correction with what it rejects and its edits as the ledger has them."""

    def edit_of(expression: Expression, drawn: Sequence[DrawnObject]) -> Edit | None:
        entry = next((entries[key] for key in edit_keys(correction, expression) if key in entries), None)
        if entry is None:
            return None
        # As it was called before it had a name of its own.
        is_rejected = not drawn and entry["kind"] == "corrected"
        return Edit(**{**entry, "kind": "rejected"} if is_rejected else entry)

    entry, expressions = entries.get(annotation_key(correction)), list(correction.expressions)
    if entry:
        edits = {expression.cleaned: expression.edit for expression in expressions}
        meant = [Expression(prompt, tuple(regions)) for prompt, regions in entry["meant"]]
        expressions = [replace(expression, edit=edits.get(expression.cleaned)) for expression in meant]
    else:
        # Of what was typed and isn't there, measured while an annotation without a mask said so.
        silent = [Expression(prompt, ()) for prompt in correction.unanswered]
        expressions += [said for said in silent if (edit := edit_of(said, ())) and edit.kind == "rejected"]
    return _with_edits(replace(correction, expressions=tuple(expressions)), edit_of)


def _fields(edit: Edit) -> dict[str, Any]:
    return {name: value for name, value in asdict(edit).items() if value is not None}
