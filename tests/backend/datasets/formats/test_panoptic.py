"""COCO panoptic, read by a reader of its own that follows the published description and checks what that demands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_dataset import CATEGORIES, HEIGHT, SPLITS, WIDTH, made_dataset, made_image, masks, painted, written
from PIL import Image
from small_project import build, export_snapshot

from backend.datasets.formats.options import ExportOptions

NO_PLACE = "expressions for which it has no place"
WHOLLY, PARTLY = "objects that lie wholly below others", "parts of objects that lie below others"


class Panoptic:
    """In the manner of panopticapi: ids from colours, each id of a PNG described, and each described id in the PNG."""

    def __init__(self, root: Path, split: str) -> None:
        document = json.loads((root / "panoptic" / f"{split}.json").read_bytes())
        self.images = {row["id"]: row for row in document["images"]}
        self.categories = {row["id"]: row for row in document["categories"]}
        self.annotations = {row["image_id"]: row for row in document["annotations"]}
        self.folder = root / "panoptic" / split
        assert self.images.keys() == self.annotations.keys()
        assert {path.name for path in self.folder.glob("*")} == {row["file_name"] for row in document["annotations"]}

    def ids(self, number: int) -> np.ndarray:
        annotation, image = self.annotations[number], self.images[number]
        with Image.open(self.folder / annotation["file_name"]) as picture:
            assert (picture.mode, picture.size) == ("RGB", (image["width"], image["height"]))
            colour = np.asarray(picture).astype(np.uint32)
        ids = colour[:, :, 0] + 256 * colour[:, :, 1] + 256**2 * colour[:, :, 2]
        described = [segment["id"] for segment in annotation["segments_info"]]
        assert len(set(described)) == len(described)
        assert set(described) == set(np.unique(ids)) - {0}
        for segment in annotation["segments_info"]:
            assert segment["area"] == (ids == segment["id"]).sum()
            rows, columns = np.nonzero(ids == segment["id"])
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert segment["bbox"] == box
            assert (segment["iscrowd"], segment["isthing"]) == (0, 1)
            assert self.categories[segment["category_id"]]["isthing"] == 1
        return ids

    def objects(self, number: int) -> dict[int, np.ndarray]:
        """By `annotation_id` what is to be seen of it."""
        ids = self.ids(number)
        return {row["annotation_id"]: ids == row["id"] for row in self.annotations[number]["segments_info"]}


@settings(deadline=None, max_examples=40)
@given(drawn=st.lists(masks, min_size=1, max_size=3), split=st.sampled_from(SPLITS))
def test_any_masks_come_back_but_for_what_lies_below_others(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[np.ndarray]], split: str
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    images = [made_image(number, layers, folder, split=split) for number, layers in enumerate(drawn, 1)]
    left_out = dict(written("panoptic", made_dataset(images), folder / "out"))
    reader = Panoptic(folder / "out", split)
    wholly = partly = 0
    for image, layers in zip(images, drawn, strict=True):
        ids = [instance.number for instance in image.instances]
        truth, read = painted(layers, ids), reader.objects(image.number)
        seen = {number: truth == number for number in ids if (truth == number).any()}
        assert read.keys() == seen.keys()
        assert all(np.array_equal(read[number], seen[number]) for number in seen)
        wholly += len(ids) - len(seen)
        partly += sum((truth == number).sum() < mask.sum() for number, mask in zip(ids, layers, strict=True))
        for segment in reader.annotations[image.number]["segments_info"]:
            assert segment["category_id"] == image.categories[segment["annotation_id"]]
    counts = {WHOLLY: wholly, PARTLY: partly - wholly}
    assert left_out == {what: count for what, count in counts.items() if count}


def test_more_objects_than_a_byte_counts(tmp_path: Path) -> None:
    drawn = [np.arange(700).reshape(20, 35) == position for position in range(700)]
    written("panoptic", made_dataset([made_image(1, drawn, tmp_path)]), tmp_path / "out")
    ids = Panoptic(tmp_path / "out", "train").ids(1)
    assert len(np.unique(ids)) == 700
    assert ids.max() == 700


def test_a_project_in_panoptic(tmp_path: Path) -> None:
    snapshot = build(tmp_path / "home")
    left_out = export_snapshot(snapshot, tmp_path / "out", "panoptic")
    coco = json.loads((snapshot.folder / "instances.json").read_bytes())
    readers = {split: Panoptic(tmp_path / "out", split) for split in SPLITS}
    rows: dict[int, dict[str, Any]] = {
        number: row for reader in readers.values() for number, row in reader.images.items()
    }
    assert rows == {row["id"]: row for row in coco["images"]}
    segments = {
        segment["annotation_id"]: segment
        for reader in readers.values()
        for annotation in reader.annotations.values()
        for segment in annotation["segments_info"]
    }
    assert {number: row["ls"] for number, row in segments.items()} == {
        row["id"]: row["ls"] for row in coco["annotations"]
    }
    for number, row in rows.items():
        assert (tmp_path / "out" / "images" / row["file_name"]).read_bytes()
        readers[row["split"]].ids(number)
    named = [(row["id"], row["name"]) for row in readers["val"].categories.values()]
    assert named == [(1, "cat"), (2, "big dog"), (3, "cup")]
    assert left_out[NO_PLACE] == 4


def test_pictures_without_objects_and_splits_without_pictures_are_there(tmp_path: Path) -> None:
    images = [made_image(1, [], tmp_path, split="val")]
    assert written("panoptic", made_dataset(images), tmp_path / "out", ExportOptions(images="leave")) == {}
    assert not Panoptic(tmp_path / "out", "val").ids(1).any()
    assert Panoptic(tmp_path / "out", "train").images == Panoptic(tmp_path / "out", "test").images == {}
    assert len({tuple(row["color"]) for row in Panoptic(tmp_path / "out", "val").categories.values()}) == len(
        CATEGORIES
    )
    assert not (tmp_path / "out" / "images").exists()


def test_pictures_that_differ_in_their_suffix_alone_get_files_of_their_own(tmp_path: Path) -> None:
    mask = np.ones((HEIGHT, WIDTH), bool)
    images = [
        made_image(1, [mask], tmp_path, name="a.png"),
        made_image(2, [], tmp_path, name="a.jpg", kind="JPEG"),
        made_image(3, [], tmp_path, name="A_2.png"),
    ]
    written("panoptic", made_dataset(images), tmp_path / "out")
    reader = Panoptic(tmp_path / "out", "train")
    assert [row["file_name"] for row in reader.annotations.values()] == ["a.png", "a_2.png", "A_2_3.png"]
    assert [reader.ids(number).any() for number in (1, 2, 3)] == [True, False, False]
