"""Corrections as COCO's `instances.json` and RefCOCO's `refs.json`. Pure: knows no files, no HTTP, no time.

Masks are compressed run lengths, so holes and specks stay; `iscrowd` is 0, since trainers drop crowds. Ids
are hashes of Label Studio's ids: the same region has the same id in every export. Sources: COCO's data format
page; the readers of RefCOCO and gRefCOCO (`ann_id` is a number, a list for several regions, [-1] where a
sentence means nothing in the picture). Ours: `origin` of a ref, "accepted", "corrected", "manual" or "absent", and
`iou`, of the prediction with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.datasets.annotations import Correction, DrawnObject, Expression, clean
from backend.datasets.image_store import StoredImage
from backend.labelstudio.label_config import LabelConfig
from ris_core.data.splits import split_of
from ris_core.files import sha256
from ris_core.masks import bounding_box

Document = dict[str, Any]

_LICENSE = {"id": 1, "name": "As the owner of the images says", "url": ""}
# 48 bits: among a million regions two share an id with a chance of 1 in 500, and any JSON reader is exact.
_ID_DIGITS = 12
_IOU_DIGITS = 4


@dataclass(frozen=True)
class Illustrated:
    """A correction and its picture; `file_name` is the picture's name inside the dataset."""

    correction: Correction
    picture: StoredImage
    file_name: str


def stable_id(*parts: object) -> int:
    """A positive 48-bit id that depends on `parts` alone."""
    return int(sha256("/".join(map(str, parts)).encode())[:_ID_DIGITS], 16) or 1


def instances(project: int, items: Sequence[Illustrated], config: LabelConfig) -> Document:
    """`instances.json`: image ids are task ids; categories are the interface's labels in order, from 1."""
    categories = _categories(items, config)
    ids = {category["name"]: category["id"] for category in categories}
    return {
        "info": {"description": f"Corrections of Label Studio project {project}", "version": "1"},
        "licenses": [_LICENSE],
        "images": [_image(item) for item in items],
        "annotations": [
            _annotation(item.correction, drawn, ids) for item in items for drawn in item.correction.objects
        ],
        "categories": categories,
    }


def refs(items: Sequence[Illustrated], categories: Iterable[Mapping[str, Any]]) -> list[Document]:
    """`refs.json`: one entry a sentence of a task. The photo decides the split, for good."""
    ids = {str(category["name"]): int(category["id"]) for category in categories}
    return [_ref(item, expression, ids) for item in items for expression in item.correction.expressions]


def _categories(items: Sequence[Illustrated], config: LabelConfig) -> list[Document]:
    # Masks outlive their label in the interface. Such a label comes last, so that the others keep their ids.
    known = [label.value for label in config.labels]
    used = {drawn.label for item in items for drawn in item.correction.objects}
    names = dict.fromkeys([*known, *sorted(used - set(known))])
    return [
        {"id": number, "name": name, "supercategory": _tag(name, config)} for number, name in enumerate(names, start=1)
    ]


def _tag(label: str, config: LabelConfig) -> str:
    """The name of the first tag that has the label, or had it: then which one isn't known, and the first stands in."""
    having = (control.name for control in config.controls if control.label(label))
    return next(having, config.controls[0].name)


def _image(item: Illustrated) -> Document:
    return {
        "id": item.correction.task,
        "file_name": item.file_name,
        "width": item.picture.width,
        "height": item.picture.height,
        "license": _LICENSE["id"],
        "sha256": item.picture.digest,
    }


def _annotation(correction: Correction, drawn: DrawnObject, categories: Mapping[str, int]) -> Document:
    mask = drawn.mask()
    return {
        "id": stable_id(correction.annotation, drawn.region),
        "image_id": correction.task,
        "category_id": categories[drawn.label],
        "segmentation": dict(drawn.rle),
        "area": int(np.count_nonzero(mask)),
        "bbox": bounding_box(mask),
        "iscrowd": 0,
        "ls": {
            "task": correction.task,
            "annotation": correction.annotation,
            "region": drawn.region,
            "origin": drawn.origin,
            "parent_prediction": correction.parent_prediction,
            "completed_by": correction.completed_by,
            "ground_truth": correction.ground_truth,
        },
    }


def _ref(item: Illustrated, expression: Expression, categories: Mapping[str, int]) -> Document:
    correction = item.correction
    identity = stable_id(correction.task, expression.cleaned)
    labels = {drawn.region: categories[drawn.label] for drawn in correction.objects}
    return {
        "ref_id": identity,
        "image_id": correction.task,
        "ann_id": _one_or_many([stable_id(correction.annotation, region) for region in expression.regions]),
        "category_id": _one_or_many(sorted({labels[region] for region in expression.regions})),
        "file_name": item.file_name,
        "split": split_of(item.picture.identity),
        **_origin(expression),
        "sent_ids": [identity],
        "sentences": [
            {
                "sent_id": identity,
                "sent": expression.cleaned,
                "raw": expression.prompt,
                "tokens": clean(expression.prompt).split(),
            }
        ],
    }


def _origin(expression: Expression) -> Document:
    """How the answer came about, and how near the prediction was to it, where that is known."""
    change = expression.change
    if change is None:
        return {}
    iou = {} if change.iou is None else {"iou": round(change.iou, _IOU_DIGITS)}
    return {"origin": change.kind if expression.regions else "absent", **iou}


def _one_or_many(ids: list[int]) -> int | list[int]:
    if not ids:
        return [-1]
    return ids[0] if len(ids) == 1 else ids
