"""PhraseCut: masks drawn as its evaluator draws them, and lists too long to be held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from published import HEIGHT, WIDTH, task, write_phrasecut

from ris_core.data import read_dataset
from ris_core.data.readers import phrasecut
from ris_core.errors import DatasetError

SQUARE = [[1, 1], [4, 1], [4, 4], [1, 4]]
BESIDE = [[3, 3], [6, 3], [6, 6], [3, 6]]


def read(root: Path, split: str | None = "test") -> list[Any]:
    return read_dataset(f"phrasecut:{root}", split)


def test_exact_values(tmp_path: Path) -> None:
    tasks = [task(61, "two dogs", [SQUARE], [BESIDE]), task(62, "sky", [[[0, 0], [11, 0], [11, 1], [0, 1]]])]
    dogs, sky = read(write_phrasecut(tmp_path, test=tasks))
    assert (dogs.sentence, dogs.split, dogs.image_id, dogs.ref_id) == ("two dogs", "test", 61, 1)
    assert dogs.image == tmp_path / "images" / "61.jpg"
    # The edge counts: 4 x 4 pixels each, 2 x 2 of them shared.
    assert int(dogs.mask().sum()) == 16 + 16 - 4
    assert len(dogs.segmentations) == 2
    assert int(sky.mask().sum()) == 24
    assert (dogs.coco_id, sky.coco_id) == (8, None)


def test_masks_are_the_evaluators(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    polygons = [(random.random((5, 2)) * 20 - 4).tolist() for _ in range(6)]
    (sample,) = read(write_phrasecut(tmp_path, test=[task(61, "it", polygons[:2], polygons[2:])]))
    expected = np.zeros((HEIGHT, WIDTH), int)
    for polygon in polygons:
        canvas = Image.new("L", (WIDTH, HEIGHT), 0)
        ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
        expected += np.array(canvas)
    assert (expected > 1).any()
    assert (sample.mask() == (expected > 0)).all()


def test_polygons_without_an_area(tmp_path: Path) -> None:
    (sample,) = read(write_phrasecut(tmp_path, test=[task(61, "it", [[], [[5, 5]], [[2, 2], [4, 2]]])]))
    assert int(sample.mask().sum()) == 3  # two points are a line, fewer are nothing


def test_splits_are_files_and_only_those_asked_for_are_needed(tmp_path: Path) -> None:
    write_phrasecut(tmp_path, test=[task(61, "it", [SQUARE])], miniv=[task(62, "this", [SQUARE])])
    assert [s.sentence for s in read(tmp_path, "miniv")] == ["this"]
    with pytest.raises(DatasetError, match=r"lacks refer_train\.json, refer_val\.json\. It has to hold"):
        read(tmp_path, None)
    write_phrasecut(tmp_path / "all", **{split: [task(61, split, [SQUARE])] for split in phrasecut.SPLITS})
    assert [(s.split, s.sentence) for s in read(tmp_path / "all", None)] == [(s, s) for s in phrasecut.SPLITS]


@pytest.mark.parametrize("chunk", [1, 2, 7, 100, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_lists_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: Any) -> None:
    tasks = [task(61, f'é "[{number}], {{', [SQUARE]) for number in range(5)]
    write_phrasecut(tmp_path, test=[])
    text = json.dumps(tasks, indent=indent, ensure_ascii=False)
    (tmp_path / "refer_test.json").write_text(f"{text}\n", encoding="utf-8")
    monkeypatch.setattr(phrasecut, "_CHUNK", chunk)
    assert [s.sentence for s in read(tmp_path)] == [row["phrase"] for row in tasks]


def test_no_part_of_a_list_passes_for_the_whole(tmp_path: Path) -> None:
    write_phrasecut(tmp_path, test=[task(61, "it", [[[1, 1]]]), task(61, "this", [])])
    path = tmp_path / "refer_test.json"
    whole = path.read_text()
    for length in range(len(whole)):
        path.write_text(whole[:length])
        with pytest.raises(DatasetError, match=r"refer_test\.json isn't a whole JSON list"):
            read(tmp_path)
    path.write_text("[]")
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"image_id": 61, "phrase": "it"},  # of refer_input_*.json, which has no polygons
        task(63, "it", [SQUARE]),
        task(61, "it", [[1, 2, 3, 4]]),
        task(61, "it", [[["a", "b"], ["c", "d"]]]),
        7,
    ],
    ids=str,
)
def test_tasks_that_dont_fit(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(DatasetError, match="isn't PhraseCut as published"):
        read(write_phrasecut(tmp_path, test=[bad]))
