"""What trainers share beside versions: it arrives whole or not at all, and what is needed isn't pruned."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from killed import run_in_child

from backend.datasets.image_store import ImageStore
from backend.datasets.shared_state import SharedLearningState
from backend.datasets.snapshots import newest_snapshot, snapshots, verify, write_manifest
from backend.home import edits_file, pictures_folder, snapshots_folder
from backend.store.bucket import FolderBucket, StoreDamaged
from ris_core.files import sha256


@pytest.fixture
def bucket(tmp_path: Path) -> FolderBucket:
    (tmp_path / "share").mkdir()
    return FolderBucket(tmp_path / "share")


def make_snapshot(home: Path, text: str, *pictures: bytes) -> str:
    """A snapshot of project 7 of these pictures -> its id."""
    folder = snapshots_folder(home, 7) / "made"
    (folder / "images").mkdir(parents=True)
    for number, data in enumerate(pictures):
        path = pictures_folder(home) / sha256(data)[:2] / sha256(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.link(path, folder / "images" / f"{number}_a.jpg")
    (folder / "instances.json").write_text(text)
    write_manifest(folder)
    named = folder.with_name(sha256(folder / "manifest.json"))
    folder.rename(named)
    return named.name


def test_a_snapshot_and_the_ledgers_come_to_another_host(bucket: FolderBucket, tmp_path: Path) -> None:
    a, b = (SharedLearningState(bucket, tmp_path / name) for name in "ab")
    b.fetch(7)
    identity = make_snapshot(tmp_path / "a", "1", b"one", b"two")
    edits_file(tmp_path / "a", 7).parent.mkdir(parents=True)
    edits_file(tmp_path / "a", 7).write_text("{}")
    a.keep(7)
    b.fetch(7)
    folder = newest_snapshot(tmp_path / "b", 7)
    assert folder.name == identity
    verify(folder)
    assert edits_file(tmp_path / "b", 7).read_text() == "{}"
    # Each picture is on the disk once.
    assert (folder / "images" / "0_a.jpg").stat().st_nlink == 2
    ImageStore(pictures_folder(tmp_path / "b"))
    # The next one brings what is new alone.
    second = make_snapshot(tmp_path / "b", "2", b"two", b"three")
    written = {name: about.written for name, about in bucket.list("pictures/7").items()}
    b.keep(7)
    now = bucket.list("pictures/7")
    assert len(now) == 3
    assert {name: now[name].written for name in written} == written
    a.fetch(7)
    assert {path.name for path in snapshots(tmp_path / "a", 7)} == {identity, second}


def test_killed_at_any_step_a_snapshot_is_whole_or_absent(bucket: FolderBucket, tmp_path: Path) -> None:
    seen = set()
    for step in range(1 + int(time.time()) % 4, 200, 4):
        home = tmp_path / f"a-{step}"
        identity = make_snapshot(home, str(step), str(step).encode(), b"same")

        def keep(home: Path = home) -> None:
            SharedLearningState(bucket, home).keep(7)

        code = run_in_child(keep, kill_at=step)
        reader = SharedLearningState(bucket, tmp_path / f"b-{step}")
        reader.fetch(7, identity)
        there = [path.name for path in snapshots(tmp_path / f"b-{step}", 7)]
        for folder in snapshots(tmp_path / f"b-{step}", 7):
            verify(folder)
        seen.add(identity in there)
        keep()
        reader.fetch(7, identity)
        verify(snapshots_folder(tmp_path / f"b-{step}", 7) / identity)
        if code == 0:
            break
    else:
        pytest.fail("the writer never finished")
    assert seen == {True, False}


def test_what_is_damaged_is_refused(bucket: FolderBucket, tmp_path: Path) -> None:
    make_snapshot(tmp_path / "a", "1", b"one")
    SharedLearningState(bucket, tmp_path / "a").keep(7)
    good = {name: bucket.read(name) for prefix in ("snapshots", "pictures") for name in bucket.list(f"{prefix}/7")}
    (tmp_path / "bad").write_bytes(b"bad")
    for number, (name, stored) in enumerate(good.items()):
        home = tmp_path / f"b-{number}"
        bucket.upload(name, tmp_path / "bad")
        with pytest.raises(StoreDamaged, match="isn't what was put there"):
            SharedLearningState(bucket, home).fetch(7)
        assert snapshots(home, 7) == []
        assert stored
        (tmp_path / "good").write_bytes(stored.data)
        bucket.upload(name, tmp_path / "good")
        SharedLearningState(bucket, home).fetch(7)
        verify(newest_snapshot(home, 7))


def test_pruning_leaves_what_versions_came_from_and_the_newest(bucket: FolderBucket, tmp_path: Path) -> None:
    state, made = SharedLearningState(bucket, tmp_path / "a"), []
    for number in range(4):
        made.append(make_snapshot(tmp_path / "a", str(number), b"same", str(number).encode()))
        os.utime(snapshots_folder(tmp_path / "a", 7) / made[-1], (time.time() + number,) * 2)
        state.keep(7)
        time.sleep(0.01)
    state.prune(7, {made[1]})
    assert {name.split("/")[2] for name in bucket.list("snapshots/7")} == {made[1], made[3]}
    pictures = {name.rpartition("/")[2] for name in bucket.list("pictures/7")}
    assert pictures == {sha256(data) for data in (b"same", b"1", b"3")}
    other = SharedLearningState(bucket, tmp_path / "b")
    for identity in (made[1], made[3]):
        other.fetch(7, identity)
        verify(snapshots_folder(tmp_path / "b", 7) / identity)
