"""Dataset folders as people hand them over: whole, odd and broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ris_core.data import read_folder
from ris_core.errors import DatasetError
from ris_core.masks import encode_rle


def write(folder: Path, refs: object, **changes: object) -> Path:
    mask = np.zeros((6, 8), dtype=bool)
    mask[:3] = True
    instances = {
        "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [
            {"id": 1, "image_id": 7, "segmentation": encode_rle(mask)},
            {"id": 2, "image_id": 7, "segmentation": [[0, 4, 8, 4, 8, 6, 0, 6]]},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(instances | changes))
    (folder / "refs.json").write_text(json.dumps(refs))
    return folder


def ref(ann_id: object, split: str = "val", number: int = 1) -> dict[str, object]:
    sentences = [{"sent_id": 1, "sent": "the top", "raw": "The top!"}, {"sent_id": 2, "sent": "up there", "raw": ""}]
    return {"ref_id": number, "image_id": 7, "ann_id": ann_id, "split": split, "sentences": sentences}


def test_one_sample_a_sentence(tmp_path: Path) -> None:
    samples = read_folder(write(tmp_path, [ref(1)]))
    assert [sample.sentence for sample in samples] == ["the top", "up there"]
    assert samples[0].image == tmp_path / "images" / "a.png"
    assert samples[0].mask().sum() == 24


@pytest.mark.parametrize(("ann_id", "area", "there"), [(2, 16, True), ([1, 2], 40, True), ([-1], 0, False)])
def test_targets(tmp_path: Path, ann_id: object, area: int, there: bool) -> None:
    (sample, _) = read_folder(write(tmp_path, [ref(ann_id)]))
    assert sample.mask().shape == (6, 8)
    assert (sample.mask().sum(), sample.has_target) == (area, there)


def test_splits(tmp_path: Path) -> None:
    write(tmp_path, [ref(1, "train", 1), ref(2, "val", 2), ref([-1], "test", 3)])
    assert len(read_folder(tmp_path)) == 6
    assert {sample.ref_id for sample in read_folder(tmp_path, "val")} == {2}
    assert read_folder(tmp_path, "testA") == []


@pytest.mark.parametrize("bad", [ref(9), {**ref(1), "image_id": 8}, {"ref_id": 1}, "ref", 3], ids=str)
def test_broken_refs_are_refused(tmp_path: Path, bad: object) -> None:
    with pytest.raises(DatasetError, match=r"refs\.json doesn't fit its instances\.json"):
        read_folder(write(tmp_path, [bad]))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"instances\.json is missing. A dataset folder holds"):
        read_folder(tmp_path)
    write(tmp_path, [])
    (tmp_path / "refs.json").write_text("{")
    with pytest.raises(DatasetError, match=r"refs\.json isn't JSON"):
        read_folder(tmp_path)


def test_a_ref_says_its_kind_and_older_ones_are_names(tmp_path: Path) -> None:
    samples = read_folder(write(tmp_path, [ref(1), {**ref(2, number=2), "kind": "derived"}]))
    assert [sample.kind for sample in samples] == ["name", "name", "derived", "derived"]


def test_a_ref_may_say_what_became_of_a_prediction(tmp_path: Path) -> None:
    samples = read_folder(write(tmp_path, [ref(1), {**ref(2, number=2), "origin": "corrected", "iou": 0.5}]))
    assert [sample.origin for sample in samples] == ["", "", "corrected", "corrected"]
