"""Sentences and boxes without photos: which box is meant, where it lies in a photo of unsaid size, and bad files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from ris_core.data.readers.refer_lines import read_refer_lines
from ris_core.errors import DatasetError


def line(text: str, ann: int, box: list[float], image: int = 1) -> str:
    return json.dumps({"image_id": image, "ann_id": ann, "bbox_xywh": box, "text": text})


def write(path: Path, *lines: str) -> None:
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_things_of_all_files_stand_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path / "a_val.jsonl.gz", line("Left  guy", 7, [0, 0, 320, 480]), line("dog", 9, [0, 0, 64, 48], image=2))
    write(tmp_path / "b_val.jsonl", line("right guy", 8, [320, 240, 320, 240]))
    left, dog, right = read_refer_lines(tmp_path)
    assert (left.source, left.sentence, left.image_id, right.source) == ("a_val", "left guy", 1, "b_val")
    assert np.allclose(left.boxes, [[0, 0, 0.5, 1], [0.5, 0.5, 1, 1]])
    assert (left.meant, right.meant, len(dog.boxes)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("reach", "size"),
    [
        ((640, 480), (640, 480)),
        ((480, 640), (480, 640)),
        ((640, 427), (640, 427)),
        ((300, 200), (640, 480)),
        ((700, 500), (700, 512)),
    ],
)
def test_a_photos_size_is_guessed_from_its_boxes(reach: tuple[int, int], size: tuple[int, int], tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", line("it", 1, [0, 0, *reach]))
    [thing] = read_refer_lines(tmp_path)
    assert np.allclose(thing.boxes[0, 2:], np.array(reach) / size, atol=1e-3)


@pytest.mark.parametrize("bad", ["no JSON", '{"image_id": 1}', line("it", 1, [0, 0, 1])])
def test_a_line_that_is_none_is_said(bad: str, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", line("it", 1, [0, 0, 5, 5]), bad)
    with pytest.raises(DatasetError, match=r"a\.jsonl"):
        read_refer_lines(tmp_path)


def test_a_cut_file_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no"):
        read_refer_lines(tmp_path)
    write(tmp_path / "a.jsonl.gz", line("it", 1, [0, 0, 5, 5]))
    (tmp_path / "a.jsonl.gz").write_bytes((tmp_path / "a.jsonl.gz").read_bytes()[:-9])
    with pytest.raises(DatasetError, match="isn't lines of JSON"):
        read_refer_lines(tmp_path)
