"""A picture of a dataset as a task of Label Studio: its regions, as the labelling interface can hold them. Pure.

A mask goes into one tag that has its label: a brush, else a bitmask, else polygons along the edges of its pixels. All
three are exact. A box goes into a rectangle tag that has its label, else it becomes a filled mask. Each sentence is
noted on the regions that it means (`meta.text`, a line "prompt: ..."). One that means nothing is said by typing it
and making the choice "absent"; where that would be read as something else, by a mask erased to the last pixel.

What was built is read back as `backend.datasets.annotations` reads what people annotate. Where it doesn't say the
same, that is a finding.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from backend.datasets.annotations import read_task
from backend.datasets.imports.folders import Finding, FoundObject, FoundPicture, FoundSentence
from backend.errors import BadRequest, ConfigError
from backend.labelstudio.label_config import UNLABELLED, Label, LabelConfig, MaskControl
from backend.labelstudio.regions import (
    Region,
    absent_regions,
    control_for_masks,
    erased_region,
    mask_regions,
    prompt_region,
)
from backend.labelstudio.task_data import look_up
from backend.prompts.text import clean
from ris_core.errors import DatasetError
from ris_core.files import sha256
from ris_core.masks import Mask, bounding_box, encode_rle, segmentation_to_mask

ImportKind = Literal["annotations", "predictions"]
Json = dict[str, Any]

_ORIGINS = ("manual", "prediction", "prediction-changed")
_ID_DIGITS = 12
# Coordinates further out, in sides of the picture, are nobody's drawing, and would take COCO's fill all memory.
_FAR = 10
_DAMAGED = (DatasetError, KeyError, TypeError, ValueError, OverflowError, RuntimeError, IndexError, AttributeError)


@dataclass
class PictureResult:
    """What becomes of a picture. regions: of an annotation or a prediction, None for neither. counts: by what it is."""

    regions: list[Region] | None
    is_ground_truth: bool = False
    score: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class _Drawn:
    """An object and the tag that takes it. mask: HxW bool. in_rectangle: it is no mask there, but a shape."""

    found: FoundObject
    region: str
    mask: Mask
    label: Label | None
    control: MaskControl
    in_rectangle: bool


def task_data(config: LabelConfig, address: str, key: str) -> Json:
    """A task's data: the picture's address where the interface looks for it, and `ris_import`, by which it is known.

    Raises ConfigError if the interface looks for it where nothing can be put.
    """
    data = _nested(config.image.key, address)
    if look_up(data, config.image.key) != address:
        raise ConfigError(
            f'Pictures can\'t be put where the Image tag looks: value="${config.image.key}". Simplify it.'
        )
    return {**data, "ris_import": key}


def build_task(picture: FoundPicture, size: tuple[int, int], config: LabelConfig, kind: ImportKind) -> PictureResult:
    """What is drawn and said in a picture of `size` (height, width), for that labelling interface.

    An annotation is read back, and what would be read otherwise is among the findings. Raises ConfigError if the
    interface has no tag for masks.
    """
    result = PictureResult([], counts=Counter())
    drawn = list(_drawn(picture, size, config, result))
    sentences = _sentences(picture, drawn, result)
    notes = _notes(sentences)
    regions = [region for thing in drawn for region in _regions(thing, notes.get(thing.found.number, ()), config, kind)]
    absent = [sentence for sentence in sentences if not sentence.objects]
    result.counts["sentences"] += len(sentences)
    result.counts["absent sentences"] += len(absent)
    truths = [thing.found.provenance.get("ground_truth") for thing in drawn]
    result.is_ground_truth = bool(truths) and all(truth is True for truth in truths)
    if kind == "predictions":
        result.regions = _prediction(regions, sentences, size, config)
        result.score = min(filter(None, (_score(thing.found) for thing in drawn)), default=None)
    else:
        result.regions = _annotation(picture, size, config, drawn, sentences, regions, result)
    return result


def _drawn(
    picture: FoundPicture, size: tuple[int, int], config: LabelConfig, result: PictureResult
) -> Iterator[_Drawn]:
    taken: set[str] = set()
    for found in picture.objects:
        try:
            mask, is_box = _mask(found, size)
        except _DAMAGED as error:
            result.findings.append(
                Finding("annotation", picture.name, f"annotation {found.number}: {_sentence(error)}")
            )
            continue
        if not mask.any():
            result.findings.append(Finding("annotation", picture.name, f"annotation {found.number} covers no pixel"))
            continue
        label = None if found.category == UNLABELLED else config.label(found.category)
        rectangle = _rectangle(config, label) if is_box or _is_exact_box(found, mask) else None
        region = str(found.provenance.get("region") or sha256(f"{picture.name}|{found.number}".encode())[:_ID_DIGITS])
        while region in taken:
            region = f"{region}+"
        taken.add(region)
        result.counts["masks"] += rectangle is None
        result.counts["crowds"] += found.is_crowd
        result.counts["rectangles"] += rectangle is not None
        result.counts["boxes as masks"] += is_box and rectangle is None
        result.counts["shapes as masks"] += bool(found.provenance.get("shape")) and rectangle is None
        yield _Drawn(found, region, mask, label, rectangle or _control(config, label), rectangle is not None)


def _mask(found: FoundObject, size: tuple[int, int]) -> tuple[Mask, bool]:
    """An object's mask, and whether nothing but its box is known. Raises one of _DAMAGED."""
    height, width = size
    if found.segmentation is not None:
        if isinstance(found.segmentation, list):
            _check_polygons(found.segmentation, max(size))
        return segmentation_to_mask(found.segmentation, height, width), False
    if found.box is None:
        raise DatasetError("has neither a mask nor a box")
    left, top, across, down = found.box
    mask = np.zeros(size, dtype=np.bool_)
    # The pixels whose centres the box encloses.
    columns, rows = (
        np.clip(np.ceil(np.array(ends) - 0.5), 0, None) for ends in ((left, left + across), (top, top + down))
    )
    mask[slice(*rows.astype(int)), slice(*columns.astype(int))] = True
    return mask, True


def _check_polygons(segmentation: Sequence[Any], side: int) -> None:
    for part in segmentation:
        if isinstance(part, dict):
            continue
        if len(part) % 2:
            raise DatasetError("has a polygon with an odd number of coordinates")
        if not (np.abs(np.asarray(part, dtype=np.float64)) <= _FAR * side).all():
            raise DatasetError("has a polygon far outside its picture")


def _is_exact_box(found: FoundObject, mask: Mask) -> bool:
    return found.provenance.get("shape") == "rectangle" and int(mask.sum()) == np.prod(bounding_box(mask)[2:])


def _rectangle(config: LabelConfig, label: Label | None) -> MaskControl | None:
    shown = config.shown_in(label) if label else []
    return next((control for control, _ in shown if control.kind == "rectangle"), None)


def _control(config: LabelConfig, label: Label | None) -> MaskControl:
    if label is None:
        return control_for_masks(config)
    return control_for_masks(replace(config, controls=tuple(control for control, _ in config.shown_in(label))))


def _sentences(picture: FoundPicture, drawn: Sequence[_Drawn], result: PictureResult) -> list[FoundSentence]:
    """Each sentence once, with all that it means: those of one spelling are one expression."""
    known = {thing.found.number for thing in drawn}
    meant: dict[str, FoundSentence] = {}
    for sentence in picture.sentences:
        name = clean(sentence.text)
        if not name or not set(sentence.objects) <= known:
            why = "has no word" if not name else "means an annotation that isn't imported"
            result.findings.append(Finding("sentence", picture.name, f'"{sentence.text}" {why}'))
            continue
        before = meant.setdefault(name, sentence)
        if set(before.objects) != set(sentence.objects):
            meant[name] = replace(before, objects=tuple(dict.fromkeys((*before.objects, *sentence.objects))))
            reason = f'"{sentence.text}" is said of different things: it comes as one sentence that means all of them'
            result.findings.append(Finding("sentence", picture.name, reason))
    return list(meant.values())


def _notes(sentences: Sequence[FoundSentence]) -> Mapping[int, list[str]]:
    notes: dict[int, list[str]] = defaultdict(list)
    for sentence in sentences:
        for number in sentence.objects:
            notes[number].append(sentence.text)
    return notes


def _regions(thing: _Drawn, sentences: Sequence[str], config: LabelConfig, kind: ImportKind) -> list[Region]:
    """An object's regions: one, but of a polygon tag one a part."""
    control = replace(thing.control, objects="one", tolerance=0.0, smallest=0.0)
    first, *further = sentences or [""]
    score = _score(thing.found)
    notes = [f"prompt: {sentence}" for sentence in further] + ["a crowd"] * thing.found.is_crowd
    label = thing.label and control.label(thing.label.value)
    regions = mask_regions(
        replace(config, controls=(control,)), label, thing.mask, 1.0 if score is None else score, first, notes
    )
    origin = thing.found.provenance.get("origin")
    for number, region in enumerate(regions, start=1):
        region["id"] = thing.region if number == 1 else f"{thing.region}-{number}"
        region["origin"] = "prediction" if kind == "predictions" else origin if origin in _ORIGINS else "manual"
        if score is None:
            del region["score"]
        if not region["meta"]["text"][0]:
            region["meta"] = {}
        if len(regions) > 1:
            region["meta"]["answer"] = thing.region
        elif first and control.kind != "polygon":
            # One answer's masks are kept beside each other, however much they overlap.
            region["meta"]["answer"] = sha256(f"{clean(first)}|{control.name}".encode())[:_ID_DIGITS]
    if thing.in_rectangle and thing.found.box is not None and thing.found.segmentation is None:
        regions[0]["value"] |= _percent(thing.found.box, *thing.mask.shape)
    return regions


def _score(found: FoundObject) -> float | None:
    score = found.provenance.get("score") if found.score is None else found.score
    return float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None


def _percent(box: Sequence[float], height: int, width: int) -> dict[str, float]:
    """A box in pixels as a rectangle within the picture, in percent of it."""
    left, top = max(0.0, float(box[0])), max(0.0, float(box[1]))
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    return {
        "x": 100 * left / width,
        "y": 100 * top / height,
        "width": 100 * (right - left) / width,
        "height": 100 * (bottom - top) / height,
    }


def _prediction(
    regions: list[Region], sentences: Sequence[FoundSentence], size: tuple[int, int], config: LabelConfig
) -> list[Region] | None:
    """As the model answers: what was asked for is typed."""
    typed = [sentence.text for sentence in sentences]
    if typed and config.prompt:
        regions = [*regions, prompt_region(config, size, *typed)]
    return regions or None


def _annotation(
    picture: FoundPicture,
    size: tuple[int, int],
    config: LabelConfig,
    drawn: Sequence[_Drawn],
    sentences: Sequence[FoundSentence],
    regions: list[Region],
    result: PictureResult,
) -> list[Region] | None:
    """The first way to say what isn't there that reads back as it was meant; with findings if none does."""
    if not (regions or sentences or picture.is_annotated):
        return None
    absent = [sentence for sentence in sentences if not sentence.objects]
    whole, faults = regions, [] if not absent else [Finding("sentence", picture.name, "")]
    for say in _ways(absent, size, config):
        try:
            whole = [*regions, *say()]
        except BadRequest as error:
            faults = faults if faults and faults[0].reason else [Finding("sentence", picture.name, str(error))]
            continue
        faults = list(_faults(picture, config, drawn, sentences, whole))
        if not faults:
            break
    result.findings += faults
    return whole


def _ways(
    absent: Sequence[FoundSentence], size: tuple[int, int], config: LabelConfig
) -> Iterator[Callable[[], list[Region]]]:
    """The ways to say of sentences that they mean nothing: as it came about, all by the choice, all erased."""
    if not absent:
        yield list
        return
    texts = [sentence.text for sentence in absent]
    rejected = [sentence.text for sentence in absent if sentence.origin == "rejected"]
    others = [text for text in texts if text not in rejected]

    def erased(sentences: Sequence[str]) -> list[Region]:
        controls = [control for control in config.controls if control.kind in ("brush", "bitmask")]
        if sentences and not controls:
            return absent_regions(config, size, sentences)
        named = [(erased_region(controls[0], size, text), sha256(text.encode())[:_ID_DIGITS]) for text in sentences]
        return [{**region, "id": name} for region, name in named]

    yield lambda: erased(rejected) + (absent_regions(config, size, others) if others else [])
    yield lambda: absent_regions(config, size, texts)
    yield lambda: erased(texts)


def _faults(
    picture: FoundPicture,
    config: LabelConfig,
    drawn: Sequence[_Drawn],
    sentences: Sequence[FoundSentence],
    regions: list[Region],
) -> Iterator[Finding]:
    """What an annotation of these regions doesn't say as the dataset does. Rectangles aren't looked at."""
    annotation = {"id": 1, "result": regions}
    try:
        correction = read_task({"id": 1, "data": task_data(config, "a", ""), "annotations": [annotation]}, config)
    except BadRequest as error:
        yield Finding("annotation", picture.name, str(error))
        return
    assert correction is not None
    things = {thing.region: thing for thing in drawn if not thing.in_rectangle}
    names = {thing.found.number: thing.region for thing in things.values()}
    read = {found.region: found for found in correction.objects}
    for region, thing in things.items():
        if region not in read or dict(read[region].rle) != encode_rle(thing.mask):
            reason = f"annotation {thing.found.number} is read otherwise in this labelling interface"
            yield Finding("annotation", picture.name, reason)
    said = {expression.cleaned: expression for expression in correction.expressions}
    for sentence in sentences:
        meant = {names[number] for number in sentence.objects if number in names}
        expression = said.pop(clean(sentence.text), None)
        if bool(sentence.objects) == bool(meant) and (
            expression is None or set(expression.regions) & set(things) != meant
        ):
            yield Finding("sentence", picture.name, f'"{sentence.text}" is read otherwise in this labelling interface')
    for expression in said.values():
        yield Finding("sentence", picture.name, f'this labelling interface makes "{expression.prompt}" of it, too')


def _nested(key: str, address: str) -> Any:
    """Task data in which `photo.url` or `images[0]` is the address."""
    value: Any = address
    for step in reversed([step for step in key.replace("[", ".").replace("]", "").split(".") if step]):
        # A list of which only a later one is shown would need pictures before it.
        value = ([value] if step == "0" else None) if step.isdecimal() else {step: value}
    return value if isinstance(value, dict) else {}


def _sentence(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, DatasetError) else f"can't be read ({error!r})"
