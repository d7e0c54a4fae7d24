"""COCO documents: exact masks, ids that follow the content, what sentences mean, and splits that stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from annotated import CONFIG, XML, annotation, drawn, slow_decode, task
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools.coco import COCO
from small_project import HEIGHT, PHOTOS, TASKS, WIDTH, blob, build, load, photo, saved_anew

from backend.datasets.annotations import Edit, read_corrections
from backend.datasets.dataset import Dataset
from backend.datasets.formats import coco
from backend.datasets.image_store import StoredImage
from backend.datasets.instances import categories_of, dataset_image
from backend.datasets.snapshots import Snapshot, build_snapshot
from backend.labelstudio import label_config
from ris_core.data import read_folder
from ris_core.files import sha256
from ris_core.images import read_image


def test_every_mask_is_label_studios_bit_for_bit(tmp_path: Path) -> None:
    snapshot = build(tmp_path)
    dataset = COCO(snapshot.folder / "instances.json")
    regions = {
        (found["id"], region["id"]): region
        for entry in TASKS
        for found in entry["annotations"]
        for region in found["result"]
        if region["type"] == "brushlabels"
    }
    assert len(dataset.anns) == len(regions) == snapshot.annotations == 5
    for entry in dataset.anns.values():
        region = regions[entry["ls"]["annotation"], entry["ls"]["region"]]
        truth = slow_decode(region["value"]["rle"], HEIGHT, WIDTH)
        assert np.array_equal(dataset.annToMask(entry), truth)
        assert entry["area"] == truth.sum()
        rows, columns = np.nonzero(truth)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert entry["bbox"] == box
        assert entry["iscrowd"] == 0
        assert dataset.imgs[entry["image_id"]]["id"] == entry["ls"]["task"]


@given(st.lists(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24)), min_size=1, max_size=3))
def test_any_mask_with_any_holes_is_exact(masks: list[np.ndarray]) -> None:
    tasks = [task(n, annotation(n, drawn("r", mask, prompt="it"))) for n, mask in enumerate(masks, 1)]
    stored = StoredImage("0" * 64, Path("p"), 24, 24, ".png", "0" * 64)
    images = [
        dataset_image(item, stored, f"{item.task}.png", {"cat": 1}) for item in read_corrections(tasks, CONFIG).items
    ]
    dataset = COCO()
    with TemporaryDirectory() as folder:
        coco.write_documents(Dataset("", categories_of({"cat": 1}, CONFIG), lambda: iter(images)), Path(folder))
        dataset.dataset = json.loads((Path(folder) / "instances.json").read_text())
    dataset.createIndex()
    decoded = {entry["image_id"]: dataset.annToMask(entry) for entry in dataset.anns.values()}
    expected = {n: mask for n, mask in enumerate(masks, 1) if mask.any()}
    assert decoded.keys() == expected.keys()
    assert all(np.array_equal(decoded[n], mask) for n, mask in expected.items())


def test_images_and_categories(tmp_path: Path) -> None:
    snapshot = build(tmp_path)
    instances = load(snapshot, "instances.json")
    assert [(entry["id"], entry["name"]) for entry in instances["categories"]] == [
        (1, "cat"),
        (2, "big dog"),
        (3, "cup"),
    ]
    assert {entry["supercategory"] for entry in instances["categories"]} == {"brush"}
    # Task 6 was never annotated; task 5 was, with nothing in it.
    assert [entry["id"] for entry in instances["images"]] == [1, 2, 3, 4, 5]
    assert snapshot.images == 5
    for entry in instances["images"]:
        data = (snapshot.folder / "images" / entry["file_name"]).read_bytes()
        assert data == PHOTOS[entry["id"]]
        assert entry["sha256"] == sha256(data)
        assert (entry["height"], entry["width"]) == (HEIGHT, WIDTH)
    names = [entry["file_name"] for entry in instances["images"]]
    assert names[0] == "1_00000001-photo.png"
    assert sorted(names) == sorted(path.name for path in (snapshot.folder / "images").iterdir())


def test_categories_keep_their_numbers_from_export_to_export(tmp_path: Path) -> None:
    def categories(xml: str) -> dict[str, int]:
        config = label_config.parse(xml)
        snapshot = build_snapshot(
            3, read_corrections(TASKS, config), config, lambda correction: PHOTOS[correction.task], tmp_path
        )
        named = {each["name"]: each["id"] for each in load(snapshot, "instances.json")["categories"]}
        used = {each["category_id"] for each in load(snapshot, "instances.json")["annotations"]}
        assert used <= set(named.values())
        assert list(named.values()) == sorted(named.values())
        return named

    assert categories(XML) == {"cat": 1, "big dog": 2, "cup": 3}
    moved = XML.replace('<Label value="cup"/>', "").replace(
        '<Label value="cat"/>', '<Label value="bird"/><Label value="cup"/><Label value="cat" category="90"/>'
    )
    assert categories(moved) == {"big dog": 2, "cup": 3, "bird": 91, "cat": 90}


def test_a_region_says_where_it_comes_from(tmp_path: Path) -> None:
    answered = drawn("a", blob(1), "cat", "The cat", origin="prediction", score=0.83)
    changed = drawn("b", blob(2), "dog", "a dog", origin="prediction-changed", score=0.5)
    added = drawn("c", blob(3), "dog", "a dog", score=0.7)
    tasks = [task(1, annotation(11, answered, changed, added, drawn("d", blob(4), "cup"), parent_prediction=5))]
    read = read_corrections(tasks, CONFIG)
    edited = [replace(said, edit=Edit("corrected", 0.9, 3, version="lda-1")) for said in read.items[0].expressions]
    corrections = replace(read, items=(replace(read.items[0], expressions=tuple(edited)),))
    snapshot = build_snapshot(3, corrections, CONFIG, lambda correction: PHOTOS[correction.task], tmp_path)
    common = {"task": 1, "annotation": 11, "parent_prediction": 5, "completed_by": 1, "ground_truth": False}
    assert [each["ls"] for each in load(snapshot, "instances.json")["annotations"]] == [
        {**common, "region": region, "origin": origin, "prompts": prompts, "model_version": version, "score": score}
        for region, origin, prompts, version, score in (
            ("a", "prediction", ["The cat"], "lda-1", 0.83),
            ("b", "prediction-changed", ["a dog"], "lda-1", 0.5),
            ("c", "manual", ["a dog"], None, None),
            ("d", "manual", [], None, None),
        )
    ]


def test_refs_tell_what_each_sentence_means(tmp_path: Path) -> None:
    snapshot = build(tmp_path)
    refs = {(ref["image_id"], ref["sentences"][0]["sent"]): ref for ref in load(snapshot, "refs.json")}
    ids = {
        (entry["image_id"], entry["ls"]["region"]): entry["id"]
        for entry in load(snapshot, "instances.json")["annotations"]
    }
    assert refs.keys() == {(1, "the cat"), (1, "a dog"), (2, "cats"), (3, "a unicorn")}
    assert snapshot.refs == 4
    assert refs[1, "the cat"]["ann_id"] == [ids[1, "a"]]
    assert refs[1, "the cat"]["category_id"] == [1]
    assert refs[1, "the cat"]["sentences"][0]["raw"] == "The cat"
    assert refs[1, "the cat"]["sentences"][0]["tokens"] == ["the", "cat"]
    assert refs[2, "cats"]["ann_id"] == [ids[2, "a"], ids[2, "c"]]
    assert refs[2, "cats"]["category_id"] == [1, 2]
    assert refs[3, "a unicorn"]["ann_id"] == refs[3, "a unicorn"]["category_id"] == [-1]
    for ref in refs.values():
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert ref["split"] in ("train", "val", "test")
    assert len({ref["ref_id"] for ref in refs.values()}) == len(refs)


def test_refs_tell_what_became_of_the_prediction(tmp_path: Path) -> None:
    edits = {
        "the cat": Edit("corrected", 2 / 3, 50),
        "a dog": Edit("accepted", 1.0, 0),
        "cats": Edit("manual"),
        "a unicorn": Edit("corrected", 0.0, 9),
    }
    read = read_corrections(TASKS, CONFIG)
    items = tuple(
        replace(item, expressions=tuple(replace(said, edit=edits[said.cleaned]) for said in item.expressions))
        for item in read.items
    )
    corrections = replace(read, items=items)
    snapshot = build_snapshot(3, corrections, CONFIG, lambda correction: PHOTOS[correction.task], tmp_path)
    refs = {ref["sentences"][0]["sent"]: ref for ref in load(snapshot, "refs.json")}
    assert {sent: (ref["origin"], ref.get("iou")) for sent, ref in refs.items()} == {
        "the cat": ("corrected", 0.6667),
        "a dog": ("accepted", 1.0),
        "cats": ("manual", None),
        "a unicorn": ("absent", 0.0),
    }
    assert {sample.sentence: sample.origin for sample in read_folder(snapshot.folder)} == {
        sent: ref["origin"] for sent, ref in refs.items()
    }
    # Where nobody looked at predictions, nothing is said of them.
    assert {sample.origin for sample in read_folder(build(tmp_path).folder)} == {""}


def test_the_reader_of_training_finds_the_same_masks(tmp_path: Path) -> None:
    samples = {(sample.image_id, sample.sentence): sample for sample in read_folder(build(tmp_path).folder)}
    assert np.array_equal(samples[2, "cats"].mask(), blob(3) | blob(4))
    assert not samples[3, "a unicorn"].has_target
    for sample in samples.values():
        assert read_image(sample.image).shape == (sample.height, sample.width, 3)


def test_ids_of_regions_and_sentences_stay_when_tasks_come_and_go(tmp_path: Path) -> None:
    def ids(snapshot: Snapshot) -> tuple[dict[Any, int], dict[Any, tuple[int, str]]]:
        annotations = load(snapshot, "instances.json")["annotations"]
        return (
            {(entry["ls"]["annotation"], entry["ls"]["region"]): entry["id"] for entry in annotations},
            {
                (ref["image_id"], ref["sentences"][0]["raw"]): (ref["ref_id"], ref["split"])
                for ref in load(snapshot, "refs.json")
            },
        )

    few, many = ids(build(tmp_path, TASKS[1:3])), ids(build(tmp_path))
    for subset, whole in zip(few, many, strict=True):
        assert subset
        assert subset.items() <= whole.items()


def test_a_photo_is_in_one_split_only(tmp_path: Path) -> None:
    tasks = [task(n, annotation(n, drawn("a", blob(n), prompt="it"))) for n in range(1, 61)]
    photos = {n: photo(n % 20) for n in range(1, 61)}
    split_of_photo: dict[str, set[str]] = {}
    for sample in read_folder(build(tmp_path, tasks, photos).folder):
        split_of_photo.setdefault(sha256(sample.image), set()).add(sample.split)
    assert len(split_of_photo) == 20
    assert all(len(splits) == 1 for splits in split_of_photo.values())
    assert set.union(*split_of_photo.values()) == {"train", "val", "test"}


def splits(snapshot: Snapshot) -> dict[int, str]:
    """Of each task the split that its photo is in."""
    return {sample.image_id: sample.split for sample in read_folder(snapshot.folder)}


def test_a_photo_stays_in_its_split_whatever_happens_to_its_task(tmp_path: Path) -> None:
    """Uploaded under another name, deleted and imported again, saved anew; alone and beside its copies."""

    def asked(*numbers: int) -> list[dict[str, Any]]:
        return [
            task(n, annotation(n, drawn("a", blob(n), prompt="it")), image=f"/data/upload/1/{n}-{n}.png")
            for n in numbers
        ]

    originals = {n: photo(n) for n in range(1, 41)}
    before = splits(build(tmp_path, asked(*originals), originals))
    assert set(before.values()) == {"train", "val", "test"}
    copies = {n + 100: photo(n) for n in originals} | {n + 200: saved_anew(n) for n in originals}
    assert all(sha256(copies[n + 200]) != sha256(originals[n]) for n in originals)
    # Beside the originals, and after those were deleted.
    for photos in (originals | copies, copies):
        after = splits(build(tmp_path, asked(*photos), photos))
        assert all(split == before[n % 100] for n, split in after.items())
        assert len(after) == len(photos)
    # On another machine, which never saw the originals, copies are still together.
    fresh = splits(build(tmp_path / "fresh", asked(*copies), copies))
    assert all(fresh[n + 100] == fresh[n + 200] == before[n] for n in originals)
