"""RefCOCO's and gRefCOCO's layouts, read by small readers of their own, written after what those sets document."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CONFIG, annotation, drawn, task
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from small_project import HEIGHT, PHOTOS, TASKS, WIDTH, blob, build, contents, export_snapshot, load, photo
from studio import PROJECT, Studio, running

from backend.datasets.annotations import Expression, read_corrections
from backend.datasets.dataset import read_dataset_folder
from backend.datasets.export import ExportSpec, export_project
from backend.datasets.formats import EXPORT_FORMATS, refer
from backend.datasets.formats.options import ExportOptions
from backend.datasets.snapshots import Snapshot, build_snapshot, verify
from ris_core.data import read_dataset, read_folder
from ris_core.data.datasets import Datasets
from ris_core.data.folder import Sample
from ris_core.masks import encode_rle

Said = dict[tuple[int, str], np.ndarray]


class Refer:
    """In the manner of RefCOCO's API: one annotation a ref, found by number; of `segmentation` only lists are known."""

    def __init__(self, root: Path, dataset: str = "refcoco", split_by: str = "unc") -> None:
        folder = root / dataset
        self.pictures = root / "images" / "mscoco" / "images" / "train2014"
        with (folder / f"refs({split_by}).p").open("rb") as file:
            self.refs = pickle.load(file)
        instances = json.loads((folder / "instances.json").read_text())
        self.annotations = {each["id"]: each for each in instances["annotations"]}
        self.images = {each["id"]: each for each in instances["images"]}
        self.categories = {each["id"]: each["name"] for each in instances["categories"]}
        self.ref_of_annotation, self.refs_of_category, self.ref_of_sentence = {}, {}, {}
        for ref in self.refs:
            assert ref["ann_id"] not in self.ref_of_annotation, "one ref an object"
            self.ref_of_annotation[ref["ann_id"]] = ref
            self.refs_of_category.setdefault(ref["category_id"], []).append(ref)
            assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
            self.ref_of_sentence.update({sentence["sent_id"]: ref for sentence in ref["sentences"]})

    def ref_ids(self, split: str) -> list[int]:
        """As there: testA are all splits with an A in their name."""
        return [
            ref["ref_id"]
            for ref in self.refs
            if (split[-1] in ref["split"] if "test" in split else split == ref["split"])
        ]

    def mask(self, ref: Mapping[str, Any]) -> np.ndarray:
        """HxW counts: how many polygons cover a pixel, which some code takes for the object where it is 1."""
        return covered(self.annotations[ref["ann_id"]], self.images[ref["image_id"]])

    def said(self) -> Said:
        found = {}
        for ref in self.refs:
            for sentence in ref["sentences"]:
                assert sentence["tokens"] == sentence["sent"].split()
                found[ref["image_id"], sentence["sent"]] = self.mask(ref)
        return found


class GRefer:
    """In the manner of gRefCOCO's API: `ann_id` is gone through as a list, -1 is no annotation."""

    def __init__(self, root: Path) -> None:
        self.pictures = root / "images" / "train2014"
        self.refs = json.loads((root / "grefcoco" / "grefs(unc).json").read_text())
        instances = json.loads((root / "grefcoco" / "instances.json").read_text())
        self.images = {each["id"]: each for each in instances["images"]}
        self.annotations = {-1: None} | {each["id"]: each for each in instances["annotations"]}
        self.refs_of_category: dict[int, list[Any]] = {}
        for ref in self.refs:
            for number in ref["category_id"]:
                self.refs_of_category.setdefault(number, []).append(ref)

    def mask(self, ref: Mapping[str, Any]) -> np.ndarray:
        image = self.images[ref["image_id"]]
        union = np.zeros((image["height"], image["width"]), np.uint8)
        if ref["ann_id"] == [-1]:
            return union
        for number in ref["ann_id"]:
            assert not self.annotations[number]["iscrowd"]
            union |= covered(self.annotations[number], image)
        return union

    def said(self) -> Said:
        return {(ref["image_id"], each["sent"]): self.mask(ref) for ref in self.refs for each in ref["sentences"]}


def covered(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> np.ndarray:
    assert type(annotation["segmentation"][0]) is list
    assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in annotation["segmentation"])
    runs = coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"])
    assert sum(coco_mask.area(runs)) == annotation["area"]
    return coco_mask.decode(runs).sum(axis=2).astype(np.uint8)


def expected() -> Said:
    """What the annotators of `TASKS` meant."""
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    return {
        (1, "the cat"): blob(1),
        (1, "a dog"): blob(2),
        (2, "cats"): blob(3) | blob(4),
        (3, "a unicorn"): nothing,
    }


def same(found: Said, truth: Said) -> bool:
    return found.keys() == truth.keys() and all(np.array_equal(found[key], mask) for key, mask in truth.items())


def as_said(samples: list[Sample]) -> Said:
    return {(sample.image_id, sample.sentence): sample.mask() for sample in samples}


@pytest.fixture
def exported(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    """A project, read from a Label Studio over HTTP and exported; and the report."""
    studio = Studio(TASKS, {each["data"]["image"]: PHOTOS[each["id"]] for each in TASKS})
    out = tmp_path / "out"
    with running(studio, tmp_path / "cache") as (client, images, _):
        report = export_project(client, images, PROJECT, out, home=tmp_path / "home", spec=ExportSpec(request.param))
    return out, report


@pytest.mark.parametrize("exported", ["refcoco"], indirect=True)
def test_a_refer_style_reader_reads_refcoco(exported: tuple[Path, dict[str, Any]]) -> None:
    out, report = exported
    reader = Refer(out)
    said = {key: mask for key, mask in expected().items() if key[0] == 1}
    assert same(reader.said(), said)
    assert {reader.categories[number] for number in reader.refs_of_category} == {"cat", "big dog"}
    for ref in reader.refs:
        assert {type(ref[key]) for key in ("ref_id", "ann_id", "category_id", "image_id")} == {int}
        assert ref["category_id"] == reader.annotations[ref["ann_id"]]["category_id"]
        name = reader.images[ref["image_id"]]["file_name"]
        assert "_".join(ref["file_name"].split("_")[:-1]) == Path(name).stem
        with Image.open(reader.pictures / name) as picture:
            assert picture.size == (WIDTH, HEIGHT)
    assert (report["refs"], report["annotations"]) == (2, 5)
    assert report["left_out"] == {
        "expressions that mean several objects": 1,
        "expressions that mean nothing in their picture": 1,
    }
    verify(out)


@pytest.mark.parametrize("exported", ["grefcoco"], indirect=True)
def test_a_grefcoco_style_reader_reads_grefcoco(exported: tuple[Path, dict[str, Any]]) -> None:
    out, report = exported
    reader = GRefer(out)
    assert same(reader.said(), expected())
    assert reader.refs_of_category.keys() == {1, 2, -1}
    assert all((reader.pictures / each["file_name"]).is_file() for each in reader.images.values())
    assert (report["refs"], report["left_out"]) == (4, {})
    verify(out)


@pytest.mark.parametrize("exported", ["coco"], indirect=True)
def test_our_own_layout_has_one_type_a_field(exported: tuple[Path, dict[str, Any]]) -> None:
    out, report = exported
    known = {each["id"]: each for each in json.loads((out / "instances.json").read_text())["annotations"]}
    for ref in json.loads((out / "refs.json").read_text()):
        for number in ref["ann_id"]:
            assert number == -1 or known[number]["category_id"] in ref["category_id"]
    assert same(as_said(read_folder(out)), expected())
    assert report["left_out"] == {}


@pytest.mark.parametrize("exported", ["masks"], indirect=True)
def test_a_format_without_expressions_reports_none(exported: tuple[Path, dict[str, Any]]) -> None:
    _, report = exported
    assert (report["refs"], report["annotations"]) == (0, 5)
    assert report["left_out"]["expressions for which it has no place"] == 4
    assert len(report["left_out"]) > 1, "what isn't an expression doesn't count as one"


def many(home: Path) -> Snapshot:
    """Photos of all splits, each with an object of two sentences, a sentence of two objects, and one of none."""
    tasks = [task(n, annotation(n, drawn("a", blob(n)), drawn("b", blob(n + 50), "dog"))) for n in range(1, 25)]
    meant = {"the cat": ("a",), "that one": ("a",), "a dog": ("b",), "both": ("a", "b"), "a cup": ()}
    said = tuple(Expression(sentence, regions) for sentence, regions in meant.items())
    read = read_corrections(tasks, CONFIG)
    corrections = replace(read, items=tuple(replace(item, expressions=said) for item in read.items))
    return build_snapshot(3, corrections, CONFIG, lambda correction: photo(correction.task), home)


def test_every_reader_finds_the_same_expressions_and_masks(tmp_path: Path) -> None:
    snapshot = many(tmp_path / "home")
    for fmt in ("refcoco", "grefcoco"):
        export_snapshot(snapshot, tmp_path / fmt, fmt)
    ours = read_folder(snapshot.folder)
    general = read_dataset(f"grefcoco/unc:{tmp_path / 'grefcoco'}")
    single = read_dataset(f"refcoco/unc:{tmp_path / 'refcoco'}")
    assert same(as_said(general), as_said(ours))
    assert same(as_said(general), GRefer(tmp_path / "grefcoco").said())
    one = [sample for sample in ours if len(sample.segmentations) == 1]
    assert same(as_said(single), as_said(one))
    assert same(as_said(single), Refer(tmp_path / "refcoco").said())
    assert len(single) == 24 * 3
    splits = {(sample.image_id, sample.sentence): sample.split.replace("test", "testA") for sample in ours}
    for samples in (general, single):
        assert all(splits[sample.image_id, sample.sentence] == sample.split for sample in samples)
        assert {sample.split for sample in samples} == {"train", "val", "testA"}
        assert all(sample.photo().shape == (HEIGHT, WIDTH, 3) for sample in samples)
    both = Datasets.read([Path(f"{name}/unc:{tmp_path / name}") for name in ("refcoco", "grefcoco")])
    assert len(both.validation) == sum(sample.split == "val" for sample in (*general, *single)) > 0
    assert both.left_out == 0


def test_an_object_has_one_ref_with_all_its_sentences(tmp_path: Path) -> None:
    export_snapshot(many(tmp_path / "home"), tmp_path / "out", "refcoco")
    reader = Refer(tmp_path / "out")
    assert {len(ref["sentences"]) for ref in reader.refs} == {1, 2}
    assert len(reader.ref_of_annotation) == len({ref["ref_id"] for ref in reader.refs}) == 48
    assert len(reader.ref_of_sentence) == 72
    found = [number for split in ("train", "val", "testA") for number in reader.ref_ids(split)]
    assert sorted(found) == sorted(ref["ref_id"] for ref in reader.refs)


@pytest.mark.parametrize("fmt", list(EXPORT_FORMATS))
def test_the_same_snapshot_gives_the_same_bytes_and_replaces_any_export(tmp_path: Path, fmt: str) -> None:
    snapshot, out = many(tmp_path / "home"), tmp_path / "out"
    export_snapshot(snapshot, out, fmt)
    before = contents(out)
    script = (
        "import sys; from pathlib import Path; from small_project import write_snapshot;"
        "write_snapshot(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[1])"
    )
    other = tmp_path / "other"
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))}
    command = [sys.executable, "-c", script, fmt, str(snapshot.folder), str(other)]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, **paths})
    assert contents(other) == before
    names = list(EXPORT_FORMATS)
    for earlier in (fmt, names[names.index(fmt) - 1]):
        export_snapshot(snapshot, out, earlier)
        export_snapshot(snapshot, out, fmt)
        assert contents(out) == before


def test_snapshots_with_a_number_or_a_list_are_read_and_exported(tmp_path: Path) -> None:
    snapshot = build(tmp_path / "home")
    truth, path = expected(), snapshot.folder / "refs.json"
    refs = load(snapshot, "refs.json")
    for ref in refs:
        for key in ("ann_id", "category_id"):
            ref[key] = ref[key][0] if len(ref[key]) == 1 and ref[key] != [-1] else ref[key]
    assert {type(ref["ann_id"]) for ref in refs} == {int, list}
    path.chmod(0o644)
    path.write_text(json.dumps(refs))
    assert same(as_said(read_folder(snapshot.folder)), truth)
    for fmt in ("refcoco", "grefcoco"):
        export_snapshot(snapshot, tmp_path / fmt, fmt)
    assert same(GRefer(tmp_path / "grefcoco").said(), truth)
    assert {type(ref[key]) for ref in GRefer(tmp_path / "grefcoco").refs for key in ("ann_id", "category_id")} == {list}
    assert Refer(tmp_path / "refcoco").said().keys() == {(1, "the cat"), (1, "a dog")}


@settings(deadline=None, max_examples=40)
@given(
    masks=st.lists(arrays(np.bool_, (9, 11)).filter(np.any), min_size=1, max_size=3),
    split=st.sampled_from(["train", "val", "test"]),
)
def test_any_masks_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, masks: list[np.ndarray], split: str
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "images").mkdir()
    (folder / "images" / "7_a.png").write_bytes(b"a picture")
    rows = [
        {
            "id": n,
            "image_id": 7,
            "category_id": 1,
            "segmentation": encode_rle(mask),
            "area": int(mask.sum()),
            "iscrowd": 0,
        }
        for n, mask in enumerate(masks, 1)
    ]
    image = {"id": 7, "file_name": "7_a.png", "height": 9, "width": 11}
    named = {"images": [image], "annotations": rows, "categories": [{"id": 1, "name": "it"}]}
    (folder / "instances.json").write_text(json.dumps(named))
    meant = {"none": [-1], "all": list(range(1, len(masks) + 1)), **{f"the {n}": [n] for n in range(1, len(masks) + 1)}}
    refs = [
        {"ref_id": n, "image_id": 7, "ann_id": ids, "category_id": [1], "file_name": "7_a.png", "split": split}
        | {"sent_ids": [n], "sentences": [{"sent_id": n, "sent": sent, "raw": sent, "tokens": sent.split()}]}
        for n, (sent, ids) in enumerate(meant.items(), 1)
    ]
    (folder / "refs.json").write_text(json.dumps(refs))
    truth = as_said(read_folder(folder))
    outs = {name: folder / name for name in ("refcoco", "grefcoco")}
    for out in outs.values():
        out.mkdir()
    assert refer.write_grefcoco(read_dataset_folder(folder), outs["grefcoco"], ExportOptions()) == {}
    refer.write_refcoco(read_dataset_folder(folder), outs["refcoco"], ExportOptions())
    general, single = GRefer(outs["grefcoco"]).said(), Refer(outs["refcoco"]).said()
    assert same(general, truth)
    assert same(single, {key: truth[key] for key in single})
    assert {key for key, mask in truth.items() if mask.any()} - single.keys() <= {(7, "all")}
    assert same(as_said(read_dataset(f"grefcoco/unc:{outs['grefcoco']}")), truth)
    assert same(as_said(read_dataset(f"refcoco/unc:{outs['refcoco']}")), single)
