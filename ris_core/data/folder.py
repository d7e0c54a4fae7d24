"""The dataset folder that training, evaluation and export share: `images/`, `instances.json`, `refs.json`.

`instances.json` is COCO's format; `refs.json` holds RefCOCO's refs as JSON: `ref_id`, `image_id`, `ann_id` (a number,
a list, or [-1] where the thing isn't in the photo), `split` and `sentences` of `sent_id`, `sent`, `raw`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ris_core.errors import DatasetError
from ris_core.masks import Mask, segmentation_to_mask

NO_TARGET = -1


@dataclass(frozen=True)
class Sample:
    """One expression about one photo. A photo decoded has `height` x `width` pixels, its orientation applied."""

    image: Path
    image_id: int
    ref_id: int
    split: str
    sentence: str
    height: int
    width: int
    segmentations: tuple[Any, ...]

    @property
    def has_target(self) -> bool:
        return bool(self.segmentations)

    def mask(self) -> Mask:
        """height x width bool: the union of the referred objects, empty where there is none."""
        union = np.zeros((self.height, self.width), dtype=bool)
        for segmentation in self.segmentations:
            union |= segmentation_to_mask(segmentation, self.height, self.width)
        return union


def read_folder(folder: Path, split: str | None = None) -> list[Sample]:
    """Every expression of a dataset folder, or of one split, in the order of `refs.json`.

    Raises:
        DatasetError: a file is missing, isn't JSON, or points at an image or annotation that isn't there.
    """
    instances, refs = _load(folder, "instances.json"), _load(folder, "refs.json")
    try:
        images = {image["id"]: image for image in instances["images"]}
        annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
        return [
            sample
            for ref in refs
            if split is None or ref["split"] == split
            for sample in _samples(folder, ref, images, annotations)
        ]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{folder} isn't a dataset folder: {error!r} is missing or misplaced.") from None


def _samples(
    folder: Path, ref: dict[str, Any], images: dict[Any, Any], annotations: dict[Any, Any]
) -> Iterator[Sample]:
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    targets = tuple(annotations[number]["segmentation"] for number in ids if number != NO_TARGET)
    image = images[ref["image_id"]]
    for sentence in ref["sentences"]:
        yield Sample(
            image=folder / "images" / image["file_name"],
            image_id=ref["image_id"],
            ref_id=ref["ref_id"],
            split=ref["split"],
            sentence=sentence["sent"],
            height=image["height"],
            width=image["width"],
            segmentations=targets,
        )


def _load(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(
            f"{folder / name} is missing. A dataset folder holds images/, instances.json and refs.json."
        ) from None
    except ValueError as error:
        raise DatasetError(f"{folder / name} isn't JSON: {error}.") from None
