"""Public datasets -> dataset folders, for the two sets that the shipped model is trained on.

Conventions: a label's expression is "the <name>"; of Clothing Co-Parsing (CCP) every label that covers at least
0.25 % of its photo, of COCO all instances of a class together where they cover at least 0.5 %, crowds skipped. Three
names that a photo doesn't show are drawn for it with a seed of its own. Splits are by file name, see `splits`.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ris_core.data.folder import NO_TARGET
from ris_core.data.splits import split_of
from ris_core.files import atomic_dir
from ris_core.masks import Mask, bounding_box, encode_rle, segmentation_to_mask

CCP_SHARE, COCO_SHARE = 0.0025, 0.005
ABSENT = 3

_CCP = {
    "description": "Clothing Co-Parsing, street-fashion photos with a label for each pixel (Yang, Luo, Lin 2014).",
    "license": "Apache-2.0 (the repository bearpaw/clothing-co-parsing).",
}
_COCO = {
    "description": "Photos and polygons of COCO 2017 (Lin et al. 2014), one expression a class and photo.",
    "license": "annotations CC BY 4.0; each photo a Creative Commons licence of its own, many of them non-commercial.",
}


@dataclass
class Photo:
    """A photo, the mask of each thing named in it, and whatever else is there but too small to ask for."""

    path: Path
    masks: dict[str, Mask]
    also_there: set[str] = field(default_factory=set)


def convert_ccp(source: Path, out: Path) -> None:
    """Clothing Co-Parsing (`photos/`, `labels/`, `labels.json`) -> a dataset folder at `out`."""
    names = json.loads((source / "labels.json").read_text(encoding="utf-8"))
    names = dict(enumerate(names)) if isinstance(names, list) else {int(key): name for key, name in names.items()}
    write_folder(out, _ccp_photos(source, names), [name for index, name in names.items() if index], _CCP)


def convert_coco_names(source: Path, out: Path) -> None:
    """A COCO folder (`images/`, `instances.json`) -> a dataset folder with one expression a class and photo."""
    instances = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    names = [category["name"] for category in instances["categories"]]
    write_folder(out, _coco_photos(source, instances), names, _COCO)


def write_folder(out: Path, photos: Iterable[Photo], names: Sequence[str], info: dict[str, str]) -> None:
    """Write photos and their named masks as a dataset folder.

    `names` are the categories, of which the absent ones are drawn too; `info` is a description and a licence.

    Raises:
        FileExistsError: `out` is there already.
    """
    categories = {name: number for number, name in enumerate(names, 1)}
    instances: dict[str, Any] = {
        "info": info,
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    refs: list[dict[str, Any]] = []
    with atomic_dir(out) as folder:
        (folder / "images").mkdir()
        for image_id, photo in enumerate(photos, 1):
            _add(folder, image_id, photo, categories, instances, refs)
        (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
        (folder / "refs.json").write_text(json.dumps(refs), encoding="utf-8")


def _ccp_photos(source: Path, names: dict[int, str]) -> Iterator[Photo]:
    for path in sorted((source / "photos").glob("*.jpg")):
        with Image.open(source / "labels" / f"{path.stem}.png") as image:
            labels = np.asarray(image)
        masks = {names[index]: labels == index for index in np.unique(labels) if index}
        yield _photo(path, masks, CCP_SHARE)


def _coco_photos(source: Path, instances: dict[str, Any]) -> Iterator[Photo]:
    names = {category["id"]: category["name"] for category in instances["categories"]}
    by_image = defaultdict(list)
    for annotation in instances["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image in sorted(instances["images"], key=lambda entry: entry["file_name"]):
        masks: dict[str, Mask] = {}
        crowds = set()
        for annotation in by_image[image["id"]]:
            name = names[annotation["category_id"]]
            if annotation.get("iscrowd"):
                crowds.add(name)
                continue
            mask = segmentation_to_mask(annotation["segmentation"], image["height"], image["width"])
            masks[name] = masks.get(name, False) | mask
        photo = _photo(source / "images" / image["file_name"], masks, COCO_SHARE)
        photo.also_there |= crowds
        yield photo


def _photo(path: Path, masks: dict[str, Mask], share: float) -> Photo:
    large = {name: mask for name, mask in masks.items() if mask.mean() >= share}
    return Photo(path, large, set(masks) - set(large))


def _add(
    folder: Path,
    image_id: int,
    photo: Photo,
    categories: dict[str, int],
    instances: dict[str, Any],
    refs: list[dict[str, Any]],
) -> None:
    shutil.copyfile(photo.path, folder / "images" / photo.path.name)
    with Image.open(photo.path) as image:
        width, height = image.size
    instances["images"].append({"id": image_id, "file_name": photo.path.name, "height": height, "width": width})
    for name, mask in photo.masks.items():
        annotation_id = len(instances["annotations"]) + 1
        instances["annotations"].append(
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": categories[name],
                "segmentation": encode_rle(mask),
                "area": int(mask.sum()),
                "bbox": bounding_box(mask),
                "iscrowd": 0,
            }
        )
        refs.append(_ref(len(refs) + 1, image_id, annotation_id, photo.path.name, name))
    absent = sorted(set(categories) - set(photo.masks) - photo.also_there)
    for name in random.Random(photo.path.name).sample(absent, ABSENT):
        refs.append(_ref(len(refs) + 1, image_id, NO_TARGET, photo.path.name, name))


def _ref(ref_id: int, image_id: int, annotation_id: int, file_name: str, name: str) -> dict[str, Any]:
    return {
        "ref_id": ref_id,
        "image_id": image_id,
        "ann_id": [annotation_id],
        "split": split_of(file_name),
        "sentences": [{"sent_id": ref_id, "sent": f"the {name}", "raw": f"the {name}"}],
    }
