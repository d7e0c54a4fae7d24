"""Snapshots: ids that follow the content, and nothing half-written, ever."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from annotated import CONFIG, annotation, drawn, task
from PIL import Image
from small_project import HEIGHT, PHOTOS, TASKS, WIDTH, blob, build, contents, load, photo

from backend.datasets import snapshots
from backend.datasets.annotations import Correction, Corrections, read_corrections
from backend.datasets.snapshots import build_snapshot, verify
from backend.errors import LabelStudioUnreachable
from ris_core.data import read_folder
from ris_core.errors import DatasetError
from ris_core.images import read_image


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


def test_a_bad_image_costs_its_task_alone(tmp_path: Path) -> None:
    photos = {1: PHOTOS[1], 3: b"GIF89a nonsense", 4: photo(4, (10, 10)), 5: PHOTOS[5][:200]}
    snapshot = build(tmp_path, photos=photos)
    assert [entry["id"] for entry in load(snapshot, "instances.json")["images"]] == [1]
    reasons = {skipped.task: skipped.reason for skipped in snapshot.skipped}
    assert reasons.keys() == {2, 3, 4, 5}
    assert "404" in reasons[2]
    assert "drawn on 32 x 24 pixels, but its picture has 10 x 10" in reasons[4]
    assert {image["image_id"] for image in load(snapshot, "refs.json")} == {1}
    verify(snapshot.folder)


def test_an_image_over_the_limit_is_left_out(tmp_path: Path) -> None:
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
    path = snapshot.folder / "images" / entry["file_name"]
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    # As readers see it that know no EXIF.
    with Image.open(path) as image:
        assert image.size == (WIDTH, HEIGHT)
    verify(snapshot.folder)
    assert build(tmp_path, TASKS[:1], {1: photo(1, size, "JPEG", exif=exif)}) == snapshot


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("lies", [True, False])
def test_pictures_lie_as_they_did_when_their_masks_were_drawn(tmp_path: Path, kind: str, lies: bool) -> None:
    """Not every browser heeds every tag: the size that the editor wrote decides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = photo(1, (HEIGHT, WIDTH) if lies else (WIDTH, HEIGHT), kind, exif=exif)
    snapshot = build(tmp_path, TASKS[:1], {1: content})
    assert snapshot.skipped == ()
    with Image.open(next((snapshot.folder / "images").iterdir())) as image:
        assert (image.size, image.getexif().get(0x0112, 1)) == ((WIDTH, HEIGHT), 1)


def test_a_photo_without_a_tag_is_exported_byte_for_byte(tmp_path: Path) -> None:
    content = photo(1, (HEIGHT, WIDTH), "JPEG")
    snapshot = build(tmp_path, TASKS[:1], {1: content})
    assert next((snapshot.folder / "images").iterdir()).read_bytes() == content


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
    """The process dies once two images are linked, between the documents, and when all is written but the manifest."""
    for owner, name, at in ((snapshots, "link", 3), (Path, "rename", 2), (Path, "write_bytes", 1)):
        child = os.fork()
        if child == 0:
            die_in(owner, name, at=at)
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


def die_in(owner: object, name: str, at: int) -> None:
    original, calls = getattr(owner, name), iter(range(1, 100))

    def deadly(*arguments: Any) -> Any:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(owner, name, deadly)


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
