"""Which of the masks in the editor a click or a box is about. Knows no HTTP, files or model.

Label Studio doesn't tell, so where it was drawn decides, in this order:
1. it is sent together with something that was answered before (without Auto-Accept Suggestions): that answer;
2. a region was selected: the one of its label that is there, else the nearest;
3. it is in a mask: that one;
4. the last answer, if it was to a sentence that nobody pointed at yet; if a click is between its ends; if a box holds
   all that was clicked for it;
5. a point beside the thing alone: the last answer.
Else it is about a thing of its own. With the label that it was drawn with it is never about a mask of another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.errors import RegionError
from backend.labelstudio.json_values import objects_in
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.regions import Region, read_annotation, regions_of
from backend.prompts.geometry import GeometricPrompt
from ris_core.inference.prompt import Box, Point
from ris_core.masks import Mask, bounding_box

# The editor saves what is drawn after five seconds; what a draft lacks by then was deleted.
_SAVED = 12.0


@dataclass(frozen=True, eq=False)
class MaskInEditor:
    """A mask that stands in the editor, and what it came from as far as that is known.

    ids: of its regions, by their tag's name. label: a label's value. mask: HxW bool, None where nothing was found.
    sentence, points, box: what it answers. keys: the ids of what was drawn for it. spoken: it is what the model says
    to the sentence alone. origin: Label Studio's, of its regions. held: what was drawn for it stayed there, so
    suggestions aren't accepted by themselves. when: on `time.monotonic`'s clock, when it was answered.
    """

    ids: Mapping[str, tuple[str, ...]]
    label: str | None
    mask: Mask | None
    sentence: str = ""
    points: tuple[Point, ...] = ()
    box: Box | None = None
    keys: frozenset[str] = frozenset()
    spoken: bool = False
    origin: str = "prediction"
    held: bool = False
    when: float = field(default_factory=time.monotonic)

    @property
    def area(self) -> int:
        """In pixels."""
        return 0 if self.mask is None else int(np.count_nonzero(self.mask))

    def holds(self, point: Point) -> bool:
        """Whether the point is in the mask."""
        if self.mask is None:
            return False
        height, width = self.mask.shape
        row, column = min(int(point.y * height), height - 1), min(int(point.x * width), width - 1)
        return bool(self.mask[max(row, 0), max(column, 0)])

    def distance(self, point: Point) -> float:
        """From the point to the box around the mask, in shares of the picture; 0 inside."""
        if self.mask is None or not self.mask.any():
            return 2.0
        height, width = self.mask.shape
        left, top, across, down = bounding_box(self.mask)
        right = max(left / width - point.x, 0.0, point.x - (left + across) / width)
        below = max(top / height - point.y, 0.0, point.y - (top + down) / height)
        return float(np.hypot(right, below))


def find_mended(
    geometry: GeometricPrompt, label: str | None, answers: Sequence[MaskInEditor], drawn: Sequence[MaskInEditor]
) -> MaskInEditor | None:
    """The mask that was meant, see above; None if it is a thing of its own.

    label: the value of the one drawn with. answers: the latest of this picture, oldest first. drawn: what else stands
    there.
    """
    if together := [answer for answer in answers if answer.keys & geometry.keys]:
        return together[-1]
    masks = [mask for mask in (*answers, *drawn) if label is None or mask.label in (label, None)]
    where = _middles(geometry)
    if not masks or not where:
        return None
    if geometry.selected:
        own = [mask for mask in masks if mask.label == label]
        return min(own, key=lambda mask: (not mask.holds(where[-1]), mask.distance(where[-1])), default=None)
    holding = [mask for mask in masks if geometry.points and mask.holds(where[-1])]
    if holding:
        return min(holding, key=lambda mask: mask.area)
    last = answers[-1] if answers and answers[-1] in masks else None
    if not geometry.positive:
        return last or min(masks, key=lambda mask: mask.distance(where[-1]))
    return last if last and _continues(geometry, last) else None


def _continues(geometry: GeometricPrompt, last: MaskInEditor) -> bool:
    if last.sentence and not last.keys:
        return True
    if geometry.box:
        return bool(last.points) and all(not point.positive or inside(point, geometry.box) for point in last.points)
    return last.distance(geometry.points[-1]) == 0


def inside(point: Point, box: Box) -> bool:
    """Whether the point is in the box, its edge included."""
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom


def _middles(geometry: GeometricPrompt) -> list[Point]:
    """The points, and the middle of each rectangle, in the order in which they were drawn."""
    boxes = [rectangle.box(geometry.size or (1, 1)) for rectangle in geometry.rectangles]
    return [*geometry.points, *(Point((box.left + box.right) / 2, (box.top + box.bottom) / 2) for box in boxes)]


def still_there(answers: Iterable[MaskInEditor], task: Mapping[str, Any], config: LabelConfig) -> list[MaskInEditor]:
    """Those of the latest answers that nobody deleted, painted on or gave another label, as far as the draft says."""
    drafts = objects_in(task.get("drafts"))
    drawn = {str(region.get("id")): region for draft in drafts for region in regions_of(draft.get("result"))}
    kept = []
    for answer in answers:
        ids = [name for names in answer.ids.values() for name in names]
        regions = [drawn[name] for name in ids if name in drawn]
        saved = bool(drafts) and time.monotonic() - answer.when > _SAVED
        touched = saved and any(_is_touched(region, answer, config) for region in regions)
        if not touched and (regions or not saved or not ids):
            kept.append(answer)
    return kept


def masks_of(task: Mapping[str, Any], config: LabelConfig, known: Iterable[MaskInEditor]) -> list[MaskInEditor]:
    """What stands in the editor besides `known`, as its draft, else the annotation, else the prediction says."""
    taken = {name for answer in known for names in answer.ids.values() for name in names}
    result = regions_of(_shown(task).get("result"))
    try:
        masks = read_annotation(result, config).masks
    except RegionError:
        # One region that can't be read shouldn't cost people their click.
        return []
    found = []
    for mask in masks:
        own = [region for region in result if _is_part(region, mask.region_id, mask.answer)]
        ids: dict[str, tuple[str, ...]] = {}
        for region in own:
            tag = str(region.get("from_name"))
            ids[tag] = (*ids.get(tag, ()), str(region.get("id")))
        if taken.isdisjoint(str(region.get("id")) for region in own):
            sentence = "" if mask.shared else mask.prompt or ""
            found.append(MaskInEditor(ids, mask.label, mask.mask, sentence, origin=mask.origin))
    return found


def _is_part(region: Region, name: str, answer: str) -> bool:
    if str(region.get("id")) == name:
        return True
    meta = region.get("meta")
    return isinstance(meta, dict) and meta.get("answer") == answer


def _shown(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the editor shows of a task, the newest of its kind."""
    for name in ("drafts", "annotations", "predictions"):
        rows = objects_in(task.get(name))
        if rows:
            return max(rows, key=lambda row: str(row.get("updated_at") or row.get("created_at") or ""))
    return {}


def _is_touched(region: Region, answer: MaskInEditor, config: LabelConfig) -> bool:
    """Whether a person changed it since. Of an outline that was moved Label Studio doesn't note it."""
    value = region.get("value")
    stored = value.get(str(region.get("type"))) if isinstance(value, dict) else None
    labels = [config.label(str(name)) for name in stored or ()]
    return region.get("origin") != answer.origin or [label.value for label in labels if label] != (
        [answer.label] if answer.label else []
    )
