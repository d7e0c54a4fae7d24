"""Builders of the JSON that Label Studio's API gives for annotated tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio import label_config
from backend.labelstudio.masks import brush

XML = (
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="cat"/><Label value="big dog" alias="dog"/>'
    '<Label value="cup"/></BrushLabels>'
    '<Choices name="absent" toName="img"><Choice value="Not in this picture"/></Choices></View>'
)
CONFIG = label_config.parse(XML)


def drawn(
    region: str, mask: NDArray[np.bool_], label: str = "cat", prompt: str | None = None, **extra: Any
) -> dict[str, Any]:
    height, width = mask.shape
    value = {"format": "rle", "rle": brush.encode(mask), "brushlabels": [label] if label else []}
    meta = {"meta": {"text": [f"prompt: {prompt}"]}} if prompt else {}
    place = {"id": region, "from_name": "brush", "to_name": "img", "type": "brushlabels", "origin": "manual"}
    return {**place, "original_width": width, "original_height": height, "value": value, **meta, **extra}


def typed(*sentences: str) -> dict[str, Any]:
    place = {"id": "typed", "from_name": "prompt", "to_name": "img", "type": "textarea"}
    return {**place, "value": {"text": list(sentences)}}


def absent() -> dict[str, Any]:
    """As Label Studio 1.23.2 keeps a choice: that what was asked for isn't in the picture."""
    place = {"id": "absent", "from_name": "absent", "to_name": "img", "type": "choices", "origin": "manual"}
    return {**place, "value": {"choices": ["Not in this picture"]}}


def annotation(number: int, *result: dict[str, Any], **extra: Any) -> dict[str, Any]:
    times = {"created_at": "2026-11-21T02:02:23Z", "updated_at": "2026-11-21T02:02:23Z"}
    people = {"completed_by": 1, "parent_prediction": None, "was_cancelled": False, "ground_truth": False}
    return {"id": number, "result": list(result), **times, **people, **extra}


def task(number: int, *annotations: dict[str, Any], image: str | None = None, **data: Any) -> dict[str, Any]:
    image = image if image is not None else f"/data/upload/1/{number:08x}-photo.png"
    return {"id": number, "data": {"image": image, **data}, "annotations": list(annotations)}


def slow_decode(rle: list[int], height: int, width: int) -> NDArray[np.bool_]:
    """Label Studio's brush format read bit by bit, independently of the code under test."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    total, word = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, size = take(1), widths[take(2)]
        length = take(size) + 1
        values += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(values).reshape(height, width, 4)[:, :, 3] > 0
