"""Regions of Label Studio's predictions and annotations: built for its editor, and read back. Knows no HTTP.

Which sentence belongs to a mask of a saved annotation, in this order:
1. the sentence that the backend noted on the region when it proposed it (`meta.text`, "prompt: ...");
2. the sentence typed for that very region, where the TextArea is per region (same region id);
3. the sentence typed for the image, if there is only one such sentence;
4. the last sentence typed, if the annotation has only one mask.
Otherwise it is unknown (None): several sentences and several masks can't be told apart.
Several strokes of one label are several regions, and stay separate here.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import BrushError, RegionError
from backend.labelstudio import brush
from backend.labelstudio.config import Label, LabelConfig

Region = dict[str, Any]

_NOTE = "prompt: "


@dataclass(frozen=True, eq=False)
class AnnotatedMask:
    """One brush region: `mask` is HxW bool at the image's size, `label` the label's value (None: no label).

    `origin` is Label Studio's: "manual", "prediction" (accepted as it was) or "prediction-changed".
    """

    region_id: str
    label: str | None
    mask: brush.Mask
    prompt: str | None
    origin: str


@dataclass(frozen=True, eq=False)
class AnnotatedMasks:
    """What an annotation says: its masks, and each sentence typed as a prompt once, oldest first."""

    masks: tuple[AnnotatedMask, ...]
    prompts: tuple[str, ...]


def brush_region(config: LabelConfig, label: Label, mask: brush.Mask, score: float, prompt: str) -> Region:
    """A mask (HxW bool, at the image's size after EXIF) as an editable region. `score` is 0..1.

    Raises RegionError if the score isn't a finite number, BrushError if the mask can't be encoded.
    """
    if not math.isfinite(score):
        raise RegionError(f'The score of the mask for "{prompt}" is {score}, not a number from 0 to 1.')
    height, width = mask.shape
    return {
        **_place(config.brush.name, config.brush.to_name, "brushlabels", height, width),
        "score": float(score),
        "value": {"format": "rle", "rle": brush.encode(mask), "brushlabels": [label.stored]},
        "meta": {"text": [_NOTE + prompt]},
    }


def prompt_region(config: LabelConfig, size: tuple[int, int], *prompts: str) -> Region:
    """The sentences as submissions to the prompt TextArea; `size` is the image's (height, width).

    Raises RegionError if the labelling interface has no TextArea.
    """
    if config.prompt is None:
        raise RegionError(
            f"The labelling interface has nowhere to type a prompt: add "
            f'<TextArea name="prompt" toName="{config.image.name}"/> to it.'
        )
    place = _place(config.prompt.name, config.prompt.to_name, "textarea", *size)
    return {**place, "value": {"text": list(prompts)}}


def typed_prompt(context: Mapping[str, Any] | None, config: LabelConfig) -> str | None:
    """The last sentence submitted to the prompt TextArea, from the context of an interactive request."""
    submitted = _submissions(_regions((context or {}).get("result")), config)
    return submitted[-1][1] if submitted else None


def read_annotation(result: object, config: LabelConfig) -> AnnotatedMasks:
    """Read the `result` of a saved annotation. Regions of other tags are passed over.

    Raises RegionError, naming the region, if a brush region can't be read.
    """
    regions = _regions(result)
    submitted = _submissions(regions, config)
    prompts = tuple(dict.fromkeys(text for _, text in submitted))
    brushed = [region for region in regions if _is_from(region, config.brush.name, "brushlabels")]
    shared = prompts[-1] if len(prompts) == 1 or (prompts and len(brushed) == 1) else None
    own = dict(submitted)
    masks = (_annotated_mask(region, config, own.get(_id(region), shared)) for region in brushed)
    return AnnotatedMasks(tuple(masks), prompts)


def _place(name: str, to_name: str, kind: str, height: int, width: int) -> Region:
    return {
        "id": secrets.token_hex(6),
        "from_name": name,
        "to_name": to_name,
        "type": kind,
        "origin": "prediction",
        "readonly": False,
        "original_width": int(width),
        "original_height": int(height),
        "image_rotation": 0,
    }


def _regions(result: object) -> list[Region]:
    if not isinstance(result, list):
        return []
    return [region for region in result if isinstance(region, dict)]


def _value(region: Region) -> Region:
    value = region.get("value")
    return value if isinstance(value, dict) else {}


def _id(region: Region) -> str:
    return str(region.get("id"))


def _is_from(region: Region, name: str, kind: str) -> bool:
    return region.get("from_name") == name and region.get("type") == kind


def _strings(value: object) -> list[str]:
    # Label Studio writes a single submission either as a string or as a list of one.
    found = value if isinstance(value, list) else [value]
    return [text.strip() for text in found if isinstance(text, str) and text.strip()]


def _submissions(regions: Sequence[Region], config: LabelConfig) -> list[tuple[str, str]]:
    """(region id, sentence) of each submission to the prompt TextArea, oldest first."""
    if config.prompt is None:
        return []
    return [
        (_id(region), text)
        for region in regions
        if _is_from(region, config.prompt.name, "textarea")
        for text in _strings(_value(region).get("text"))
    ]


def _noted_prompt(region: Region) -> str | None:
    meta = region.get("meta")
    notes = _strings(meta.get("text")) if isinstance(meta, dict) else []
    return next((note.removeprefix(_NOTE).strip() for note in notes if note.startswith(_NOTE)), None)


def _annotated_mask(region: Region, config: LabelConfig, prompt: str | None) -> AnnotatedMask:
    value = _value(region)
    height, width = region.get("original_height"), region.get("original_width")
    if not isinstance(height, int) or not isinstance(width, int):
        raise RegionError(f"Region {_id(region)} doesn't say the size of its image. Save the annotation again.")
    try:
        mask = brush.decode(value.get("rle", []), height, width)
    except BrushError as error:
        raise RegionError(f"Region {_id(region)} can't be read. {error}") from error
    origin = str(region.get("origin", "manual"))
    return AnnotatedMask(_id(region), _label(value, config), mask, _noted_prompt(region) or prompt, origin)


def _label(value: Region, config: LabelConfig) -> str | None:
    for stored in _strings(value.get("brushlabels")):
        label = config.brush.label(stored)
        return label.value if label else stored
    return None
