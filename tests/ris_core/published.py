"""Small datasets in the layouts that their authors published, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import python2
from PIL import Image
from python2 import Long

from ris_core.masks import encode_rle

HEIGHT, WIDTH = 10, 12
FIRST, SECOND = "COCO_train2014_000000000007.jpg", "COCO_train2014_000000000008.jpg"


def band(rows: int) -> np.ndarray:
    """The upper rows of a photo."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:rows] = True
    return mask


def square(x: int, y: int, side: int) -> list[int]:
    """A polygon as COCO has it: x, y, x, y ..."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


# id -> photo, segmentation, crowd or not; and the pixels that it covers.
ANNOTATIONS: dict[int, tuple[int, Any, int]] = {
    1: (7, [square(2, 1, 4)], 0),  # 16
    2: (7, [square(0, 0, 4), square(2, 2, 4)], 0),  # 16 + 16 - 4
    3: (7, encode_rle(band(3)), 0),  # 36
    4: (7, {"size": [HEIGHT, WIDTH], "counts": [100, 20]}, 1),  # the last two columns
    5: (7, [[0, 0, 3, 3], square(8, 6, 2)], 0),  # two points enclose nothing: 4
    6: (8, [encode_rle(band(1)), encode_rle(~band(9))], 0),  # a list of run lengths: 24
}


def instances() -> dict[str, Any]:
    """`instances.json` of two photos and `ANNOTATIONS`."""
    names = {7: FIRST, 8: SECOND}
    return {
        "images": [{"id": number, "file_name": names[number], "height": HEIGHT, "width": WIDTH} for number in names],
        "annotations": [
            {"id": number, "image_id": photo, "segmentation": segmentation, "iscrowd": crowd, "category_id": 1}
            for number, (photo, segmentation, crowd) in ANNOTATIONS.items()
        ],
        "categories": [{"id": 1, "name": "person"}],
    }


def ref(ref_id: int, ann_id: Any, split: str, *sentences: str, photo: int = 7) -> dict[str, Any]:
    """A ref as REFER has it, its photo's name with the instance at the end that is to be ignored."""
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": 1,
        "image_id": photo,
        "file_name": f"COCO_train2014_{photo:012}_{ref_id}.jpg",
        "split": split,
        "sent_ids": list(range(len(sentences))),
        "sentences": [
            {"sent_id": number, "sent": sentence, "raw": sentence.title(), "tokens": sentence.split()}
            for number, sentence in enumerate(sentences)
        ],
    }


def as_python2(value: Any, key: str = "") -> Any:
    """Texts as byte strings, a sentence's `raw` as unicode and annotations as longs, mixed as they are in the wild."""
    if isinstance(value, dict):
        return {name.encode(): as_python2(content, name) for name, content in value.items()}
    if isinstance(value, list):
        return [as_python2(entry, key) for entry in value]
    if key == "ann_id":
        return Long(value)
    return value.encode() if isinstance(value, str) and key != "raw" else value


def write_refer(root: Path, refs: list[Any], dataset: str = "refcoco", partition: str = "unc") -> Path:
    """REFER's data folder with one dataset."""
    photos = "saiapr_tc-12" if dataset == "refclef" else "mscoco/images/train2014"
    (root / "images" / photos).mkdir(parents=True, exist_ok=True)
    (root / dataset).mkdir(exist_ok=True)
    (root / dataset / f"refs({partition}).p").write_bytes(python2.dumps(as_python2(refs)))
    (root / dataset / "instances.json").write_text(json.dumps(instances()))
    return root


def write_grefcoco(root: Path, refs: list[Any]) -> Path:
    """gRefCOCO's folders, its refs as JSON."""
    (root / "images" / "train2014").mkdir(parents=True)
    (root / "grefcoco").mkdir()
    (root / "grefcoco" / "grefs(unc).json").write_text(json.dumps(refs))
    (root / "grefcoco" / "instances.json").write_text(json.dumps(instances()))
    return root


def task(photo: int, phrase: str, *polygons: Any) -> dict[str, Any]:
    """A phrase of PhraseCut, with the polygons of each instance that it means."""
    return {"task_id": f"{photo}__1", "image_id": photo, "ann_ids": [1], "phrase": phrase, "Polygons": list(polygons)}


def write_phrasecut(root: Path, **splits: list[Any]) -> Path:
    """PhraseCut's folder: tasks by split, about photos 61 and 62 of Visual Genome."""
    (root / "images").mkdir(parents=True)
    images = [
        {"image_id": 61, "coco_id": 8, "height": HEIGHT, "width": WIDTH, "split": "test"},
        {"image_id": 62, "coco_id": None, "height": HEIGHT, "width": WIDTH, "split": "test"},
    ]
    (root / "image_data_split3000.json").write_text(json.dumps(images))
    for split, tasks in splits.items():
        (root / f"refer_{split}.json").write_text(json.dumps(tasks))
    return root


def write_referit(root: Path, **queries: dict[str, list[str]]) -> Path:
    """Photos 112 and 113, without any mask."""
    for folder in ("images", "mask"):
        (root / folder).mkdir(parents=True)
    for photo in (112, 113):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / f"{photo}.jpg")
    for name, regions in queries.items():
        (root / f"referit_query_{name}.json").write_text(json.dumps(regions))
    return root
