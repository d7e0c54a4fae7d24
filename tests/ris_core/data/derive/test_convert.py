"""Public datasets become dataset folders by the stated conventions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ris_core.data import read_folder, split_of
from ris_core.data.derive.convert import convert_ccp, convert_coco_names
from ris_core.errors import DatasetError

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
    there = {sample.sentence: int(sample.mask().sum()) for sample in samples if sample.kind == "name"}
    assert there == {"the hat": 2000, "the shoes": 1000}
    absent = [sample.sentence for sample in samples if sample.kind == "absent"]
    assert sorted(absent) == ["the bag", "the coat", "the scarf"]
    assert {sample.split for sample in samples} == {split_of("0001.jpg")}
    assert samples[0].image.read_bytes() == (ccp / "photos" / "0001.jpg").read_bytes()


def test_the_same_again_is_the_same(ccp: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert_ccp(ccp, tmp_path / name)
    for file in ("instances.json", "refs.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_kinds_have_refs_of_their_own(ccp: Path, tmp_path: Path) -> None:
    convert_ccp(ccp, tmp_path / "out")
    kinds = {sample.kind for sample in read_folder(tmp_path / "out")}
    assert {"name", "absent"} <= kinds <= {"name", "absent", "attribute", "contradicted"}
    refs = json.loads((tmp_path / "out" / "refs.json").read_text())
    numbers = [sentence["sent_id"] for ref in refs for sentence in ref["sentences"]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_instances_name_their_refs_by_digest(ccp: Path, tmp_path: Path) -> None:
    convert_ccp(ccp, tmp_path / "out")
    info = json.loads((tmp_path / "out" / "instances.json").read_text())["info"]
    assert info["refs_sha256"] == hashlib.sha256((tmp_path / "out" / "refs.json").read_bytes()).hexdigest()


def relabel(ccp: Path, paint: Callable[[np.ndarray], None]) -> Path:
    labels = np.zeros((100, 100), np.uint8)
    paint(labels)
    Image.fromarray(labels).save(ccp / "labels" / "0001.png")
    return ccp


def test_shoes_apart_are_two_and_a_speck_goes_with_the_nearer(ccp: Path, tmp_path: Path) -> None:
    def paint(labels: np.ndarray) -> None:
        labels[80:90, 20:40] = labels[80:90, 60:80] = 2
        labels[80, 42] = 2

    convert_ccp(relabel(ccp, paint), tmp_path / "out")
    samples = read_folder(tmp_path / "out")
    assert [int(sample.mask().sum()) for sample in samples if sample.kind == "name"] == [401]
    sides = {sample.sentence: sample.mask() for sample in samples if sample.kind == "derived"}
    assert all("shoe" in sentence and "shoes" not in sentence for sentence in sides)
    for sentence, mask in sides.items():
        assert mask.sum() == (201 if "left" in sentence else 200)
        assert mask[85, 30] == ("left" in sentence)
    plural = {sample.sentence for sample in samples if sample.kind == "plural"}
    assert plural & {"both shoes", "both of the shoes", "the two shoes"}


@pytest.mark.parametrize("second", [9, 0], ids=["hidden by half", "one"])
def test_a_shoe_and_less_than_half_of_another_stay_one(ccp: Path, tmp_path: Path, second: int) -> None:
    def paint(labels: np.ndarray) -> None:
        labels[80:90, 20:40] = 2
        labels[80:90, 60 : 60 + second] = 2

    convert_ccp(relabel(ccp, paint), tmp_path / "out")
    assert {sample.kind for sample in read_folder(tmp_path / "out")} <= {"name", "absent", "attribute", "contradicted"}


def test_other_words_for_a_name_are_refs_of_their_own(ccp: Path, tmp_path: Path) -> None:
    (ccp / "labels.json").write_text(json.dumps(["null", "hat", "pants", "belt", "coat", "scarf", "bag"]))
    convert_ccp(ccp, tmp_path / "out")
    words = [sample for sample in read_folder(tmp_path / "out") if sample.kind == "synonym"]
    assert [(sample.sentence, int(sample.mask().sum())) for sample in words] == [("the trousers", 1000)]


def test_masks_of_another_size_are_refused_and_leave_nothing(ccp: Path, tmp_path: Path) -> None:
    Image.new("RGB", (99, 100)).save(ccp / "photos" / "0001.jpg")
    with pytest.raises(DatasetError, match=r"0001\.jpg isn't of the size of its masks"):
        convert_ccp(ccp, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SQUARE, BESIDE = [[0, 0, 4, 0, 4, 4, 0, 4]], [[10, 0, 14, 0, 14, 4, 10, 4]]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    (tmp_path / "coco" / "images").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "coco" / "images" / "1.jpg")
    crowd = {"size": [10, 20], "counts": [100, 100]}
    instances = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 10, "width": 20}],
        "categories": [{"id": 10 + n, "name": name} for n, name in enumerate(["cat", "dog", "cup", "bus", "kite"])],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 10, "segmentation": SQUARE, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 10, "segmentation": BESIDE, "iscrowd": 0},
            {"id": 3, "image_id": 1, "category_id": 11, "segmentation": crowd, "iscrowd": 1},
            {"id": 4, "image_id": 1, "category_id": 10, "segmentation": [[1, 1, 2, 2]], "iscrowd": 0},
        ],
    }
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(instances))
    return tmp_path / "coco"


def test_coco_unites_a_class_and_skips_crowds(coco: Path, tmp_path: Path) -> None:
    convert_coco_names(coco, tmp_path / "out")
    samples = read_folder(tmp_path / "out")
    assert {s.sentence: int(s.mask().sum()) for s in samples if s.kind == "name"} == {"the cat": 32}
    assert sorted(s.sentence for s in samples if s.kind == "absent") == ["the bus", "the cup", "the kite"]


def test_coco_tells_instances_apart(coco: Path, tmp_path: Path) -> None:
    convert_coco_names(coco, tmp_path / "out")
    sides = [sample for sample in read_folder(tmp_path / "out") if sample.kind == "derived"]
    assert len(sides) == 6
    for sample in sides:
        assert sample.mask()[:4, :4].all() == ("left" in sample.sentence)
        assert sample.mask()[:4, 10:14].all() == ("right" in sample.sentence)
        assert sample.mask().sum() == 16


def test_all_kinds_of_a_photo_are_of_one_split(coco: Path, tmp_path: Path) -> None:
    convert_coco_names(coco, tmp_path / "out")
    assert {sample.split for sample in read_folder(tmp_path / "out")} == {split_of("1.jpg")}
