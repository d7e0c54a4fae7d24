"""PhraseCut: phrases about photos of Visual Genome. Format and masks: ChenyunWu/PhraseCutDataset.

A phrase may mean several instances, each of several polygons; its mask is the union of all of them. `val` doesn't
hold the 100 photos of `miniv`.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ris_core.data.folder import LazyMask, Sample, read_json
from ris_core.data.readers.layout import find_parts
from ris_core.errors import DatasetError
from ris_core.masks import Mask

SPLITS = ("train", "val", "test", "miniv")

_CHUNK = 1 << 20
_GAP = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Outlines(LazyMask):
    """One instance: polygons as x, y, x, y ... in whole pixels. Drawn as PhraseCut's evaluator does, edge included."""

    polygons: tuple[array[int], ...]

    def mask(self, height: int, width: int) -> Mask:
        """height x width bool: the union of the polygons."""
        canvas = Image.new("1", (width, height))
        draw = ImageDraw.Draw(canvas)
        for polygon in self.polygons:
            draw.polygon(polygon.tolist(), fill=1, outline=1)
        return np.array(canvas)


def read_phrasecut(folder: Path, splits: Collection[str] | None) -> Iterator[Sample]:
    """The phrases of some splits, or of all four, read one after the other.

    Raises DatasetError if a file is missing or damaged, or a task's photo is unknown.
    """
    names = [split for split in SPLITS if splits is None or split in splits]
    files = ((f"refer_{split}.json",) for split in names)
    images, photos, *tasks = find_parts(folder, (("image_data_split3000.json",), ("images/",), *files))
    try:
        photo_rows = {image["image_id"]: image for image in read_json(images)}
        for split, path in zip(names, tasks, strict=True):
            for number, task in enumerate(_objects(path), 1):
                yield _sample(photos, split, number, task, photo_rows[task["image_id"]])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{folder} isn't PhraseCut as published: {error!r}. Unpack its files again.") from None


def _sample(photos: Path, split: str, number: int, task: dict[str, Any], image: dict[str, Any]) -> Sample:
    return Sample(
        image=photos / f"{task['image_id']}.jpg",
        image_id=task["image_id"],
        ref_id=number,
        split=split,
        sentence=task["phrase"],
        height=image["height"],
        width=image["width"],
        segmentations=tuple(_outlines(instance) for instance in task["Polygons"]),
        coco_id=image.get("coco_id"),
    )


def _outlines(polygons: list[list[list[float]]]) -> Outlines:
    # The evaluator cuts coordinates to whole pixels and skips what has fewer than two points.
    drawn = [polygon for polygon in polygons if len(polygon) > 1]
    return Outlines(tuple(array("i", (int(side) for point in polygon for side in point)) for polygon in drawn))


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list one by one: as a whole, the 344 MB of training phrases would fill gigabytes."""
    decoder, text, at = json.JSONDecoder(), "", 0
    with path.open(encoding="utf-8") as file:
        opened = file.read(1) == "["
        while opened and (chunk := file.read(_CHUNK)):
            text, at = text[at:] + chunk, 0
            while (at := _gap_end(text, at)) < len(text):
                try:
                    value, at = decoder.raw_decode(text, at)
                except ValueError:
                    break  # the rest of the object is still in the file
                yield value
    if not opened or text[at:].strip() != "]":
        raise DatasetError(f"{path} isn't a whole JSON list. Download it again.")


def _gap_end(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at
