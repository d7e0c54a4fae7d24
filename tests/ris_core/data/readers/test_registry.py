"""The registry: kinds by name, published counts, and mixed training without leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from published import ref, task, write_grefcoco, write_phrasecut, write_refer

from ris_core.data import Sample, read_dataset, without_leaks
from ris_core.data.readers.registry import READERS, count_differences, dataset_name, held_out_splits, parse_dataset
from ris_core.data.splits import photo_identity
from ris_core.errors import DatasetError


def sample(name: str, split: str = "train", coco_id: int | None = None) -> Sample:
    return Sample(Path("photos") / name, 1, 1, split, "it", 10, 12, (), coco_id)


def test_kinds() -> None:
    assert list(READERS) == [
        "refcoco/unc",
        "refcoco/google",
        "refcoco+/unc",
        "refcocog/umd",
        "refcocog/google",
        "grefcoco/unc",
        "phrasecut",
        "referit/unc",
        "referit/berkeley",
        "referit/trainval",
        "referit/train",
    ]


def test_published_counts() -> None:
    totals = {kind: sum(filter(None, reader.splits.values())) for kind, reader in READERS.items()}
    assert totals["refcoco/unc"] == 142_210
    assert totals["refcoco+/unc"] == 141_564
    assert totals["refcocog/umd"] == totals["refcocog/google"] == 95_010
    assert totals["grefcoco/unc"] == 259_859
    assert totals["phrasecut"] == 346_307
    assert totals["referit/trainval"] == totals["referit/train"] == 120_072


def test_counts_that_differ_are_said_and_no_error() -> None:
    samples = [sample("a.jpg", "val")] * 10_834 + [sample("b.jpg", "testA")] * 2
    assert count_differences("refcoco/unc", samples) == [
        "refcoco/unc has 2 expressions in testA here, 5,657 as published."
    ]
    assert count_differences("referit/berkeley", samples) == []


def test_a_kind_and_its_folder() -> None:
    assert parse_dataset("refcoco+/unc:/data/refer") == ("refcoco+/unc", Path("/data/refer"))
    assert parse_dataset(Path("phrasecut:data")) == ("phrasecut", Path("data"))
    assert parse_dataset("/data/refer") == (None, Path("/data/refer"))
    assert (dataset_name("grefcoco/unc:/data"), dataset_name("data/ccp")) == ("grefcoco/unc", "ccp")
    with pytest.raises(DatasetError, match=r"no dataset of the kind 'refcoco'\. Choose from refcoco/unc, "):
        read_dataset("refcoco:/data")


def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "refcoco:mine"
    folder.mkdir()
    (folder / "instances.json").write_text(json.dumps({"images": [], "annotations": []}))
    (folder / "refs.json").write_text("[]")
    assert parse_dataset(folder) == (None, folder)
    assert read_dataset(folder) == []


def test_held_out_splits() -> None:
    assert held_out_splits([sample("", split) for split in ("testB", "train", "val", "testA", "val")]) == [
        "val",
        "testA",
        "testB",
    ]


@pytest.mark.parametrize(
    ("name", "coco_id", "identity"),
    [
        ("COCO_train2014_000000581857.jpg", None, "coco/581857"),
        ("COCO_val2014_000000000042.jpg", None, "coco/42"),
        ("000000581857.jpg", None, "coco/581857"),
        ("2361.jpg", 581857, "coco/581857"),
        ("2361.jpg", None, "2361.jpg"),
        ("COCO_train2014_000000581857_3.jpg", None, "COCO_train2014_000000581857_3.jpg"),
    ],
)
def test_one_photo_under_many_names(name: str, coco_id: int | None, identity: str) -> None:
    assert photo_identity(sample(name, coco_id=coco_id)) == identity


def test_mixed_training_without_leaks(tmp_path: Path) -> None:
    write_refer(tmp_path / "a", [ref(1, 1, "train", "a"), ref(2, 6, "val", "b", photo=8)])
    write_grefcoco(tmp_path / "b", [ref(1, [1], "train", "c"), ref(2, [6], "train", "d", photo=8)])
    write_phrasecut(tmp_path / "c", train=[task(61, "e"), task(62, "f")])  # Visual Genome's 61 is COCO's 8
    everything = [
        *read_dataset(f"refcoco/unc:{tmp_path / 'a'}"),
        *read_dataset(f"grefcoco/unc:{tmp_path / 'b'}"),
        *read_dataset(f"phrasecut:{tmp_path / 'c'}", "train"),
    ]
    training = [sample for sample in everything if sample.split == "train"]
    kept = without_leaks(training, [sample for sample in everything if sample.split != "train"])
    assert [sample.sentence for sample in kept] == ["a", "c", "f"]
    assert without_leaks(training, []) == training
    assert without_leaks(training, [replace(sample, split="val") for sample in training]) == []
