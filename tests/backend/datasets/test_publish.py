"""Publishing: what arrives is the export, nothing else is touched, and no death leaves half of it.

PUBLISH_KILLS=200 is the full size of the kills; KILL_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import publisher
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_port
from s3 import S3, serving
from small_project import contents

from backend.datasets.object_store import ObjectStore
from backend.datasets.object_sync import JOURNAL
from backend.datasets.publish import check_destination, publish
from backend.datasets.snapshots import read_manifest, verify, write_manifest
from backend.errors import PublishError
from ris_core.errors import DatasetError
from ris_core.files import sha256

KILLS, SEED = int(os.environ.get("PUBLISH_KILLS", "15")), int(os.environ.get("KILL_SEED", "0"))

Files = Mapping[str, bytes]
NAMES = [
    "instances.json",
    "refs.json",
    "images/1_a.jpg",
    "images/2_ü b.png",
    "images/deep/3%41#?.jpg",
    ".hidden",
    "a+b&c",
]
EXPORTS = st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=40))
FIRST = {"instances.json": b"[1]" * 99, "images/1_a.jpg": b"one" * 99, "images/2_b.jpg": b"two" * 99, "old": b"x"}
SECOND = {"instances.json": b"[2]" * 99, "images/1_a.jpg": b"one" * 99, "images/2_b.jpg": b"2nd" * 99, "new": b"yy"}


def export(folder: Path, files: Files) -> Path:
    """A finished export, in place of another."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_manifest(folder)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[S3]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def bucket(s3: S3) -> str:
    return s3.make_bucket(f"bucket-{random.randrange(1 << 60):x}")


def in_memory(prefix: str) -> dict[str, bytes]:
    files = fsspec.filesystem("memory")
    return {path.removeprefix(f"/{prefix}/"): files.cat_file(path) for path in files.find(f"/{prefix}")}


def in_archive(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@settings(deadline=None, max_examples=25)
@given(st.lists(EXPORTS, min_size=1, max_size=4))
def test_any_exports_one_after_another(versions: list[Files]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        prefix = root.name
        for files in versions:
            folder = export(root / "home" / "exports" / "mine", files)
            whole = contents(folder)
            assert publish(folder, str(root / "out")) == str(root / "out")
            publish(folder, f"file://{root}/by address")
            publish(folder, str(root / "out.zip"))
            assert publish(folder, f"memory://{prefix}/in/") == f"memory://{prefix}/in"
            publish(folder, f"memory://{prefix}/archive.ZIP")
            assert contents(root / "out") == contents(root / "by address") == in_archive(root / "out.zip") == whole
            assert in_memory(f"{prefix}/in") == whole
            assert fsspec.filesystem("memory").cat_file(f"/{prefix}/archive.ZIP") == (root / "out.zip").read_bytes()
        # Nothing is left over.
        assert sorted(path.name for path in root.iterdir()) == ["by address", "home", "out", "out.zip"]
        left = {path.suffix for path in (root / "home" / "exports" / ".publishing").iterdir()}
        assert left == {".lock"}


def test_s3_holds_the_export(tmp_path: Path, s3: S3, bucket: str) -> None:
    for files in (dict.fromkeys(NAMES, b"same"), FIRST, SECOND, {}, FIRST):
        folder = export(tmp_path / "mine", files)
        publish(folder, f"s3://{bucket}/some/where")
        assert s3.contents(bucket) == {f"some/where/{name}": data for name, data in contents(folder).items()}
    s3.put(bucket, "some/where-else", b"a neighbour")
    publish(export(tmp_path / "mine", SECOND), f"s3://{bucket}/some/where")
    assert s3.get(bucket, "some/where-else") == b"a neighbour"


def test_an_archive_on_s3_is_the_one_on_disk(tmp_path: Path, s3: S3, bucket: str) -> None:
    # Larger than what is sent in one request.
    files = {**FIRST, "images/large.jpg": os.urandom(12 << 20)}
    for version in (files, SECOND):
        folder = export(tmp_path / "mine", version)
        publish(folder, str(tmp_path / "x.zip"))
        assert publish(folder, f"s3://{bucket}/deep/x.zip") == f"s3://{bucket}/deep/x.zip"
        assert s3.contents(bucket) == {"deep/x.zip": (tmp_path / "x.zip").read_bytes()}


def test_the_same_export_gives_the_same_archive(tmp_path: Path) -> None:
    one, two = export(tmp_path / "one", FIRST), export(tmp_path / "two", dict(reversed(FIRST.items())))
    for path in two.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o700)
    publish(one, str(tmp_path / "one.zip"))
    publish(two, str(tmp_path / "two.zip"))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        names = archive.namelist()
        stored = {info.filename: info.compress_type == zipfile.ZIP_STORED for info in archive.infolist()}
    assert names == sorted(names)
    assert stored["images/1_a.jpg"] and not stored["instances.json"]
    shutil.unpack_archive(tmp_path / "one.zip", tmp_path / "unpacked")
    verify(tmp_path / "unpacked")


def test_large_archives_have_64_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the format's limit were lower.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)
    files = {"a.jpg": b"a" * 400, "b.jpg": b"b" * 600, "c.json": b"c" * 600}
    folder = export(tmp_path / "mine", files)
    publish(folder, str(tmp_path / "x.zip"))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        versions = {info.filename: info.extract_version for info in archive.infolist()}
    assert versions["b.jpg"] >= zipfile.ZIP64_VERSION > versions["a.jpg"]
    assert in_archive(tmp_path / "x.zip") == contents(folder)


@pytest.mark.parametrize("destination", ["out", "out.zip"])
def test_memory_doesnt_grow_with_the_export(tmp_path: Path, destination: str) -> None:
    folder = export(tmp_path / "mine", {"large.jpg": bytes(150 << 20)})
    result, grown = publisher.outcome(folder, str(tmp_path / destination))
    assert result == str(tmp_path / destination)
    assert grown < 30 << 20


def test_only_what_changed_is_uploaded(tmp_path: Path) -> None:
    files, prefix = fsspec.filesystem("memory"), tmp_path.name

    def times() -> dict[str, Any]:
        return {path.removeprefix(f"/{prefix}/"): files.created(path) for path in files.find(f"/{prefix}")}

    folder = tmp_path / "mine"
    publish(export(folder, FIRST), f"memory://{prefix}")
    before = times()
    publish(folder, f"memory://{prefix}")
    assert times() == before
    told: list[tuple[int, int]] = []
    publish(export(folder, SECOND), f"memory://{prefix}", lambda done, total: told.append((done, total)))
    assert {name for name, time in times().items() if before.get(name) == time} == {"images/1_a.jpg"}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_vanished_or_was_cut_short_is_uploaded_again(tmp_path: Path, s3: S3, bucket: str) -> None:
    folder = export(tmp_path / "mine", FIRST)
    publish(folder, f"s3://{bucket}/at")
    s3.put(bucket, "at/images/1_a.jpg", b"on")
    ObjectStore(f"s3://{bucket}/at").delete("instances.json")
    publish(folder, f"s3://{bucket}/at")
    assert s3.contents(bucket) == {f"at/{name}": data for name, data in contents(folder).items()}


PLACES = ["out", "out.zip", "memory", "memory.zip", "s3", "s3.zip"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], Files], Callable[[str], None]]:
    """A destination, what is there, and a way to put a file of somebody else there."""
    kind = request.param
    if kind.startswith("s3"):
        s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
        there = f"s3://{bucket}/{kind}"
        name = kind if kind.endswith(".zip") else f"{kind}/images/mine.txt"
        return there, lambda: s3.contents(bucket), lambda text: s3.put(bucket, name, text.encode())
    if kind.startswith("memory"):
        files, prefix = fsspec.filesystem("memory"), tmp_path.name
        name = kind if kind.endswith(".zip") else f"{kind}/mine.txt"
        return (
            f"memory://{prefix}/{kind}",
            lambda: in_memory(prefix),
            lambda text: files.pipe_file(f"/{prefix}/{name}", text.encode()),
        )
    out = tmp_path / "deep" / kind
    file = out if kind.endswith(".zip") else out / "mine.txt"

    def put(text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return str(out), lambda: contents(out.parent) if out.parent.exists() else {}, put


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("earlier", [False, True], ids=["alone", "beside an export"])
def test_what_no_export_wrote_stays(tmp_path: Path, place: Any, earlier: bool) -> None:
    destination, there, put = place
    folder = export(tmp_path / "mine", FIRST)
    if earlier:
        publish(folder, destination)
    put("years of work")
    before = there()
    for action in (check_destination, lambda to: publish(folder, to)):
        with pytest.raises(DatasetError, match=r"no export wrote|isn't an export"):
            action(destination)
    assert there() == before


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_damaged_export_goes_nowhere(tmp_path: Path, place: Any) -> None:
    destination, there, _ = place
    publish(export(tmp_path / "mine", FIRST), destination)
    before, folder = there(), export(tmp_path / "mine", SECOND)
    (folder / "images" / "1_a.jpg").write_bytes(b"tampered")
    with pytest.raises(DatasetError, match=r"images/1_a\.jpg is missing or was changed"):
        publish(folder, destination)
    with pytest.raises(DatasetError, match="There is no export at"):
        publish(tmp_path / "nothing", destination)
    assert there() == before


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_an_export_that_is_replaced_meanwhile_is_noticed(tmp_path: Path, place: Any) -> None:
    destination, there, _ = place
    folder = export(tmp_path / "mine", FIRST)
    publish(folder, destination)

    def replace(done: int, total: int) -> None:
        export(folder, {**FIRST, "extra": b"more"})

    with pytest.raises(DatasetError, match="was exported anew meanwhile"):
        publish(export(folder, SECOND), destination, replace)
    publish(export(folder, SECOND), destination)
    one = there()
    assert JOURNAL not in {name.rpartition("/")[2] for name in one}


class _Dead(BaseException):
    """The process ends here."""


class _Mortal(MemoryFileSystem):  # type: ignore[misc]
    """Dies before its n-th change, or just after it."""

    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self, changes: float, after: bool) -> None:
        super().__init__()
        self.changes, self.after = changes, after

    def _change(self, action: Callable[[], Any]) -> Any:
        self.changes -= 1
        if self.changes < 0 or (self.changes == 0 and not self.after):
            raise _Dead
        result = action()
        if self.changes == 0:
            raise _Dead
        return result

    def put_file(self, *arguments: Any, **options: Any) -> Any:
        return self._change(lambda: super(_Mortal, self).put_file(*arguments, **options))

    def pipe_file(self, *arguments: Any, **options: Any) -> Any:
        return self._change(lambda: super(_Mortal, self).pipe_file(*arguments, **options))

    def rm_file(self, *arguments: Any, **options: Any) -> Any:
        return self._change(lambda: super(_Mortal, self).rm_file(*arguments, **options))


def trusted(read: Callable[[str], bytes | None]) -> dict[str, str] | None:
    """What a reader gets who starts from the manifest: names -> SHA-256 as promised, each seen to be so."""
    manifest = read("manifest.json")
    if manifest is None:
        return None
    files: dict[str, str] = json.loads(manifest)["files"]
    for name, digest in files.items():
        data = read(name)
        assert data is not None, f"{name} isn't there."
        assert sha256(data) == digest, f"{name} has another content."
    return files


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("then", [FIRST, SECOND, {"old": b"x", "other": b"z"}], ids=["back", "on", "elsewhere"])
def test_a_death_at_any_change_leaves_an_export_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: Files, after: bool
) -> None:
    folder = tmp_path / "mine"

    def run(files: Files, changes: float) -> bool:
        monkeypatch.setattr(fsspec, "filesystem", lambda protocol: _Mortal(changes, after))
        try:
            publish(export(folder, files), "memory://at")
        except _Dead:
            return False
        return True

    def read(name: str) -> bytes | None:
        return _Mortal.store[f"/at/{name}"].getvalue() if f"/at/{name}" in _Mortal.store else None

    changes, seen = 0, set()
    ended = False
    while not ended:
        changes += 1
        _Mortal.store.clear()
        run(FIRST, float("inf"))
        ended = run(SECOND, changes)
        found = trusted(read)
        seen.add(None if found is None else "new" in found)
        # Dies once more on the way to something else, then gets there.
        run(then, changes // 2 + 1)
        trusted(read)
        assert run(then, float("inf"))
        assert {name.removeprefix("/at/"): file.getvalue() for name, file in _Mortal.store.items()} == contents(folder)
    assert changes > 8
    assert seen == {None, False, True}


def test_what_a_dead_run_uploaded_isnt_uploaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.datasets.object_sync._LEAST_BATCH", 10)
    folder = export(tmp_path / "mine", {f"images/{n}.jpg": b"%d" % n for n in range(100)})
    _Mortal.store.clear()
    uploads = 0

    class Counting(_Mortal):
        def put_file(self, *arguments: Any, **options: Any) -> Any:
            nonlocal uploads
            uploads += 1
            return super().put_file(*arguments, **options)

    for changes in (60, float("inf")):
        monkeypatch.setattr(fsspec, "filesystem", lambda protocol, changes=changes: Counting(changes, False))
        uploads = 0
        try:
            publish(folder, "memory://at")
        except _Dead:
            assert "/at/manifest.json" not in _Mortal.store
    assert 40 <= uploads <= 55
    assert len(_Mortal.store) == 101


@pytest.mark.parametrize("kind", ["out", "out.zip", "s3"])
def test_kills_at_random_moments(tmp_path: Path, server: S3, kind: str) -> None:
    chance = random.Random(f"{SEED} {kind}")
    same = {f"images/{n}.jpg": chance.randbytes(2000) for n in range(12)}
    versions = [
        same | {"instances.json": chance.randbytes(9000), f"only {n}": b"", **{f"images/{n}.jpg": b"%d" % n}}
        for n in range(3)
    ]
    folders = [export(tmp_path / "exports" / str(n), files) for n, files in enumerate(versions)]
    bucket = server.make_bucket(f"kills-{random.randrange(1 << 60):x}")
    out = tmp_path / "there" / kind
    destination = f"s3://{bucket}/at" if kind == "s3" else str(out)

    def read(name: str) -> bytes | None:
        if kind == "s3":
            return server.get(bucket, f"at/{name}")
        if kind == "out.zip":
            return in_archive(out)[name] if out.exists() else None
        return (out / name).read_bytes() if (out / name).is_file() else None

    def everything() -> dict[str, bytes]:
        if kind == "s3":
            return {key.removeprefix("at/"): data for key, data in server.contents(bucket).items()}
        return in_archive(out) if kind == "out.zip" else contents(out)

    killed, seconds = 0, 0.1
    for _ in range(KILLS):
        died = publisher.killed(chance.uniform(0, seconds), chance.choice(folders), destination, server.environment)
        # So that about every other one is killed before it has ended.
        seconds *= 1.5 if died else 0.6
        killed += died
        trusted(read)
    assert killed >= KILLS // 4
    for folder in folders:
        result, _ = publisher.outcome(folder, destination, server.environment)
        assert result == destination
        assert everything() == contents(folder)
    if kind != "s3":
        assert [path.name for path in out.parent.iterdir()] == [kind]


def test_two_at_once_take_turns(tmp_path: Path) -> None:
    folders = [export(tmp_path / "exports" / str(n), {**FIRST, "which": b"%d" % n}) for n in range(2)]
    for destination in (tmp_path / "there" / "out", tmp_path / "there" / "out.zip"):
        running = [publisher._start(folder, str(destination), {}) for folder in folders for _ in range(3)]
        for process, told in running:
            assert (told.recv(), told.recv()[0]) == ("began", str(destination))
            process.join()
        found = contents(destination) if destination.is_dir() else in_archive(destination)
        assert found in [contents(folder) for folder in folders]
        assert not [path for path in destination.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", ["", "/x.zip"])
def test_what_is_wrong_with_a_store_is_said(
    tmp_path: Path, s3: S3, bucket: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaint(destination: str) -> str:
        with pytest.raises(PublishError) as checked:
            check_destination(destination)
        with pytest.raises(PublishError) as published:
            publish(folder, destination)
        assert str(checked.value) == str(published.value)
        return str(published.value)

    folder = export(tmp_path / "mine", FIRST)
    assert "there is no such bucket. Make it first" in complaint(f"s3://no-{bucket}{suffix}")
    assert "Known are file, memory, s3, gs, az" in complaint(f"sftp://host{suffix}")
    assert "names no bucket" in complaint(f"s3://{suffix}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("backend.datasets.object_store._RETRIES", {"max_retries": 1})
    assert "the endpoint doesn't answer. Check the network" in complaint(f"s3://{bucket}{suffix}")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "Set AWS_ALLOW_HTTP=true" in complaint(f"s3://{bucket}{suffix}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials. Set AWS_ACCESS_KEY_ID, AWS_SECRET" in complaint(f"s3://{bucket}{suffix}")


def test_credentials_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(tmp_path / "mine", FIRST)
    # From the first request but the one that looks whether it is up, and the one that makes the bucket.
    with serving() as strict:
        strict.make_bucket("mine")
        strict.client.post("/moto-api/reset-auth", content="0").raise_for_status()
        for name, value in strict.environment.items():
            monkeypatch.setenv(name, value)
        for destination in ("s3://mine/at", "s3://mine/x.zip"):
            with pytest.raises(PublishError, match="the credentials are refused") as refusal:
                publish(folder, destination)
            assert "secret-of-somebody" not in str(refusal.value)


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_folder_that_may_not_be_written_to(name: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        closed = Path(root) / "closed"
        folder = export(Path(root) / "exports" / "mine", FIRST)
        closed.mkdir()
        for path in (Path(root), folder.parent):
            path.chmod(0o777)
        closed.chmod(0o555)
        result, _ = publisher.outcome(folder, str(closed / name), user=publisher.NOBODY)
    assert (
        result
        == f"PublishError: {closed / name} can't be made: {closed} may not be written to. Publish somewhere else."
    )


def test_a_full_disk(tmp_path: Path) -> None:
    folder = export(tmp_path / "mine", FIRST)
    publish(folder, str(tmp_path / "x.zip"))
    before = (tmp_path / "x.zip").read_bytes()
    # Where it is written before it gets its name.
    (tmp_path / ".x.zip.new").symlink_to("/dev/full")
    with pytest.raises(PublishError, match=r"x\.zip can't be published to: the disk is full"):
        publish(export(folder, SECOND), str(tmp_path / "x.zip"))
    assert (tmp_path / "x.zip").read_bytes() == before
    publish(folder, str(tmp_path / "x.zip"))
    assert in_archive(tmp_path / "x.zip") == contents(folder)


def test_an_export_doesnt_go_into_itself(tmp_path: Path) -> None:
    folder = export(tmp_path / "exports" / "mine", FIRST)
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, folder / "x", folder / "x.zip", tmp_path / "link"):
        with pytest.raises(PublishError, match="lie within each other"):
            publish(folder, str(place))
    verify(folder)
    assert read_manifest(folder).keys() == FIRST.keys()


@pytest.mark.parametrize("place", ["out", "out.zip"])
def test_a_file_or_folder_in_the_way(tmp_path: Path, place: str) -> None:
    folder = export(tmp_path / "mine", FIRST)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(PublishError, match="file is a file"):
        publish(folder, str(tmp_path / "file" / place))
    with pytest.raises(DatasetError, match=r"is a file\. Choose a folder"):
        publish(folder, str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"is a folder\. Choose another name"):
        publish(folder, str(tmp_path / "folder.zip"))
