"""COCO's `instances.json` and gRefCOCO's `refs.json`, the documents of a snapshot. Knows no HTTP and no time.

Masks are compressed run lengths, so holes and specks stay; `iscrowd` is 0, since trainers drop crowds. Ids
are hashes of Label Studio's ids: the same region has the same id in every export. Sources: COCO's data format
page; gRefCOCO's refs (`ann_id` and `category_id` are lists, [-1] where a sentence means nothing in the image), for
whose readers `backend.datasets.formats.refer` is. Ours: `origin` of a ref, "accepted", "corrected", "rejected",
"manual", "absent" or "taught", and `iou`, of the prediction with it.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from backend.datasets.annotations import Correction, DrawnObject, Expression
from backend.datasets.image_store import StoredImage
from backend.labelstudio.label_config import LabelConfig
from ris_core.data.folder import NO_TARGET
from ris_core.data.splits import split_of
from ris_core.files import sha256
from ris_core.masks import bounding_box

Document = dict[str, Any]

_LICENSE = {"id": 1, "name": "As the owner of the images says", "url": ""}
# 48 bits: among a million regions two share an id with a chance of 1 in 500, and any JSON reader is exact.
_ID_DIGITS = 12
_IOU_DIGITS = 4


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the correction that annotates it; `file_name` is the image's name inside the dataset."""

    correction: Correction
    image: StoredImage
    file_name: str


def stable_id(*parts: object) -> int:
    """A positive 48-bit id that depends on `parts` alone."""
    return int(sha256("/".join(map(str, parts)).encode())[:_ID_DIGITS], 16) or 1


def instances(
    project: int, images: Sequence[AnnotatedImage], config: LabelConfig, numbers: Mapping[str, int]
) -> Document:
    """`instances.json`: image ids are task ids; categories are the labels with their `numbers`, by number."""
    return {
        "info": {"description": f"Corrections of Label Studio project {project}", "version": "1"},
        "licenses": [_LICENSE],
        "images": [_image(image) for image in images],
        "annotations": [
            _annotation(image.correction, drawn, numbers) for image in images for drawn in image.correction.objects
        ],
        "categories": _categories(numbers, config),
    }


def refs(images: Sequence[AnnotatedImage], categories: Iterable[Mapping[str, Any]]) -> list[Document]:
    """`refs.json`: one entry a sentence of a task. The photo decides the split, for good."""
    ids = {str(category["name"]): int(category["id"]) for category in categories}
    return [_ref(image, expression, ids) for image in images for expression in image.correction.expressions]


def write(snapshot: Path, out: Path) -> Mapping[str, int]:
    """Copy a snapshot, which holds these documents already: real copies, so that editing them can't harm it."""
    shutil.copytree(snapshot, out, dirs_exist_ok=True)
    return {}


def _categories(numbers: Mapping[str, int], config: LabelConfig) -> list[Document]:
    # The first tag that has the label. Which one had a label that is gone isn't known, and the first stands in.
    tags = {name: [control.name for control in config.controls if control.label(name)] for name in numbers}
    return [
        {"id": number, "name": name, "supercategory": [*tags[name], config.controls[0].name][0]}
        for name, number in sorted(numbers.items(), key=itemgetter(1))
    ]


def _image(annotated: AnnotatedImage) -> Document:
    return {
        "id": annotated.correction.task,
        "file_name": annotated.file_name,
        "width": annotated.image.width,
        "height": annotated.image.height,
        "license": _LICENSE["id"],
        "sha256": annotated.image.digest,
    }


def _annotation(correction: Correction, drawn: DrawnObject, categories: Mapping[str, int]) -> Document:
    mask = drawn.mask()
    said = [expression for expression in correction.expressions if drawn.region in expression.regions]
    versions = [said_of.edit.version for said_of in said if said_of.edit and drawn.origin != "manual"]
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
            "prompts": [expression.prompt for expression in said],
            "model_version": next(filter(None, versions), None),
            "score": drawn.score,
        },
    }


def _ref(annotated: AnnotatedImage, expression: Expression, categories: Mapping[str, int]) -> Document:
    correction = annotated.correction
    sentence = expression.cleaned
    identity = stable_id(correction.task, sentence)
    labels = {drawn.region: categories[drawn.label] for drawn in correction.objects}
    return {
        "ref_id": identity,
        "image_id": correction.task,
        "ann_id": [stable_id(correction.annotation, region) for region in expression.regions] or [NO_TARGET],
        "category_id": sorted({labels[region] for region in expression.regions}) or [NO_TARGET],
        "file_name": annotated.file_name,
        "split": split_of(annotated.image.original),
        **_origin(expression),
        "sent_ids": [identity],
        "sentences": [
            {"sent_id": identity, "sent": sentence, "raw": expression.prompt, "tokens": sentence.split()},
        ],
    }


def _origin(expression: Expression) -> Document:
    """How the answer came about, and how near the prediction was to it, where that is known."""
    edit = expression.edit
    if edit is None:
        return {}
    iou = {} if edit.iou is None else {"iou": round(edit.iou, _IOU_DIGITS)}
    told = bool(expression.regions) or edit.kind in ("rejected", "taught")
    return {"origin": edit.kind if told else "absent", **iou}
