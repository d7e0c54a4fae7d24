"""What people say in a project's annotations: the objects they drew, and which sentence means which of them.

Pure functions over the JSON of Label Studio's API. Knows no HTTP, no files and no model.

- Of a task's annotations one counts: a ground truth before others, then the latest; skipped ones never.
- A mask without a pixel isn't there. A mask's sentence is the one that `read_annotation` finds; failing that,
  the task's own sentence, if it has just one.
- A submitted annotation without a mask says that what was asked for isn't in the image: each sentence typed
  in it (or else the task's own) becomes an expression without a target. One with rectangles says nothing of masks.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Literal

from backend.errors import BadRequest
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.regions import AnnotatedMask, AnnotatedMasks, read_annotation
from backend.labelstudio.task_data import image_address
from backend.prompts.label_matching import find_label
from backend.prompts.requests import RequestBuilder
from backend.prompts.text import clean
from ris_core.errors import PromptError
from ris_core.masks import Mask, decode_rle, encode_rle

EditKind = Literal["accepted", "corrected", "manual"]

UNLABELLED = "unlabelled"
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Edit:
    """What an annotator did to a prediction, see `backend.datasets.edits`.

    kind: "accepted" (not a pixel is other), "corrected", or "manual" (nothing was predicted). iou, changed_pixels: of
    the prediction and what was submitted; None where there is nothing to compare with. version: of the prediction.
    """

    kind: EditKind
    iou: float | None = None
    changed_pixels: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class DrawnObject:
    """One drawn mask, at the image's size after EXIF. rle: COCO's compressed run lengths, exact.

    label: a label's value; where the mask has none, the one that its sentence names; without a sentence, "unlabelled".
    origin: Label Studio's "manual", "prediction" (accepted as it was) or "prediction-changed".
    """

    region: str
    label: str
    rle: Mapping[str, Any]
    origin: str

    def mask(self) -> Mask:
        """HxW bool."""
        return decode_rle(dict(self.rle))


@dataclass(frozen=True)
class Expression:
    """A sentence as it was typed, and the regions that it means together. None: it isn't in the image.

    edit: what was done to the prediction for that sentence; None where nobody has measured it.
    """

    prompt: str
    regions: tuple[str, ...]
    edit: Edit | None = None

    @property
    def cleaned(self) -> str:
        """The sentence by which expressions are told apart, see `clean`."""
        return clean(self.prompt)


@dataclass(frozen=True)
class Correction:
    """The annotation of one task that counts. image: its address in the task's data. lead_time: seconds of work."""

    task: int
    annotation: int
    image: str
    objects: tuple[DrawnObject, ...]
    expressions: tuple[Expression, ...]
    parent_prediction: int | None = None
    completed_by: int | None = None
    ground_truth: bool = False
    lead_time: float | None = None


@dataclass(frozen=True)
class SkippedTask:
    """A task that is left out, and why."""

    task: int
    reason: str


@dataclass(frozen=True)
class Corrections:
    """A project's corrections and the tasks that couldn't be read, both by rising task id."""

    items: tuple[Correction, ...]
    skipped: tuple[SkippedTask, ...]


def read_corrections(tasks: Iterable[Mapping[str, Any]], config: LabelConfig) -> Corrections:
    """Read tasks as `GET /api/tasks` gives them, annotations included. One bad task costs that task alone."""
    items: list[Correction] = []
    skipped: list[SkippedTask] = []
    for task in tasks:
        try:
            items += filter(None, [read_task(task, config)])
        except BadRequest as error:
            skipped.append(SkippedTask(int(task["id"]), str(error)))
    by_task = attrgetter("task")
    return Corrections(tuple(sorted(items, key=by_task)), tuple(sorted(skipped, key=by_task)))


def read_task(task: Mapping[str, Any], config: LabelConfig) -> Correction | None:
    """The correction that a task holds, or None if nobody has submitted an annotation.

    Raises RegionError if a mask can't be read, and BadRequest if the task has no image where the interface looks.
    """
    annotation = chosen_annotation(task.get("annotations") or [])
    if annotation is None:
        return None
    read = read_annotation(annotation.get("result"), config)
    masks = [mask for mask in read.masks if mask.mask.any()]
    return Correction(
        task=int(task["id"]),
        annotation=int(annotation["id"]),
        image=image_address(task, config),
        objects=_objects(masks, config),
        expressions=_expressions(masks, read, _own_prompts(task, config)),
        parent_prediction=annotation.get("parent_prediction"),
        completed_by=annotation.get("completed_by"),
        ground_truth=bool(annotation.get("ground_truth")),
        lead_time=annotation.get("lead_time"),
    )


def chosen_annotation(annotations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The annotation that counts: ground truth first, then the one updated last; None if all were skipped."""
    submitted = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    return max(submitted, key=_precedence, default=None)


def _precedence(annotation: Mapping[str, Any]) -> tuple[bool, datetime, int]:
    # As text, "02:23Z" would sort after "02:23.85Z": times are compared as times.
    updated = annotation.get("updated_at") or annotation.get("created_at")
    when = datetime.fromisoformat(updated) if updated else _NEVER
    return bool(annotation.get("ground_truth")), when, int(annotation["id"])


def _own_prompts(task: Mapping[str, Any], config: LabelConfig) -> list[str]:
    """The task's own sentences."""
    # Data that can't be asked for doesn't spoil what a person drew.
    with suppress(PromptError):
        return [request.prompt for request in RequestBuilder(config).for_batch(task)]
    return []


def _expressions(
    masks: Sequence[AnnotatedMask], read: AnnotatedMasks, own_prompts: Sequence[str]
) -> tuple[Expression, ...]:
    """One expression a sentence, in the order and with the spelling of the first."""
    fallback = own_prompts[0] if len(own_prompts) == 1 else None
    meant = [(mask.prompt or fallback, [region]) for region, mask in zip(_region_ids(masks), masks, strict=True)]
    if not masks and not read.boxed:
        meant = [(prompt, []) for prompt in read.prompts or own_prompts]
    by_sentence: dict[str, tuple[str, list[str]]] = {}
    for prompt, regions in meant:
        if prompt and clean(prompt):
            by_sentence.setdefault(clean(prompt), (prompt, []))[1].extend(regions)
    return tuple(Expression(prompt, tuple(regions)) for prompt, regions in by_sentence.values())


def _objects(masks: Sequence[AnnotatedMask], config: LabelConfig) -> tuple[DrawnObject, ...]:
    return tuple(
        DrawnObject(region, _label(mask, config), encode_rle(mask.mask), mask.origin)
        for region, mask in zip(_region_ids(masks), masks, strict=True)
    )


def _label(mask: AnnotatedMask, config: LabelConfig) -> str:
    if mask.label:
        return mask.label
    is_named = mask.prompt or len(config.labels) == 1
    return find_label(mask.prompt or "", config).label.value if is_named else UNLABELLED


def _region_ids(masks: Sequence[AnnotatedMask]) -> list[str]:
    """Ids that differ even where an importer gave two regions the same."""
    seen: dict[str, int] = {}
    ids = []
    for mask in masks:
        count = seen[mask.region_id] = seen.get(mask.region_id, 0) + 1
        ids.append(mask.region_id if count == 1 else f"{mask.region_id}#{count}")
    return ids
