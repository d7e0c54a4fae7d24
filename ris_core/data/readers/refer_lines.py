"""RefCOCO, RefCOCO+ and RefCOCOg as lines of JSON: sentences and the boxes of what they mean, without photos.

A line holds `image_id` and `ann_id` (COCO's numbers), `bbox_xywh` in pixels and `text`; files may be packed by gzip.
Enough for what is learnt of language and places alone.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ris_core.errors import DatasetError

# Boxes (K, 4): left, top, right, bottom, as shares of the photo's width and height.
Boxes = NDArray[np.float32]
# COCO's photos are 640 pixels on the longer side, and their shorter side is mostly one of these.
_LONG, _SHORT = 640.0, (427.0, 480.0, 512.0, 640.0)


class ReferredThing(NamedTuple):
    """A sentence, all things of its photo that any sentence is about, and which of them it means.

    source: the file, without its endings. boxes: see `Boxes`. meant: row of `boxes`.
    """

    source: str
    image_id: int
    sentence: str
    boxes: Boxes
    meant: int


def read_refer_lines(folder: Path) -> list[ReferredThing]:
    """All sentences of the `*.jsonl` and `*.jsonl.gz` files in a folder.

    A photo's size isn't said, so it is guessed from its boxes and from the sizes that COCO's photos have.

    Raises DatasetError if there is no such file, or a line isn't as above.
    """
    files = sorted(path for pattern in ("*.jsonl", "*.jsonl.gz") for path in folder.glob(pattern))
    if not files:
        raise DatasetError(f"{folder} holds no .jsonl or .jsonl.gz file.")
    rows = [(path.name.split(".")[0], row) for path in files for row in _rows(path)]
    corners: dict[int, dict[int, tuple[float, ...]]] = defaultdict(dict)
    for _, row in rows:
        x, y, width, height = row["bbox_xywh"]
        corners[row["image_id"]][row["ann_id"]] = (x, y, x + width, y + height)
    boxes = {image: _shares(list(things.values())) for image, things in corners.items()}
    places = {image: {thing: place for place, thing in enumerate(things)} for image, things in corners.items()}
    return [
        ReferredThing(
            source,
            row["image_id"],
            " ".join(row["text"].lower().split()),
            boxes[row["image_id"]],
            places[row["image_id"]][row["ann_id"]],
        )
        for source, row in rows
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = path.read_bytes()
        for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
            row = json.loads(line)
            if len(row["bbox_xywh"]) != 4 or {"image_id", "ann_id", "text"} - row.keys():
                raise ValueError(line.decode())
            yield row
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise DatasetError(f"{path} isn't lines of JSON with image_id, ann_id, bbox_xywh and text: {error}.") from None


def _shares(corners: Sequence[tuple[float, ...]]) -> Boxes:
    boxes = np.array(corners, dtype=np.float32)
    right, bottom = float(boxes[:, 2].max()), float(boxes[:, 3].max())
    # Most of COCO's photos are wider than high.
    width, height = (_short(right), max(_LONG, bottom)) if bottom > right and bottom > 481 else (max(_LONG, right), 0.0)
    height = height or _short(bottom)
    return (boxes / np.array([width, height, width, height], dtype=np.float32)).clip(0, 1)


def _short(reach: float) -> float:
    """The likeliest shorter side of a photo whose boxes reach so far."""
    if reach < _SHORT[0] - 7:
        return _SHORT[1]
    # Sides differ by a pixel or two: 425 to 428 are one format.
    return max(reach, next((side for side in _SHORT if reach <= side + 1.5), reach))
