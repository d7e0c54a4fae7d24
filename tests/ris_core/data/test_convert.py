"""Public datasets become dataset folders by the stated conventions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ris_core.data import read_folder, split_of
from ris_core.data.convert import convert_ccp, convert_coco_names

NAMES = ["null", "hat", "shoes", "belt", "coat", "scarf", "bag"]


@pytest.fixture
def ccp(tmp_path: Path) -> Path:
    labels = np.zeros((100, 100), np.uint8)
    labels[:20], labels[50:60], labels[99, :20] = 1, 2, 3  # the belt covers 0.2 %: too little to ask for
    for folder, image in (("photos", "0001.jpg"), ("labels", "0001.png")):
        (tmp_path / "ccp" / folder).mkdir(parents=True)
        Image.fromarray(labels * 30).save(tmp_path / "ccp" / folder / image)
    Image.fromarray(labels).save(tmp_path / "ccp" / "labels" / "0001.png")
    (tmp_path / "ccp" / "labels.json").write_text(json.dumps(NAMES))
    return tmp_path / "ccp"


def test_ccp(ccp: Path, tmp_path: Path) -> None:
    convert_ccp(ccp, tmp_path / "out")
    samples = read_folder(tmp_path / "out")
    there = {sample.sentence: int(sample.mask().sum()) for sample in samples if sample.has_target}
    assert there == {"the hat": 2000, "the shoes": 1000}
    absent = [sample.sentence for sample in samples if not sample.has_target]
    assert sorted(absent) == ["the bag", "the coat", "the scarf"]
    assert {sample.split for sample in samples} == {split_of("0001.jpg")}
    assert samples[0].image.read_bytes() == (ccp / "photos" / "0001.jpg").read_bytes()


def test_the_same_again_is_the_same(ccp: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert_ccp(ccp, tmp_path / name)
    for file in ("instances.json", "refs.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_coco_unites_a_class_and_skips_crowds(tmp_path: Path) -> None:
    (tmp_path / "coco" / "images").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "coco" / "images" / "1.jpg")
    square = [[0, 0, 4, 0, 4, 4, 0, 4]]
    beside = [[10, 0, 14, 0, 14, 4, 10, 4]]
    crowd = {"size": [10, 20], "counts": [100, 100]}
    instances = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 10, "width": 20}],
        "categories": [{"id": 10 + n, "name": name} for n, name in enumerate(["cat", "dog", "cup", "bus", "kite"])],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 10, "segmentation": square, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 10, "segmentation": beside, "iscrowd": 0},
            {"id": 3, "image_id": 1, "category_id": 11, "segmentation": crowd, "iscrowd": 1},
        ],
    }
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(instances))
    convert_coco_names(tmp_path / "coco", tmp_path / "out")
    samples = read_folder(tmp_path / "out")
    assert {s.sentence: int(s.mask().sum()) for s in samples if s.has_target} == {"the cat": 32}
    assert sorted(s.sentence for s in samples if not s.has_target) == ["the bus", "the cup", "the kite"]
