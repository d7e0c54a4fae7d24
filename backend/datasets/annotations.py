"""What people say in a project's annotations: the objects they drew, and which sentence means which of them.

Pure functions over the JSON of Label Studio's API. Knows no HTTP, no files and no model. What each gesture means, and
why, is in docs/gestures.md; which offered regions were deleted, `backend.datasets.edits` finds out.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from backend.errors import BadRequest
from backend.labelstudio.label_config import UNLABELLED, LabelConfig, label_name
from backend.labelstudio.regions import AnnotatedMask, AnnotatedMasks, Shape, Tell, read_annotation, says_where
from backend.labelstudio.task_data import group_of, image_address
from backend.prompts.label_matching import find_label
from backend.prompts.request import PromptRequest
from backend.prompts.requests import RequestBuilder
from backend.prompts.text import clean
from ris_core.errors import PromptError
from ris_core.masks import Mask, decode_rle, iou

EditKind = Literal["accepted", "corrected", "manual", "rejected", "taught"]

# Two answers to one prompt whose masks agree more than this were asked for twice; parts of one answer don't overlap.
_SAME = 0.5
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Edit:
    """What an annotator did to a prediction, see `backend.datasets.edits`.

    kind: "accepted" (not a pixel is other), "corrected", "rejected" (nothing is left of it), "manual" (nothing was
    predicted), or "taught" (a model's answer that no annotator saw). iou, changed_pixels: of the prediction and what
    was submitted; None where there is nothing to compare with. version: of the prediction.
    """

    kind: EditKind
    iou: float | None = None
    changed_pixels: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class DrawnObject:
    """One drawn mask, at the image's size after EXIF. rle: COCO's compressed run lengths, exact.

    label: a label's value; where the mask has none, the one that its sentence names; without a sentence, "unlabelled".
    origin: Label Studio's "manual", "prediction" (accepted as it was) or "prediction-changed". score: of the answer
    that it is or was, 0..1, where the annotation still has it. shape: "rectangle" or "ellipse" where that is filled,
    which is no mask of a thing. sources: the annotations whose consensus it is.
    """

    region: str
    label: str
    rle: Mapping[str, Any]
    origin: str
    score: float | None = None
    shape: str = ""
    sources: tuple[int, ...] = ()

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
    """The annotation of one task that counts. image: its address in the task's data. lead_time: seconds of work.

    unanswered: sentences that were asked for, and of which it says nothing. shapes: what is drawn, but is no mask.
    remarks: for the people who look after the project. group: what it shares with those in the same split, "" nothing.
    """

    task: int
    annotation: int
    image: str
    objects: tuple[DrawnObject, ...]
    expressions: tuple[Expression, ...]
    parent_prediction: int | None = None
    completed_by: int | None = None
    ground_truth: bool = False
    lead_time: float | None = None
    unanswered: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    remarks: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Offer:
    """A mask that was proposed: the sentence that it answered, None if that isn't known, and its label."""

    prompt: str | None
    label: str | None

    @property
    def sentence(self) -> str:
        """What was asked for: the sentence, or the label's name."""
        return self.prompt or sentence_of(self.label)

    @property
    def is_by_name(self) -> bool:
        """Whether the label was asked for by its name, so that another label makes it another thing."""
        return clean(self.sentence) == clean(sentence_of(self.label))


def sentence_of(label: str | None) -> str:
    """What asks for a label by its name."""
    return (label or "").replace("_", " ")


@dataclass(frozen=True)
class SkippedTask:
    """A task that is left out, or of which something is, and why."""

    task: int
    reason: str


@dataclass(frozen=True)
class Corrections:
    """A project's corrections and the tasks that couldn't be read, both by rising task id."""

    items: tuple[Correction, ...]
    skipped: tuple[SkippedTask, ...]

    @property
    def remarks(self) -> tuple[SkippedTask, ...]:
        """The corrections' remarks."""
        return tuple(SkippedTask(item.task, remark) for item in self.items for remark in item.remarks)


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
    annotations = task.get("annotations") or []
    annotation = chosen_annotation(annotations)
    if annotation is None:
        return None
    return with_disagreement(read_submitted(task, annotation, config), annotation, annotations)


def with_disagreement(
    correction: Correction, annotation: Mapping[str, Any], annotations: Iterable[Mapping[str, Any]]
) -> Correction:
    """The correction, which the annotation is read as, with a remark on each later one in which nothing is drawn."""
    return replace(correction, remarks=(*correction.remarks, *_disagreements(annotation, annotations)))


def read_submitted(
    task: Mapping[str, Any], annotation: Mapping[str, Any], config: LabelConfig, tell: Tell | None = None
) -> Correction:
    """What one of a task's annotations says.

    tell: called with what is wrong with a region, which is left out; of shapes that aren't masks nothing is said then.
    Without it, the first region that can't be read raises RegionError. Raises BadRequest if the task has no image where
    the interface looks.
    """
    read, own = read_annotation(annotation.get("result"), config, tell), _own_requests(task, config)
    for mask in read.masks:
        # What was offered and erased is an answer.
        if tell and mask.is_empty and not _was_offered(mask):
            tell("empty", mask.region_id, f"Region {mask.region_id} has no pixel: it is left out.")
    masks = [mask for mask in read.masks if not mask.is_empty]
    spoken = _once(masks, _sentences(masks, read, own, config))
    masks = [mask for mask, _ in spoken]
    objects = _objects(masks, config)
    expressions = _drawn(objects, [(sentence, *mask.also) for mask, sentence in spoken])
    said = {expression.cleaned for expression in expressions}
    asked = _first_spelling(read.prompts or [request.prompt for request in own])
    unanswered = [prompt for sentence, prompt in asked.items() if sentence not in said]
    # Where the interface has no gesture for it, a blank annotation says so of what the task itself asks for.
    if read.absent or (read.blank and config.absent is None):
        labels = {request.prompt: request.label for request in own}
        labels = {prompt: labels.get(prompt) or find_label(prompt, config).label for prompt in unanswered}
        absent = [prompt for prompt in unanswered if not _is_marked(label_name(labels[prompt]), read.shapes)]
        expressions += tuple(Expression(prompt, ()) for prompt in absent)
        unanswered = [prompt for prompt in unanswered if prompt not in absent]
    person = annotation.get("completed_by")
    person = person.get("id") if isinstance(person, dict) else person
    correction = Correction(
        task=int(task["id"]),
        annotation=int(annotation["id"]),
        image=image_address(task, config),
        objects=objects,
        expressions=expressions,
        parent_prediction=annotation.get("parent_prediction"),
        completed_by=person if isinstance(person, int) else None,
        ground_truth=bool(annotation.get("ground_truth")),
        lead_time=annotation.get("lead_time"),
        unanswered=tuple(unanswered),
        shapes=read.shapes,
        remarks=tuple(_remarks(masks, read if tell is None else replace(read, shapes=()))),
        group=group_of(task, config),
    )
    erased = [Offer(mask.prompt, mask.label) for mask in read.masks if mask.is_empty and _was_offered(mask)]
    return with_rejections(correction, erased, frozenset(), Edit("rejected", 0.0))


def something_is_drawn(annotation: Mapping[str, Any]) -> bool:
    """Whether anything is drawn in an annotation as the API gives it, `result` included."""
    return says_where(annotation.get("result"))


def chosen_annotation(
    annotations: Sequence[Mapping[str, Any]], is_drawn: Callable[[Mapping[str, Any]], bool] = something_is_drawn
) -> Mapping[str, Any] | None:
    """The annotation that counts; None if all were skipped.

    Ground truth first, then the one updated last. One in which nothing is drawn gives way to another person's in which
    something is. is_drawn: whether anything is, for annotations that come without their `result`.
    """
    last = max(submitted(annotations), key=precedence, default=None)
    if last is None or last.get("ground_truth") or is_drawn(last):
        return last
    drawn = [annotation for annotation in last_of_people(annotations) if is_drawn(annotation)]
    return max(drawn, key=precedence, default=last)


def submitted(annotations: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The annotations but the skipped ones."""
    return [annotation for annotation in annotations if not annotation.get("was_cancelled")]


def last_of_people(annotations: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each person the last annotation by `precedence`: who empties an annotation takes back what they drew."""
    return list({person_of(item): item for item in sorted(submitted(annotations), key=precedence)}.values())


def with_rejections(
    correction: Correction, offers: Iterable[Offer], offered_regions: Collection[str], edit: Edit | None
) -> Correction:
    """The correction with what its annotation says of offers that nothing is left of.

    An offer's sentence isn't in the picture, unless something new is drawn: another mask of its label without a
    sentence is what it should have been; any other such mask, or a shape, only says that something is there.
    offered_regions: the ids of the prediction's regions, which aren't new. edit: of what is rejected.
    """
    said = {expression.cleaned for expression in correction.expressions}
    spoken_for = {region for expression in correction.expressions for region in expression.regions}
    missing: dict[str, list[Offer]] = {}
    for offer in offers:
        if (sentence := clean(offer.sentence)) and sentence not in said:
            missing.setdefault(sentence, []).append(offer)
    claims = Counter(label for group in missing.values() for label in {offer.label for offer in group})
    added = []
    for group in missing.values():
        labels = {offer.label for offer in group}
        new = [
            drawn
            for drawn in correction.objects
            if drawn.region.partition("#")[0] not in offered_regions and drawn.label in (*labels, UNLABELLED)
        ]
        free = [drawn.region for drawn in new if drawn.region not in spoken_for and drawn.label in labels]
        if all(offer.is_by_name for offer in group):
            free = [drawn.region for drawn in new if drawn.label in labels]
        if free and all(claims[label] == 1 for label in labels):
            added.append(Expression(group[0].sentence, tuple(free)))
        elif not new and not any(_is_marked(label, correction.shapes) for label in labels):
            added.append(Expression(group[0].sentence, (), edit))
    told = {expression.cleaned for expression in added}
    return replace(
        correction,
        expressions=(*correction.expressions, *added),
        unanswered=tuple(prompt for prompt in correction.unanswered if clean(prompt) not in told),
    )


def _was_offered(mask: AnnotatedMask) -> bool:
    return mask.origin != "manual" or not (mask.shared or mask.prompt is None)


def _is_marked(label: str | None, shapes: Iterable[Shape]) -> bool:
    """Whether one of the shapes may be where something of that label is."""
    return any(not shape.labels or label in shape.labels for shape in shapes)


def precedence(annotation: Mapping[str, Any]) -> tuple[bool, datetime, int]:
    """By which annotations of one task are ordered: whether it is ground truth, when it was updated, its id."""
    # As text, "02:23Z" would sort after "02:23.85Z": times are compared as times.
    updated = annotation.get("updated_at") or annotation.get("created_at")
    when = datetime.fromisoformat(updated) if updated else _NEVER
    return bool(annotation.get("ground_truth")), when, int(annotation["id"])


def person_of(annotation: Mapping[str, Any]) -> str:
    """Whose annotation it is, by the person's id; "None" where that isn't known."""
    person = annotation.get("completed_by")
    # Some of Label Studio's answers describe the person, who may change.
    return str(person.get("id") if isinstance(person, dict) else person)


def _own_requests(task: Mapping[str, Any], config: LabelConfig) -> list[PromptRequest]:
    """What the task itself asks for."""
    # Data that can't be asked for doesn't spoil what a person drew.
    with suppress(PromptError):
        return RequestBuilder(config).for_batch(task)
    return []


def _remarks(masks: Sequence[AnnotatedMask], read: AnnotatedMasks) -> Iterator[str]:
    labels = {mask.label for mask in masks}
    kinds = {shape.kind for shape in read.shapes if not (shape.labels & labels or (masks and not shape.labels))}
    if kinds:
        yield f"left out: shapes that aren't masks: {', '.join(sorted(kinds))}"
    for mask in masks:
        if mask.further:
            further = ", ".join(mask.further)
            yield f"region {mask.region_id} has several labels: {mask.label} counts, left out: {further}"


def _disagreements(annotation: Mapping[str, Any], annotations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for other in annotations if says_where(annotation.get("result")) else ():
        is_later = not other.get("was_cancelled") and precedence(other) > precedence(annotation)
        if is_later and person_of(other) != person_of(annotation) and not says_where(other.get("result")):
            yield (
                f"people disagree: annotation {other['id']} came later and has nothing drawn, annotation "
                f"{annotation['id']} has, and counts. Look again, and mark the right one as ground truth"
            )


def _once(masks: Sequence[AnnotatedMask], sentences: Sequence[str | None]) -> list[tuple[AnnotatedMask, str | None]]:
    """The masks with their sentences, but copies, and answers that nobody touched before asking for the same again."""
    kept: list[tuple[AnnotatedMask, str | None]] = []
    for mask, sentence in zip(masks, sentences, strict=True):
        alike = [pair for pair in kept if sentence and clean(pair[1] or "") == clean(sentence)]
        if any(np.array_equal(other.mask, mask.mask) for other, _ in alike):
            continue
        kept = [pair for pair in kept if pair not in alike or not _is_asked_again(pair[0], mask)]
        kept.append((mask, sentence))
    return kept


def _is_asked_again(before: AnnotatedMask, after: AnnotatedMask) -> bool:
    if before.origin != "prediction" or after.origin == "manual" or before.answer == after.answer:
        return False
    return (
        before.label == after.label and before.mask.shape == after.mask.shape and iou(before.mask, after.mask) > _SAME
    )


def _sentences(
    masks: Sequence[AnnotatedMask], read: AnnotatedMasks, own: Sequence[PromptRequest], config: LabelConfig
) -> list[str | None]:
    """The sentence of each mask: its own, else the one typed or the task's, unless that is about another label."""
    typed = list(_first_spelling(read.prompts).values())
    prompt = typed[-1] if len(typed) == 1 or (typed and len(masks) == 1) else None
    request = own[0] if len(own) == 1 and prompt is None else None
    prompt = request.prompt if request else prompt
    without = [mask for mask in masks if mask.shared]
    if not prompt or not without:
        return [None if mask.shared else mask.prompt for mask in masks]
    # What carries the sentence already says which label it is about.
    labels = {mask.label for mask in masks if not mask.shared and clean(mask.prompt or "") == clean(prompt)}
    match = find_label(prompt, config)
    known, note = (request.label, request.notes) if request else (match.label, match.note)
    if not labels:
        labels = {mask.label for mask in without if mask.label} if note else {label_name(known)}
        labels = labels if len(labels) == 1 else set()
    return [mask.prompt if not mask.shared else prompt if mask.label in (*labels, None) else None for mask in masks]


def _drawn(objects: Sequence[DrawnObject], sentences: Sequence[Sequence[str | None]]) -> tuple[Expression, ...]:
    """One expression a sentence, in the order and with the spelling of the first region that it means."""
    regions: dict[str, list[str]] = {}
    spelling = _first_spelling(filter(None, chain.from_iterable(sentences)))
    for drawn, own in zip(objects, sentences, strict=True):
        for sentence in dict.fromkeys(map(clean, filter(None, own))):
            if sentence:
                regions.setdefault(sentence, []).append(drawn.region)
    return tuple(Expression(spelling[sentence], tuple(meant)) for sentence, meant in regions.items())


def _first_spelling(prompts: Iterable[str]) -> dict[str, str]:
    """Each sentence, cleaned, as it was spelled first."""
    spelling: dict[str, str] = {}
    for prompt in prompts:
        if clean(prompt):
            spelling.setdefault(clean(prompt), prompt)
    return spelling


def _objects(masks: Sequence[AnnotatedMask], config: LabelConfig) -> tuple[DrawnObject, ...]:
    return tuple(
        DrawnObject(region, _label(mask, config), mask.rle(), mask.origin, mask.score)
        for region, mask in zip(_region_ids(masks), masks, strict=True)
    )


def _label(mask: AnnotatedMask, config: LabelConfig) -> str:
    if mask.label:
        return mask.label
    is_named = mask.prompt or len(config.labels) == 1
    return label_name(find_label(mask.prompt or "", config).label if is_named else None)


def _region_ids(masks: Sequence[AnnotatedMask]) -> list[str]:
    """Ids that differ even where an importer gave two regions the same."""
    seen: dict[str, int] = {}
    ids = []
    for mask in masks:
        count = seen[mask.region_id] = seen.get(mask.region_id, 0) + 1
        ids.append(mask.region_id if count == 1 else f"{mask.region_id}#{count}")
    return ids
