"""Snapshots and exports: exact masks, ids that follow the content, and nothing half-written, ever."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CONFIG, annotation, drawn, slow_decode, task, typed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pycocotools.coco import COCO
from studio import PROJECT, Studio, running

from backend.datasets import snapshots
from backend.datasets.annotations import Change, Correction, Corrections, read_corrections
from backend.datasets.export import export_project, export_snapshot
from backend.datasets.formats import coco
from backend.datasets.image_store import ImageStore, StoredImage
from backend.datasets.snapshots import Snapshot, build_snapshot, read_manifest, verify
from backend.errors import BadRequest, FetchFailed, LabelStudioError, LabelStudioUnreachable
from ris_core.data import read_folder
from ris_core.errors import DatasetError
from ris_core.files import sha256
from ris_core.images import read_image

HEIGHT, WIDTH = 24, 32


def photo(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH), kind: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def blob(seed: int) -> np.ndarray:
    """Two rings that touch the border, and a speck."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    top, left = np.random.default_rng(seed).integers(0, 12, 2)
    mask[top : top + 9, left : left + 9] = True
    mask[top + 2 : top + 5, left + 2 : left + 6] = False
    mask[0, ::2] ^= True
    return mask


TASKS = [
    task(1, annotation(11, drawn("a", blob(1), "cat", "The cat"), drawn("b", blob(2), "dog", "a dog"))),
    task(2, annotation(12, drawn("a", blob(3), "cat", "cats"), drawn("c", blob(4), "dog", "cats"))),
    task(3, annotation(13, typed("a unicorn"))),
    task(4, annotation(14, drawn("a", blob(5), "cup"), origin="manual")),
    task(5, annotation(15)),
    task(6),
]
PHOTOS = {number: photo(number) for number in range(1, 7)}


def build(
    home: Path, tasks: list[dict[str, Any]] = TASKS, photos: Mapping[int, bytes] = PHOTOS, **options: Any
) -> Snapshot:
    def fetch(correction: Correction) -> bytes:
        if correction.task not in photos:
            raise FetchFailed(f"Task {correction.task}'s image answers 404.")
        return photos[correction.task]

    return build_snapshot(3, read_corrections(tasks, CONFIG), CONFIG, fetch, home, **options)


def load(snapshot: Snapshot, name: str) -> Any:
    return json.loads((snapshot.folder / name).read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    items = [
        coco.Illustrated(item, StoredImage("0" * 64, Path("p"), 24, 24, ".png"), f"{item.task}.png")
        for item in read_corrections(tasks, CONFIG).items
    ]
    dataset = COCO()
    dataset.dataset = json.loads(json.dumps(coco.instances(1, items, CONFIG)))
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


def test_refs_tell_what_each_sentence_means(tmp_path: Path) -> None:
    snapshot = build(tmp_path)
    refs = {(ref["image_id"], ref["sentences"][0]["sent"]): ref for ref in load(snapshot, "refs.json")}
    ids = {
        (entry["image_id"], entry["ls"]["region"]): entry["id"]
        for entry in load(snapshot, "instances.json")["annotations"]
    }
    assert refs.keys() == {(1, "the cat"), (1, "a dog"), (2, "cats"), (3, "a unicorn")}
    assert snapshot.refs == 4
    assert refs[1, "the cat"]["ann_id"] == ids[1, "a"]
    assert refs[1, "the cat"]["category_id"] == 1
    assert refs[1, "the cat"]["sentences"][0]["raw"] == "The cat"
    assert refs[1, "the cat"]["sentences"][0]["tokens"] == ["the", "cat"]
    assert refs[2, "cats"]["ann_id"] == [ids[2, "a"], ids[2, "c"]]
    assert refs[2, "cats"]["category_id"] == [1, 2]
    assert refs[3, "a unicorn"]["ann_id"] == [-1]
    for ref in refs.values():
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert ref["split"] in ("train", "val", "test")
    assert len({ref["ref_id"] for ref in refs.values()}) == len(refs)


def test_refs_tell_what_became_of_the_prediction(tmp_path: Path) -> None:
    changes = {
        "the cat": Change("corrected", 2 / 3, 50),
        "a dog": Change("accepted", 1.0, 0),
        "cats": Change("manual"),
        "a unicorn": Change("corrected", 0.0, 9),
    }
    read = read_corrections(TASKS, CONFIG)
    items = tuple(
        replace(item, expressions=tuple(replace(each, change=changes[each.cleaned]) for each in item.expressions))
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


def test_the_same_content_has_the_same_id_and_is_kept_once(tmp_path: Path) -> None:
    first = build(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    later = json.loads(json.dumps(TASKS[::-1]).replace("2026-11-21", "2027-11-21"))
    assert build(tmp_path, later) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before
    elsewhere = build(tmp_path / "elsewhere")
    assert elsewhere.id == first.id
    assert contents(elsewhere.folder) == contents(first.folder)
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [".lock", first.id]
    image = next((first.folder / "images").iterdir())
    assert image.stat().st_nlink == 2, "the picture itself is stored once"


@pytest.mark.parametrize("change", ["mask", "prompt", "label", "picture", "removed"])
def test_other_content_has_another_id(tmp_path: Path, change: str) -> None:
    tasks, photos = list(TASKS), dict(PHOTOS)
    pixels = blob(5)
    pixels[0, 0] ^= change == "mask"
    tasks[3] = task(
        4,
        annotation(
            14,
            drawn("a", pixels, "cat" if change == "label" else "cup", "x" if change == "prompt" else None),
            origin="manual",
        ),
    )
    if change == "picture":
        photos[4] = photo(40)
    if change == "removed":
        del tasks[3]
    first = build(tmp_path)
    assert (tmp_path / "snapshots" / "3" / first.id).is_dir()
    assert build(tmp_path, tasks, photos).id != first.id


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


def saved_anew(seed: int) -> bytes:
    """`photo(seed)` with the same pixels and other bytes: metadata, and another compression."""
    info = PngInfo()
    info.add_text("Software", "another program")
    return photo(seed, compress_level=1, pnginfo=info)


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


def test_pictures_kept_before_are_told_apart_too(tmp_path: Path) -> None:
    """A store that was written without the digests of pixels."""
    store = ImageStore(tmp_path)
    first = store.add(photo(1))
    shutil.rmtree(tmp_path / "pixels")
    first.path.with_suffix(".original").unlink()
    assert store.add(photo(1)) == first
    assert store.add(saved_anew(1)).identity == first.identity == first.digest
    assert store.add(photo(2)).identity != first.identity


def test_a_bad_picture_costs_its_task_alone(tmp_path: Path) -> None:
    photos = {1: PHOTOS[1], 3: b"GIF89a nonsense", 4: photo(4, (10, 10)), 5: PHOTOS[5][:200]}
    snapshot = build(tmp_path, photos=photos)
    assert [entry["id"] for entry in load(snapshot, "instances.json")["images"]] == [1]
    reasons = {skipped.task: skipped.reason for skipped in snapshot.skipped}
    assert reasons.keys() == {2, 3, 4, 5}
    assert "404" in reasons[2]
    assert "drawn on 32 x 24 pixels, but its picture has 10 x 10" in reasons[4]
    assert {image["image_id"] for image in load(snapshot, "refs.json")} == {1}
    verify(snapshot.folder)


def test_a_picture_over_the_limit_is_left_out(tmp_path: Path) -> None:
    photos = PHOTOS | {2: photo(2, (HEIGHT * 2, WIDTH))}
    snapshot = build(tmp_path, photos=photos, max_pixels=HEIGHT * WIDTH)
    assert [skipped.task for skipped in snapshot.skipped] == [2]


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Project 3 has no submitted annotation yet"):
        build(tmp_path, [task(6)])
    with pytest.raises(DatasetError, match="Task 1: Task 1's image answers 404"):
        build(tmp_path, photos={})
    assert not (tmp_path / "snapshots").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_after_exif(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    sideways = orientation > 4
    size = (WIDTH, HEIGHT) if sideways else (HEIGHT, WIDTH)
    snapshot = build(tmp_path, TASKS[:1], {1: photo(1, size, "JPEG", exif=exif)})
    (entry,) = load(snapshot, "instances.json")["images"]
    assert (entry["height"], entry["width"]) == (HEIGHT, WIDTH)
    assert entry["file_name"] == "1_00000001-photo.jpg"
    assert read_image(snapshot.folder / "images" / entry["file_name"]).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/data/upload/1/ab-My%20cat.jpeg", "1_ab-My_cat.png"),
        ("https://host/a/cat.png?token=secret&d=", "1_cat.png"),
        ("/data/local-files/?d=shelf/photo.one.JPG", "1_photo.one.png"),
        ("s3://bucket/key/cat", "1_cat.png"),
        ("data:image/png;base64,AAAA/../../x", "1_image.png"),
        ("https://host/..%2f..%2fetc%2fpasswd", "1_passwd.png"),
        ("https://host/%2e%2e", "1_image.png"),
        ("/data/upload/1/" + "x" * 500 + ".png", "1_" + "x" * 100 + ".png"),
        ("/data/upload/1/猫.png", "1_image.png"),
        ("///", "1_image.png"),
    ],
)
def test_file_names_are_plain_and_give_nothing_away(tmp_path: Path, image: str, name: str) -> None:
    snapshot = build(tmp_path, [task(1, annotation(1), image=image)])
    assert [path.name for path in (snapshot.folder / "images").iterdir()] == [name]
    assert b"secret" not in b"".join(contents(snapshot.folder).values())


def test_a_kill_leaves_no_half_snapshot(tmp_path: Path) -> None:
    """The process dies once two pictures are linked, and again before the documents are written."""
    for name in ("link", "_json"):
        child = os.fork()
        if child == 0:
            _die_in(name, at=3)
            build(tmp_path)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        parent = tmp_path / "snapshots" / "3"
        assert not parent.exists() or all(path.name.startswith(".") for path in parent.iterdir())
    snapshot = build(tmp_path)
    verify(snapshot.folder)
    assert len(read_folder(snapshot.folder)) == 4
    assert sorted(path.name for path in parent.iterdir()) == [".lock", snapshot.id], "what they left is swept up"


def test_two_builders_at_once_make_one_snapshot(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = {snapshot.id for snapshot in pool.map(lambda _: build(tmp_path), range(8))}
    assert len(ids) == 1
    verify(tmp_path / "snapshots" / "3" / ids.pop())


def _die_in(name: str, at: int) -> None:
    original, calls = getattr(snapshots, name), iter(range(1, 100))

    def deadly(*arguments: Any) -> Any:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(snapshots, name, deadly)


def test_verify_notices_every_change(tmp_path: Path) -> None:
    snapshot = build(tmp_path)
    verify(snapshot.folder)
    for path in sorted(snapshot.folder.rglob("*.*")):
        if path.name == "manifest.json":
            continue
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(DatasetError, match=path.name):
            verify(snapshot.folder)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(DatasetError, match=path.name):
            verify(snapshot.folder)
        path.write_bytes(data)
    verify(snapshot.folder)
    with pytest.raises(DatasetError, match="isn't an export"):
        verify(tmp_path)


def test_an_export_is_a_copy_that_stands_alone(tmp_path: Path) -> None:
    snapshot = build(tmp_path / "home")
    out = tmp_path / "deep" / "out"
    export_snapshot(snapshot, out)
    assert contents(out) == contents(snapshot.folder)
    for path in out.rglob("*.*"):
        assert path.stat().st_nlink == 1
        path.write_bytes(b"edited")
    verify(snapshot.folder)


def test_an_export_replaces_an_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first, second = build(tmp_path / "home", TASKS[:2]), build(tmp_path / "home")
    for snapshot in (first, second, second):
        export_snapshot(snapshot, out)
        assert contents(out) == contents(snapshot.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


@pytest.mark.parametrize("foreign", ["notes.txt", "images/mine.png", ".hidden", "images/deep/er.txt"])
def test_an_export_never_removes_what_it_didnt_write(tmp_path: Path, foreign: str) -> None:
    out = tmp_path / "out"
    snapshot = build(tmp_path / "home")
    export_snapshot(snapshot, out)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    before = contents(out)
    with pytest.raises(DatasetError, match="which no export wrote"):
        export_snapshot(snapshot, out)
    assert contents(out) == before


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"format": "another", "files": {}}', '{"files": 3}'])
def test_an_export_refuses_a_folder_of_somebody_else(tmp_path: Path, manifest: str | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    snapshot = build(tmp_path / "home")
    with pytest.raises(DatasetError, match="isn't an export"):
        export_snapshot(snapshot, out)
    assert (out / "thesis.txt").read_text() == "years of work"
    with pytest.raises(DatasetError, match="is a file"):
        export_snapshot(snapshot, out / "thesis.txt")


def test_an_interrupted_export_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, out = build(tmp_path / "home"), tmp_path / "out"
    export_snapshot(build(tmp_path / "home", TASKS[:1]), out)
    before = contents(out)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(snapshots.shutil, "copytree", full)
        export_snapshot(snapshot, out)
    assert contents(out) == before
    export_snapshot(snapshot, out)
    assert contents(out) == contents(snapshot.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


@pytest.fixture
def studio() -> Studio:
    """More tasks than a page holds; all but three have the same picture; the last one's is missing."""
    tasks = [*TASKS, *(task(n, annotation(n, drawn("a", blob(n), prompt="it"))) for n in range(7, 121))]
    uploads = {entry["data"]["image"]: PHOTOS.get(entry["id"], PHOTOS[4]) for entry in tasks}
    del uploads[tasks[-1]["data"]["image"]]
    return Studio(tasks, uploads)


def test_a_project_is_exported_whole(tmp_path: Path, studio: Studio) -> None:
    out = tmp_path / "out"
    with running(studio, tmp_path / "cache") as (client, images, _):
        report = export_project(client, images, PROJECT, out, home=tmp_path / "home")
    assert (report["images"], report["annotations"], report["refs"]) == (118, 118, 117)
    assert [skipped["task"] for skipped in report["skipped"]] == [120]
    assert json.loads(json.dumps(report))["out"] == str(out)
    verify(out)
    dataset = COCO(out / "instances.json")
    assert len(dataset.imgs) == 118
    truth = {n: blob(n) for n in range(7, 120)}
    masks = {e["image_id"]: dataset.annToMask(e) for e in dataset.anns.values() if e["image_id"] in truth}
    assert masks.keys() == truth.keys()
    assert all(np.array_equal(masks[n], truth[n]) for n in truth)
    assert len(read_manifest(out)) == 118 + 2
    # Nothing in an export tells where the pictures came from.
    assert b"127.0.0.1" not in b"".join(path.read_bytes() for path in out.glob("*.json"))


def test_an_export_that_fails_leaves_the_last_one(tmp_path: Path, studio: Studio) -> None:
    out, home = tmp_path / "out", tmp_path / "home"
    with running(studio, tmp_path / "cache") as (client, images, site):
        with pytest.raises(BadRequest, match="Choose from coco"):
            export_project(client, images, PROJECT, out, home=home, fmt="yolo")
        assert not site.asked
        export_project(client, images, PROJECT, out, home=home)
        before = contents(out)
        studio.failing.add("/api/tasks/")
        with pytest.raises(LabelStudioError):
            export_project(client, images, PROJECT, out, home=home)
        studio.failing.clear()
        studio.tasks.clear()
        with pytest.raises(DatasetError, match="Project 3 has no submitted annotation"):
            export_project(client, images, PROJECT, out, home=home)
    assert contents(out) == before


def test_label_studio_going_down_midway_makes_no_half_snapshot(tmp_path: Path) -> None:
    calls = iter(range(9))

    def fetch(correction: Correction) -> bytes:
        if next(calls) == 2:
            raise LabelStudioUnreachable("Label Studio doesn't answer.")
        return PHOTOS[correction.task]

    with pytest.raises(LabelStudioUnreachable):
        build_snapshot(3, read_corrections(TASKS, CONFIG), CONFIG, fetch, tmp_path)
    assert not (tmp_path / "snapshots").exists()


def test_corrections_that_couldnt_be_read_are_reported_too(tmp_path: Path) -> None:
    broken = drawn("a", blob(1))
    broken["value"]["rle"] = []
    snapshot = build(tmp_path, [*TASKS, task(9, annotation(9, broken))])
    assert [skipped.task for skipped in snapshot.skipped] == [9]
    assert isinstance(read_corrections(TASKS, CONFIG), Corrections)
