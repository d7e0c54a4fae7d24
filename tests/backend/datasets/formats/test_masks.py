"""Semantic masks, read as trainers do: Pillow gives the indices, classes.txt their names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_dataset import CATEGORIES, HEIGHT, SPLITS, WIDTH, made_dataset, made_image, masks, painted, written
from PIL import Image

from backend.datasets.dataset import Category
from backend.datasets.formats.options import ExportOptions
from ris_core.errors import DatasetError


def indices(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode in ("P", "I;16")
        return np.asarray(picture)


@settings(deadline=None, max_examples=40)
@given(drawn=masks, split=st.sampled_from(SPLITS), seed=st.integers(0, 9))
def test_any_masks_come_back_but_for_what_lies_below_others(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[np.ndarray], split: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    chosen = np.random.default_rng(seed).integers(0, len(CATEGORIES), len(drawn)).tolist()
    numbers = [CATEGORIES[position].number for position in chosen]
    image = made_image(7, drawn, folder, categories=numbers, split=split)
    left_out = dict(written("masks", made_dataset([image]), folder / "out"))
    truth, read = painted(drawn, numbers), indices(folder / "out" / "masks" / "7_photo.png")
    labels = json.loads((folder / "out" / "labels.json").read_bytes())
    number_of = {label["index"]: label["category_id"] or 0 for label in labels}
    assert np.array_equal(np.vectorize(number_of.get)(read), truth)
    assert [label["name"] for label in labels] == (folder / "out" / "classes.txt").read_text("utf-8").splitlines()
    assert (folder / "out" / "splits" / f"{split}.txt").read_text() == "7_photo\n"
    seen = [(truth[mask] == number).sum() for mask, number in zip(drawn, numbers, strict=True)]
    wholly = sum(count == 0 for count in seen)
    partly = sum(0 < count < mask.sum() for count, mask in zip(seen, drawn, strict=True))
    counts = {"objects that lie wholly below others": wholly, "parts of objects that lie below others": partly}
    assert left_out == {what: count for what, count in counts.items() if count}


def test_nothing_is_left_out_where_objects_of_one_class_overlap(tmp_path: Path) -> None:
    drawn = [np.eye(HEIGHT, WIDTH, dtype=bool), np.ones((HEIGHT, WIDTH), bool)]
    image = made_image(1, drawn, tmp_path, categories=[5, 5], refs={"both": (0, 1), "none": ()})
    left_out = written("masks", made_dataset([image]), tmp_path / "out")
    assert left_out == {"expressions for which it has no place": 2}
    assert (indices(tmp_path / "out" / "masks" / "1_photo.png") == 2).all()


@pytest.mark.parametrize(("count", "mode"), [(255, "P"), (256, "I;16"), (1000, "I;16")])
def test_many_categories_take_sixteen_bits(tmp_path: Path, count: int, mode: str) -> None:
    categories = [Category(10 * n, f"thing {n}", "brush") for n in range(1, count + 1)]
    drawn = [np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2 == 1]
    image = made_image(1, drawn, tmp_path, categories=[10 * count])
    written("masks", made_dataset([image], categories), tmp_path / "out")
    with Image.open(tmp_path / "out" / "masks" / "1_photo.png") as picture:
        assert picture.mode == mode
        assert np.array_equal(np.asarray(picture), drawn[0] * count)
    names = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    assert (names[0], names[count], len(names)) == ("background", f"thing {count}", count + 1)


def test_the_palette_is_what_labels_json_says(tmp_path: Path) -> None:
    image = made_image(1, [np.ones((HEIGHT, WIDTH), bool)], tmp_path, categories=[9])
    written("masks", made_dataset([image]), tmp_path / "out", ExportOptions(images="link"))
    with Image.open(tmp_path / "out" / "masks" / "1_photo.png") as picture:
        colour = picture.convert("RGB").getpixel((0, 0))
    label = json.loads((tmp_path / "out" / "labels.json").read_bytes())[3]
    assert label == {"index": 3, "name": "cup", "category_id": 9, "color": list(colour)}
    assert (tmp_path / "out" / "images" / "1_photo.png").stat().st_ino == image.path.stat().st_ino


def test_more_categories_than_sixteen_bits_count_are_refused(tmp_path: Path) -> None:
    categories = [Category(n, str(n), "brush") for n in range(1, 65_537)]
    with pytest.raises(DatasetError, match="65,536 categories"):
        written("masks", made_dataset([], categories), tmp_path / "out")
