"""Regions of Label Studio's predictions and annotations: built for its editor, and read back. Knows no HTTP.

Which sentence belongs to a mask of a saved annotation, in this order:
1. the sentence that the backend noted on the region when it proposed it (`meta.text`, a line "prompt: ..."); an
   import may note several, a line each;
2. the sentence typed for that very region, where the TextArea is per region (same region id);
3. the sentence typed for the image, if there is only one such sentence;
4. the last sentence typed, if the annotation has only one mask.
Otherwise it is unknown (None): several sentences and several masks can't be told apart.
Several strokes of one label are several regions, and stay separate here. What is drawn with other tags, or on another
Image, is no mask, but says that something is there (`Shape`).

An answer of several regions carries one mark (`meta.answer`), which the editor keeps. Where an answer is shown in
several tags, it is read from one of them: the first that was corrected, else the first that still has it. The
polygons of what is one object come back as one mask.
"""

import math
import secrets
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from backend.errors import BrushError, ConfigError, RegionError
from backend.labelstudio.json_values import is_number
from backend.labelstudio.label_config import Label, LabelConfig, MaskControl, TextAreaControl
from backend.labelstudio.masks import Runs, bitmask, brush
from backend.labelstudio.masks.parts import Part, around, parts_of
from backend.labelstudio.masks.polygon import Ring, fill, polygon
from ris_core.masks import Mask, encode_rle

Region = dict[str, Any]

Tell = Callable[[str, str, str], object]
"""Called with a problem's kind, the region's id, and a sentence for people."""

_NOTE = "prompt: "
_CORRECTED = "prediction-changed"
# What can be drawn on an Image -> what people call it.
_SHAPES = {
    **{kind: kind for kind in ("brush", "bitmask", "polygon", "rectangle", "ellipse", "vector", "cuboid")},
    "keypoint": "key point",
}
# The best to correct first.
_EXACT = ("brush", "bitmask", "polygon")
# A polygon may run over the edge of its image, but not leave it far behind. In percent.
_FAR = 1000.0


@dataclass(frozen=True, eq=False)
class AnnotatedMask:
    """One drawn object, at the image's size: `drawing` is HxW bool, or its runs. `label`: its value (None: no label).

    `region_id` is its region's, of several the first's. `origin` is Label Studio's: "manual", "prediction" (accepted
    as it was) or "prediction-changed". answer: what the regions of one answer have in common. shared: the prompt was
    typed for the image, by rule 3 or 4. further: the labels that it has besides. score: of its answer, where kept.
    also: the sentences noted on it besides `prompt`, as an import does.
    """

    region_id: str
    label: str | None
    drawing: Mask | Runs
    prompt: str | None
    origin: str
    answer: str = ""
    shared: bool = False
    further: tuple[str, ...] = ()
    score: float | None = None
    also: tuple[str, ...] = ()

    @cached_property
    def mask(self) -> Mask:
        """HxW bool."""
        return self.drawing.mask() if isinstance(self.drawing, Runs) else self.drawing

    @property
    def is_empty(self) -> bool:
        """Whether it has no pixel."""
        return not (len(self.drawing.starts) if isinstance(self.drawing, Runs) else self.drawing.any())

    def rle(self) -> dict[str, Any]:
        """COCO's compressed run lengths."""
        return self.drawing.rle() if isinstance(self.drawing, Runs) else encode_rle(self.drawing)


@dataclass(frozen=True)
class Shape:
    """Something drawn that isn't read as a mask: its kind, such as "ellipse", and its labels."""

    kind: str
    labels: frozenset[str]


@dataclass(frozen=True, eq=False)
class AnnotatedMasks:
    """What an annotation says: its masks, and each sentence typed as a prompt once, oldest first.

    shapes: what says that something is there, but not where exactly. absent: it says that what was asked for isn't in
    the picture. blank: it holds nothing, not even a choice or a remark.
    """

    masks: tuple[AnnotatedMask, ...]
    prompts: tuple[str, ...]
    shapes: tuple[Shape, ...] = ()
    absent: bool = False
    blank: bool = False


def mask_regions(
    config: LabelConfig, label: Label | None, mask: Mask, score: float, prompt: str, notes: Sequence[str] = ()
) -> list[Region]:
    """The answer to a prompt as editable regions, in every control that has the label; with none, in the first.

    Where a control shows each object, a region is one connected part (8 neighbours). Polygons always are, and say so
    where several make up one object. Parts below the control's `smallest` are specks: they are left out of polygons,
    rectangles and objects, which say how many, but the largest part stays whatever its size. Specks stay in the brush
    and bitmask regions that show all as one, which are exactly the mask.

    mask: HxW bool, at the image's size after EXIF; an empty one gives no regions. score: 0..1. notes: further lines for
    whoever looks at the region's details. Raises RegionError if the score isn't finite, BrushError for a bad mask.
    """
    if not math.isfinite(score):
        raise RegionError(f'The score of the mask for "{prompt}" is {score}, not a number from 0 to 1.')
    if not mask.any():
        return []
    regions = [
        {
            **_place(control, *mask.shape),
            "score": float(score),
            "value": {**value, control.type: labels},
            # One text: the editor shows several without anything between them.
            "meta": {"text": ["\n".join([*([_NOTE + prompt] if prompt else []), *notes, *remarks])]},
        }
        for control, labels in config.shown_in(label)
        for value, remarks in _values(control, mask)
    ]
    if len(regions) > 1:
        answer = secrets.token_hex(6)
        for region in regions:
            region["meta"]["answer"] = answer
    return regions


def control_for_masks(config: LabelConfig) -> MaskControl:
    """The tag in which a mask stays as it is: a brush, else bitmasks, else polygons. ConfigError if there is none."""
    for kind in _EXACT:
        for control in config.controls:
            if control.kind == kind:
                return control
    raise ConfigError(
        "The labelling interface has only rectangles for this, which hold no mask: add "
        f'<BrushLabels name="brush" toName="{config.image.name}"><Label value="object"/></BrushLabels> to it.'
    )


def prompt_region(config: LabelConfig, size: tuple[int, int], *prompts: str) -> Region:
    """The sentences as submissions to the prompt TextArea, else RegionError; `size`: the image's (height, width)."""
    if config.prompt is None:
        raise RegionError(
            f"The labelling interface has nowhere to type a prompt: add "
            f'<TextArea name="prompt" toName="{config.image.name}"/> to it.'
        )
    return {**_place(config.prompt, *size), "value": {"text": list(prompts)}}


def absent_regions(config: LabelConfig, size: tuple[int, int], sentences: Sequence[str]) -> list[Region]:
    """What an annotation says of sentences that mean nothing in its picture: typed, and the choice "absent" made.

    size: the image's (height, width). Raises RegionError if the labelling interface hasn't both.
    """
    if config.absent is None or not config.absent_choice:
        raise RegionError(
            f"It can't be said in the labelling interface that a thing isn't there: add <Choices name=\"absent\" "
            f'toName="{config.image.name}"><Choice value="Not in this picture"/></Choices> to it.'
        )
    typed = prompt_region(config, size, *sentences)
    choice = {**typed, "id": secrets.token_hex(6), "from_name": config.absent, "type": "choices"}
    return [
        {**region, "origin": "manual"} for region in (typed, {**choice, "value": {"choices": [config.absent_choice]}})
    ]


def erased_region(control: MaskControl, size: tuple[int, int], sentence: str) -> Region:
    """A mask without a label that was erased to the last pixel: its sentence means nothing in its picture.

    control: for a brush or for bitmasks. size: the image's (height, width).
    """
    nothing = np.zeros(size, dtype=np.bool_)
    value = _value(control, Part(nothing, 0, 0), *size)
    noted = {"text": [_NOTE + sentence]}
    return {**_place(control, *size), "origin": "manual", "value": {**value, control.type: []}, "meta": noted}


def answer_region(config: LabelConfig, size: tuple[int, int], sentence: str) -> list[Region]:
    """What the editor says of an answer, in place of what it said before; nothing where it has no such TextArea."""
    box = config.answer
    return [{**_place(box, *size), "readonly": True, "value": {"text": [sentence]}}] if box else []


def typed_prompt(context: Mapping[str, Any] | None, config: LabelConfig) -> str | None:
    """The last sentence submitted to the prompt TextArea, from the context of an interactive request."""
    submitted = _submissions(regions_of((context or {}).get("result")), config)
    return submitted[-1][1] if submitted else None


def read_annotation(result: object, config: LabelConfig, tell: Tell | None = None) -> AnnotatedMasks:
    """Read the `result` of a saved annotation. Regions of other tags are passed over.

    tell: called with what is wrong with a region that can't be read, which is left out. Without it, the first such
    region, named, raises RegionError.
    """
    regions = regions_of(result)
    submitted = _submissions(regions, config)
    prompts = tuple(dict.fromkeys(text for _, text in submitted))
    objects = _objects(regions, config)
    shared = prompts[-1] if len(prompts) == 1 or (prompts and len(objects) == 1) else None
    typed = dict(submitted)
    masks = []
    for control, drawn in objects:
        try:
            masks.append(_annotated_mask(control, drawn, typed.get(_id(drawn[0])), shared))
        except RegionError as error:
            if tell is None:
                raise
            tell("region", _id(drawn[0]), str(error))
    absent = any(
        region.get("from_name") == config.absent and bool(part_of(region, "value").get("choices"))
        for region in regions
        if region.get("type") == "choices"
    )
    return AnnotatedMasks(tuple(masks), prompts, _shapes(regions, config), absent, not regions)


def says_where(result: object) -> bool:
    """Whether anything is drawn in the `result` of an annotation."""
    return any(shape_kind(region) for region in regions_of(result))


def shape_kind(region: Region) -> str:
    """What kind of a drawing a region is; "" if it is none."""
    return _SHAPES.get(str(region.get("type")).removesuffix("labels"), "")


def _shapes(regions: Sequence[Region], config: LabelConfig) -> tuple[Shape, ...]:
    masks = [control for control in config.controls if control.kind != "rectangle"]
    shapes = []
    for region in regions:
        kind = shape_kind(region)
        if not kind or any(_is_from(region, control) for control in masks):
            continue
        if region.get("to_name") != config.image.name:
            kind = f"{kind} on another picture ({region.get('to_name')})"
        # A Labels tag beside a Polygon or the like writes a region of its own with the same id.
        own = [other for other in regions if _id(other) == _id(region) and str(other.get("type")).endswith("labels")]
        stored = [name for other in own for name in strings_of(part_of(other, "value").get(str(other["type"])))]
        labels = ((name, config.label(name)) for name in stored)
        shapes.append(Shape(kind, frozenset(label.value if label else name for name, label in labels)))
    return tuple(shapes)


def _place(control: MaskControl | TextAreaControl, height: int, width: int) -> Region:
    return {
        "id": secrets.token_hex(6),
        "from_name": control.name,
        "to_name": control.to_name,
        "type": control.type,
        "origin": "prediction",
        "readonly": False,
        "original_width": int(width),
        "original_height": int(height),
        "image_rotation": 0,
    }


def _values(control: MaskControl, mask: Mask) -> Iterator[tuple[Region, list[str]]]:
    """The value of each region that the control shows, still without labels, and what there is to remark on it."""
    height, width = mask.shape
    if control.objects != "each" and control.kind in ("brush", "bitmask"):
        yield _value(control, Part(mask, 0, 0), height, width), []
        return
    parts, specks = parts_of(mask, control.smallest)
    remarks = [f"specks left out: {specks}"] if specks else []
    if control.objects != "each" and control.kind == "rectangle":
        parts = [around(parts)]
    total = len(parts) if control.objects != "each" else 1
    for number, part in enumerate(parts, start=1):
        yield _value(control, part, height, width), [f"part {number} of {total}"] * (total > 1) + remarks


def _value(control: MaskControl, part: Part, height: int, width: int) -> Region:
    mask, top, left = part
    down, across = mask.shape
    if control.kind == "polygon":
        ring = (polygon(mask, control.tolerance) + np.array([left, top])) * 100 / np.array([width, height])
        return {"points": ring.tolist(), "closed": True}
    if control.kind == "rectangle":
        place = {"x": left / width, "y": top / height, "width": across / width, "height": down / height}
        return {**{side: 100 * share for side, share in place.items()}, "rotation": 0}
    whole = np.zeros((height, width), dtype=np.bool_)
    whole[top : top + down, left : left + across] = mask
    if control.kind == "bitmask":
        return {"imageDataURL": bitmask.encode(whole)}
    return {"format": "rle", "rle": brush.encode(whole)}


def regions_of(result: object) -> list[Region]:
    """The regions of a prediction's or an annotation's `result`."""
    return [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []


def part_of(region: Region, name: Literal["value", "meta"]) -> Region:
    part = region.get(name)
    return part if isinstance(part, dict) else {}


def _id(region: Region) -> str:
    return str(region.get("id"))


def _is_from(region: Region, control: MaskControl | TextAreaControl) -> bool:
    return region.get("from_name") == control.name and region.get("type") == control.type


def _is_drawn(region: Region, control: MaskControl) -> bool:
    """Whether it is from that tag. A key point drawn while a region is selected has its tag and label, but no mask."""
    value = part_of(region, "value")
    return _is_from(region, control) and not (control.kind == "brush" and "x" in value and "rle" not in value)


def strings_of(value: object) -> list[str]:
    # Label Studio writes a single submission either as a string or as a list of one.
    texts = value if isinstance(value, list) else [value]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def _submissions(regions: Sequence[Region], config: LabelConfig) -> list[tuple[str, str]]:
    """(region id, sentence) of each submission to the prompt TextArea, oldest first."""
    if config.prompt is None:
        return []
    return [
        (_id(region), text)
        for region in regions
        if _is_from(region, config.prompt)
        for text in strings_of(part_of(region, "value").get("text"))
    ]


def noted_prompts(region: Region) -> list[str]:
    """The sentences that are noted on a region."""
    lines = "\n".join(strings_of(part_of(region, "meta").get("text"))).splitlines()
    return [line.removeprefix(_NOTE).strip() for line in lines if line.startswith(_NOTE)]


def _objects(regions: Sequence[Region], config: LabelConfig) -> list[tuple[MaskControl, list[Region]]]:
    """The regions that make up each drawn object, and the control that they are from."""
    masks = [control for control in config.controls if control.kind != "rectangle"]
    drawn = [(control, region) for region in regions for control in masks if _is_drawn(region, control)]
    ranks = {control.name: rank for rank, control in enumerate(masks)}
    best: dict[str, tuple[bool, int]] = {}
    for control, region in drawn:
        rank = (region.get("origin") != _CORRECTED, ranks[control.name])
        best[answer_of(region)] = min(best.get(answer_of(region), rank), rank)
    objects: dict[Hashable, tuple[MaskControl, list[Region]]] = {}
    for number, (control, region) in enumerate(drawn):
        answer = answer_of(region)
        if answer and best[answer][1] != ranks[control.name]:
            continue
        joined = answer and control.kind == "polygon" and control.objects != "each"
        key = (answer, *strings_of(part_of(region, "value").get(control.type))) if joined else number
        objects.setdefault(key, (control, []))[1].append(region)
    return list(objects.values())


def answer_of(region: Region) -> str:
    """What marks the regions of one answer; "" where people drew."""
    return str(part_of(region, "meta").get("answer") or "")


def _annotated_mask(
    control: MaskControl, drawn: Sequence[Region], typed: str | None, shared: str | None
) -> AnnotatedMask:
    first = drawn[0]
    noted, *also = noted_prompts(first) or [""]
    own = noted or typed
    label, *further = _labels(first, control) or [None]
    drawings = [_drawing(region, control) for region in drawn]
    origins = [str(region.get("origin", "manual")) for region in drawn]
    return AnnotatedMask(
        region_id=_id(first),
        label=label,
        drawing=drawings[0] if len(drawings) == 1 else _joined(drawings, _id(first)),
        prompt=own or shared,
        origin=_CORRECTED if _CORRECTED in origins else origins[0],
        answer=answer_of(first) or _id(first),
        shared=not own,
        further=tuple(filter(None, further)),
        score=first["score"] if is_number(first.get("score")) and origins[0] != "manual" else None,
        also=tuple(filter(None, also)),
    )


def _joined(drawings: Sequence[Mask | Runs], region_id: str) -> Mask:
    masks = [drawing.mask() if isinstance(drawing, Runs) else drawing for drawing in drawings]
    if len({mask.shape for mask in masks}) > 1:
        raise RegionError(f"Region {region_id} and another part of it are on images of two sizes. Draw it again.")
    union: Mask = np.logical_or.reduce(masks)
    return union


def _drawing(region: Region, control: MaskControl) -> Mask | Runs:
    try:
        return decoded(control.kind, region)
    except (BrushError, RegionError) as error:
        raise RegionError(f"Region {_id(region)} can't be read. {error}") from error


def _pixels(side: object) -> int | None:
    """A side of the image; importers and some browsers write it as a float."""
    if not is_number(side) or abs(side - round(side)) > 0.01:
        return None
    return round(side)


def image_size(region: Region) -> tuple[int, int]:
    """Height and width of the image that a region was drawn on, in pixels. Raises RegionError if it doesn't say."""
    height, width = _pixels(region.get("original_height")), _pixels(region.get("original_width"))
    if height is None or width is None:
        raise RegionError("It doesn't say the size of its image. Save the annotation again.")
    if height < 1 or width < 1 or height * width > brush.MAX_PIXELS:
        raise RegionError(f"Its image of {width}x{height} pixels is outside 1 to {brush.MAX_PIXELS} pixels.")
    return height, width


def decoded(kind: str, region: Region) -> Mask | Runs:
    """The mask of a region: drawn by brush its runs, as a bitmask or a polygon HxW bool.

    Raises RegionError or BrushError.
    """
    height, width = image_size(region)
    value = part_of(region, "value")
    # Whatever its image_rotation: the editor turns the view alone, and writes where things are in the image as it is.
    if kind == "bitmask":
        return bitmask.decode(value.get("imageDataURL"), height, width)
    if kind == "polygon":
        return fill(ring_of(value, height, width), height, width)
    return brush.decode_runs(value.get("rle", []), height, width)


def ring_of(value: Region, height: int, width: int) -> Ring:
    if value.get("closed") is False:
        raise RegionError("Its outline isn't closed. Click its first point, and save the annotation again.")
    try:
        ring = np.array(value.get("points"), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        ring = np.empty(0)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not (np.abs(ring) <= _FAR).all():
        raise RegionError("Its points aren't three or more pairs of percentages. Draw it again.")
    pixels: Ring = ring * np.array([width, height]) / 100
    return pixels


def _labels(region: Region, control: MaskControl) -> list[str | None]:
    labels = ((stored, control.label(stored)) for stored in strings_of(part_of(region, "value").get(control.type)))
    return [label.value if label else stored for stored, label in labels]
