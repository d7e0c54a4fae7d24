"""RefCOCO and its kin, exactly: which pixels, which photo, which split; and files that are missing or at odds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import python2
from published import ANNOTATIONS, FIRST, SECOND, instances, ref, write_grefcoco, write_refer

from ris_core.data import read_dataset
from ris_core.errors import DatasetError

REFS = [
    ref(1, 1, "train", "man on right", "right guy"),
    ref(2, 2, "val", "lady"),
    ref(3, 6, "testA", "far strip", photo=8),
    ref(4, 5, "testB", "corner"),
]


def read(root: Path, kind: str = "refcoco/unc", split: str | None = None) -> list[Any]:
    return read_dataset(f"{kind}:{root}", split)


def test_one_sample_a_sentence(tmp_path: Path) -> None:
    samples = read(write_refer(tmp_path, REFS))
    assert [(s.ref_id, s.split, s.sentence) for s in samples] == [
        (1, "train", "man on right"),
        (1, "train", "right guy"),
        (2, "val", "lady"),
        (3, "testA", "far strip"),
        (4, "testB", "corner"),
    ]
    assert [(s.height, s.width) for s in samples] == [(10, 12)] * 5


def test_the_photo_is_that_of_instances_json(tmp_path: Path) -> None:
    samples = read(write_refer(tmp_path, REFS))
    photos = tmp_path / "images" / "mscoco" / "images" / "train2014"
    assert {s.image for s in samples} == {photos / FIRST, photos / SECOND}
    assert {s.image_id: s.image.name for s in samples} == {7: FIRST, 8: SECOND}


@pytest.mark.parametrize(("annotation", "pixels"), [(1, 16), (2, 28), (3, 36), (4, 20), (5, 4), (6, 24)])
def test_masks(tmp_path: Path, annotation: int, pixels: int) -> None:
    (sample,) = read(write_refer(tmp_path, [ref(1, annotation, "val", "it", photo=ANNOTATIONS[annotation][0])]))
    assert sample.mask().shape == (10, 12)
    assert int(sample.mask().sum()) == pixels
    assert sample.has_target


def test_overlapping_polygons_keep_their_overlap(tmp_path: Path) -> None:
    (sample,) = read(write_refer(tmp_path, [ref(1, 2, "val", "it")]))
    assert sample.mask()[2:4, 2:4].all()


def test_splits_match_exactly(tmp_path: Path) -> None:
    write_refer(tmp_path, [*REFS, ref(5, 1, "testAB", "both")])
    assert [s.ref_id for s in read(tmp_path, split="testA")] == [3]
    assert [s.ref_id for s in read(tmp_path, split="train")] == [1, 1]
    assert len(read(tmp_path)) == 6


@pytest.mark.parametrize(("kind", "split"), [("refcoco/unc", "test"), ("refcocog/google", "test"), ("phrasecut", "x")])
def test_splits_that_a_set_lacks(tmp_path: Path, kind: str, split: str) -> None:
    with pytest.raises(DatasetError, match=f"{kind} has no split '{split}'. It has train, val"):
        read(tmp_path, kind, split)


@pytest.mark.parametrize(
    ("kind", "dataset", "partition"),
    [
        ("refcoco/google", "refcoco", "google"),
        ("refcoco+/unc", "refcoco+", "unc"),
        ("refcocog/umd", "refcocog", "umd"),
        ("refcocog/google", "refcocog", "google"),
        ("referit/unc", "refclef", "unc"),
        ("referit/berkeley", "refclef", "berkeley"),
    ],
)
def test_every_set_and_partition(tmp_path: Path, kind: str, dataset: str, partition: str) -> None:
    write_refer(tmp_path, REFS, dataset, partition)
    assert [s.sentence for s in read(tmp_path, kind, "val")] == ["lady"]


def test_photos_of_referit_lie_elsewhere(tmp_path: Path) -> None:
    samples = read(write_refer(tmp_path, REFS, "refclef", "berkeley"), "referit/berkeley")
    assert {s.image.parent for s in samples} == {tmp_path / "images" / "saiapr_tc-12"}


@pytest.mark.parametrize(
    ("annotations", "pixels", "targets"),
    [
        ([1], 16, 1),
        ([1, 3], 16 + 36 - 8, 2),
        ([1, 5, 3], 16 + 4 + 36 - 8, 3),
        ([1, 4], 16, 1),  # a crowd among several is left out
        ([4], 20, 1),  # a crowd alone is what is meant
        ([-1], 0, 0),
    ],
)
def test_grefcoco(tmp_path: Path, annotations: list[int], pixels: int, targets: int) -> None:
    (sample,) = read(write_grefcoco(tmp_path, [ref(1, annotations, "val", "they")]), "grefcoco/unc")
    assert int(sample.mask().sum()) == pixels
    assert (sample.has_target, len(sample.segmentations)) == (targets > 0, targets)
    assert sample.image == tmp_path / "images" / "train2014" / FIRST


def test_grefcoco_as_a_pickle(tmp_path: Path) -> None:
    write_grefcoco(tmp_path, [])
    (tmp_path / "grefcoco" / "grefs(unc).json").unlink()
    refs = [{b"ref_id": 1, b"image_id": 7, b"ann_id": [1, 3], b"split": b"val", b"sentences": [{b"sent": b"they"}]}]
    (tmp_path / "grefcoco" / "grefs(unc).p").write_bytes(python2.dumps(refs))
    (sample,) = read(tmp_path, "grefcoco/unc", "val")
    assert (sample.sentence, int(sample.mask().sum())) == ("they", 44)


def test_missing_files_are_one_error_that_draws_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, "refcoco+/unc")
    assert str(caught.value) == (
        f"{tmp_path} lacks refcoco+/refs(unc).p, refcoco+/instances.json, images/mscoco/images/train2014/. "
        "It has to hold\n"
        "    refcoco+/refs(unc).p\n"
        "    refcoco+/instances.json\n"
        "    images/mscoco/images/train2014/ or images/train2014/"
    )
    write_refer(tmp_path, REFS, "refcoco+")
    (tmp_path / "refcoco+" / "instances.json").unlink()
    with pytest.raises(DatasetError, match=r"lacks refcoco\+/instances\.json\. It has"):
        read(tmp_path, "refcoco+/unc")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    write_refer(tmp_path, REFS)
    (tmp_path / "refcoco" / "instances.json").unlink()
    (tmp_path / "refcoco" / "instances.json").mkdir()
    with pytest.raises(DatasetError, match=r"lacks refcoco/instances\.json\. It has"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (ref(1, 99, "val", "it"), "KeyError(99)"),
        (ref(1, 1, "val", "it", photo=9), "KeyError(9)"),
        (ref(1, 6, "val", "it"), "ref 1 means an annotation of another photo"),
        ({"ref_id": 1}, "KeyError('image_id')"),
        ("ref", "TypeError"),
    ],
    ids=["annotation", "photo", "of another photo", "no photo", "no ref"],
)
def test_files_at_odds(tmp_path: Path, bad: Any, said: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read(write_refer(tmp_path, [bad]))
    assert "refs(unc).p doesn't fit its instances.json: " in str(caught.value)
    assert said in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_refer(tmp_path, REFS)
    whole = (tmp_path / "refcoco" / "refs(unc).p").read_bytes()
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(whole[:-100])
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p isn't a pickle"):
        read(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(whole)
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(instances())[:-9])
    with pytest.raises(DatasetError, match=r"instances\.json isn't JSON"):
        read(tmp_path)
