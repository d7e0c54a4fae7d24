"""A dataset as it is exported: pictures with the objects in them and what is said of these. Knows no Label Studio.

Pictures are read one at a time, as often as a format likes, so that a dataset may be larger than memory.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ris_core.data.folder import meant_annotations, read_json
from ris_core.masks import Mask, decode_rle

Json = dict[str, Any]


@dataclass(frozen=True)
class Category:
    """A label and its number, which it keeps from export to export. supercategory: the tag that has the label."""

    number: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class Instance:
    """One object in a picture. rle: COCO's compressed run lengths, exact, never empty.

    provenance: for JSON: task, annotation, region, origin, completed_by, prompts, model_version, score and so on.
    """

    number: int
    category: int
    rle: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def area(self) -> int:
        """Pixels."""
        return int(coco_mask.area(self.rle))

    @property
    def bbox(self) -> list[float]:
        """`[x, y, width, height]` in pixels."""
        return [float(side) for side in coco_mask.toBbox(self.rle)]

    def mask(self) -> Mask:
        """HxW bool."""
        return decode_rle(dict(self.rle))


@dataclass(frozen=True)
class Ref:
    """A sentence about a picture. instances: the numbers of what it means together; none: it isn't there.

    sentence: lower case, without punctuation around it; raw: as it was typed. told: what became of a prediction, for
    JSON: `origin` and `iou`, where that is known.
    """

    number: int
    sentence: str
    raw: str
    instances: tuple[int, ...]
    told: Mapping[str, Any]


@dataclass(frozen=True)
class DatasetImage:
    """A picture, upright and without a tag that turns it, and what is in it.

    number: the task's. file_name: unique in the dataset, without folders. path: where the file lies now. split:
    "train", "val" or "test". instances: in the order in which they were drawn. source: its address in the task's data.
    """

    number: int
    file_name: str
    path: Path
    width: int
    height: int
    digest: str
    split: str
    instances: tuple[Instance, ...]
    refs: tuple[Ref, ...]
    source: str = ""

    @cached_property
    def categories(self) -> Mapping[int, int]:
        """The category of each instance, by its number."""
        return {instance.number: instance.category for instance in self.instances}

    def layers(self) -> NDArray[np.int32]:
        """HxW: which instance a pixel shows, counted from 1, 0 for none. What was drawn later lies on top."""
        layers = np.zeros((self.height, self.width), np.int32)
        for position, instance in enumerate(self.instances, start=1):
            layers[instance.mask()] = position
        return layers


@dataclass(frozen=True)
class Dataset:
    """Pictures by rising number. images: gives them anew each time that it is called.

    categories: by rising number, those of all labels, used or not.
    """

    description: str
    categories: tuple[Category, ...]
    images: Callable[[], Iterator[DatasetImage]]


def read_dataset_folder(folder: Path) -> Dataset:
    """The dataset in a folder of `images/`, `instances.json` and `refs.json`, such as a snapshot, whole in memory.

    Raises DatasetError if one of them isn't JSON.
    """
    instances, refs = read_json(folder / "instances.json"), read_json(folder / "refs.json")
    of_images: dict[int, list[Instance]] = {image["id"]: [] for image in instances["images"]}
    said: dict[int, list[Ref]] = {image["id"]: [] for image in instances["images"]}
    splits = {}
    for row in instances["annotations"]:
        of_images[row["image_id"]].append(
            Instance(row["id"], row["category_id"], row["segmentation"], row.get("ls", {}))
        )
    for ref in refs:
        splits[ref["image_id"]] = ref["split"]
        told = {key: ref[key] for key in ("origin", "iou") if key in ref}
        meant = tuple(meant_annotations(ref))
        said[ref["image_id"]] += [
            Ref(sentence["sent_id"], sentence["sent"], sentence["raw"], meant, told) for sentence in ref["sentences"]
        ]
    images = [
        DatasetImage(
            number=image["id"],
            file_name=image["file_name"],
            path=folder / "images" / image["file_name"],
            width=image["width"],
            height=image["height"],
            digest=image.get("sha256", ""),
            split=image.get("split") or splits.get(image["id"], "train"),
            instances=tuple(of_images[image["id"]]),
            refs=tuple(said[image["id"]]),
        )
        for image in instances["images"]
    ]
    categories = (Category(row["id"], row["name"], row.get("supercategory", "")) for row in instances["categories"])
    return Dataset(instances.get("info", {}).get("description", ""), tuple(categories), lambda: iter(images))


def compact_json(document: Any) -> bytes:
    """JSON without spaces, keys sorted, so that the same content gives the same bytes."""
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
