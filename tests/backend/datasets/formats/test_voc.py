"""Pascal VOC, read as torchvision's VOCSegmentation and VOCDetection do: a list, a palette PNG, and an XML tree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_dataset import CATEGORIES, HEIGHT, SPLITS, WIDTH, made_dataset, made_image, masks, painted, written
from PIL import Image

from backend.datasets.dataset import Category
from backend.datasets.formats.options import ExportOptions
from ris_core.errors import DatasetError

OPTIONS = ExportOptions(images="leave")


class Voc:
    """The layout that torchvision expects below VOCdevkit/VOC2012, with its way to make paths from a list's lines."""

    def __init__(self, root: Path, image_set: str) -> None:
        self.root = root
        lists = [root / "ImageSets" / folder / f"{image_set}.txt" for folder in ("Segmentation", "Main")]
        names, others = ([line.strip() for line in path.read_text().splitlines()] for path in lists)
        assert names == others
        self.names = names

    def picture(self, name: str) -> Image.Image:
        with Image.open(self.root / "JPEGImages" / f"{name}.jpg") as picture:
            assert picture.format == "JPEG"
            return picture.convert("RGB")

    def indices(self, name: str, kind: str) -> np.ndarray:
        with Image.open(self.root / f"Segmentation{kind}" / f"{name}.png") as picture:
            assert picture.mode == "P"
            palette = np.array(picture.getpalette()).reshape(-1, 3)
            assert palette[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
            assert palette[255].tolist() == [224, 224, 192]
            return np.asarray(picture)

    def objects(self, name: str) -> Sequence[ElementTree.Element]:
        tree = ElementTree.parse(self.root / "Annotations" / f"{name}.xml").getroot()
        assert tree.findtext("filename") == f"{name}.jpg"
        height, width = self.indices(name, "Class").shape
        assert (tree.findtext("size/width"), tree.findtext("size/height")) == (str(width), str(height))
        return tree.findall("object")


def box(found: ElementTree.Element) -> list[int]:
    return [int(found.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]


@settings(deadline=None, max_examples=40)
@given(drawn=masks, split=st.sampled_from(SPLITS))
def test_any_masks_come_back_but_for_what_lies_below_others(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[np.ndarray], split: str
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    image = made_image(7, drawn, folder, split=split)
    left_out = dict(written("voc", made_dataset([image]), folder / "out", OPTIONS))
    reader = Voc(folder / "out", split)
    comment, *lines = (folder / "out" / "labelmap.txt").read_text("utf-8").splitlines()
    names = [line.rsplit(":", 3)[0] for line in lines]
    assert comment.startswith("#")
    assert [line.rsplit(":", 3)[1:] for line in lines][1] == ["128,0,0", "", ""]
    assert names == ["background", *(category.name for category in CATEGORIES)]
    objects = painted(drawn, range(1, len(drawn) + 1))
    classes = painted(drawn, [1 + n % 3 for n in range(len(drawn))])
    assert reader.names == ["7_photo"]
    assert np.array_equal(reader.indices("7_photo", "Object"), objects)
    assert np.array_equal(reader.indices("7_photo", "Class"), classes)
    found = reader.objects("7_photo")
    wholly = partly = 0
    for number, (mask, entry) in enumerate(zip(drawn, found, strict=True), 1):
        rows, columns = np.nonzero(mask)
        assert box(entry) == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
        assert entry.findtext("name") == names[1 + (number - 1) % 3]
        seen = (objects == number).sum()
        assert entry.findtext("occluded") == str(int(seen < mask.sum()))
        wholly, partly = wholly + (seen == 0), partly + (0 < seen < mask.sum())
    counts = {"objects that lie wholly below others": wholly, "parts of objects that lie below others": partly}
    assert left_out == {what: count for what, count in counts.items() if count}


def test_lists_name_each_picture_in_its_split(tmp_path: Path) -> None:
    images = [made_image(n, [], tmp_path, split=SPLITS[n % 3]) for n in range(6)]
    written("voc", made_dataset(images), tmp_path / "out", OPTIONS)
    names = {name: Voc(tmp_path / "out", name).names for name in (*SPLITS, "trainval")}
    assert {name: [int(each[0]) for each in listed] for name, listed in names.items()} == {
        "train": [0, 3],
        "val": [1, 4],
        "test": [2, 5],
        "trainval": [0, 1, 3, 4],
    }
    assert Voc(tmp_path / "out", "train").objects("0_photo") == []


def test_jpegs_are_copied_and_other_pictures_saved_anew_as_jpeg(tmp_path: Path) -> None:
    images = [
        made_image(1, [], tmp_path, name="a.jpeg", kind="JPEG"),
        made_image(2, [], tmp_path, name="b.png"),
        made_image(3, [], tmp_path, name="c.gif", kind="GIF"),
    ]
    left_out = written("voc", made_dataset(images), tmp_path / "out")
    assert left_out == {"pictures' exact pixels, as they are saved anew as JPEG": 2}
    reader = Voc(tmp_path / "out", "train")
    assert reader.names == ["a", "b", "c"]
    assert (tmp_path / "out" / "JPEGImages" / "a.jpg").read_bytes() == images[0].path.read_bytes()
    assert {reader.picture(name).size for name in reader.names} == {(WIDTH, HEIGHT)}


@pytest.mark.parametrize("count", [254, 255])
def test_what_255_would_be_is_refused(tmp_path: Path, count: int) -> None:
    """255 is VOC's void, of which trainers count no pixel."""
    drawn = [np.arange(300).reshape(15, 20) == position for position in range(count)]
    crowded = made_dataset([made_image(1, drawn, tmp_path)])
    many = made_dataset([made_image(2, [], tmp_path)], [Category(n, f"thing {n}", "") for n in range(1, count + 1)])
    if count == 254:
        for number, dataset in enumerate((crowded, many)):
            written("voc", dataset, tmp_path / f"out{number}", OPTIONS)
        assert Voc(tmp_path / "out0", "train").indices("1_photo", "Object").max() == 254
    else:
        with pytest.raises(DatasetError, match=r"1_photo.png \(task 1\) has 255 objects.*`panoptic`"):
            written("voc", crowded, tmp_path / "out0", OPTIONS)
        with pytest.raises(DatasetError, match="room for 254 categories, and there are 255"):
            written("voc", many, tmp_path / "out1", OPTIONS)
