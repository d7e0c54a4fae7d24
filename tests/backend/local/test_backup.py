"""Back-ups: taken while everything runs, restored to the same answers and bytes, and killed at every step."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from checkpoints import random_checkpoint
from small_project import TASKS, build, photo, write_snapshot

from backend.datasets.snapshots import newest_snapshot, prune_snapshots, snapshots, verify
from backend.errors import AlreadyRunning, Unavailable
from backend.home import env_file, models_folder, restored_folder
from backend.local.backup import MANIFEST, back_up
from backend.local.restore import BackupDamaged, restore, resume
from backend.local.secrets import locked
from backend.locks import exclusive
from backend.registry import Registry
from backend.settings import SettingsError, load
from ris_core.errors import InputError
from ris_core.files import atomic_write
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor

ENV = "RIS_PORT=9191\nRIS_PASSWORD=pass-1\n# A remark.\nRIS_REDIS_URL=redis://:pass-2@127.0.0.1:6390/0\n"
# Of what a home folder holds, what no back-up has: caches, logs, queue, and what is made anew.
LEFT_OUT = ("images/a", "features/b", "pairs/c", "logs/worker.log", "valkey/appendonly", "exports/x/instances.json")
KINDS = ("open", "os.", "shutil.", "tempfile.", "fcntl.", "sqlite3.")


def versions(home: Path) -> Registry:
    return Registry(models_folder(home))


def label_studio(home: Path) -> Path:
    return home / "label-studio" / "label_studio.sqlite3"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with some of everything."""
    home = tmp_path_factory.mktemp("original") / "home"
    for seed in (1, 2):
        folder = random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", seed)
        version = versions(home).add(3, folder, {"origin": "fine-tuned", "seed": seed})
        versions(home).promote(3, version.name)
    build(home, TASKS[:2])
    build(home)
    os.utime(snapshots(home, 3)[1], (1, 1))
    files = {
        "projects/3.env": b"RIS_FINETUNE_MIN_NEW=3\n",
        "projects/3.changes.json": b"{}",
        "projects/3.records.sqlite": b"a cache",
        "taught/3/teacher.jsonl": b'{"task": 1}\n',
        "label-studio/media/upload/3/cat.png": photo(9),
        "label-studio/media/avatars/empty.txt": b"",
        **dict.fromkeys(LEFT_OUT, b"nothing that matters"),
    }
    for name, data in files.items():
        atomic_write(home / name, data)
    atomic_write(env_file(home), ENV.encode(), mode=0o600)
    with closing(sqlite3.connect(label_studio(home))) as database:
        database.executescript("CREATE TABLE task (id INTEGER); INSERT INTO task VALUES (1), (2);")
    return home


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Path:
    """The same, to be broken."""
    # Links stay links, as they are between pictures and snapshots.
    subprocess.run(["cp", "-a", str(original), str(tmp_path / "home")], check=True)
    return tmp_path / "home"


@pytest.fixture
def file(home: Path, tmp_path: Path) -> Path:
    file = tmp_path / "backup.tar"
    back_up(home, file, secrets=True)
    return file


def tree(home: Path) -> dict[str, bytes]:
    """Every file but those that a back-up leaves out, and locks."""
    names = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    skipped = (*LEFT_OUT, "projects/3.records.sqlite", "lock", "backup.lock")
    return {
        name: b"database" if name.endswith("label_studio.sqlite3") else path.read_bytes()
        for name, path in names.items()
        if name not in skipped and not name.endswith(".lock")
    }


def rows(home: Path) -> list[int]:
    with closing(sqlite3.connect(label_studio(home))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row for (row,) in database.execute("SELECT id FROM task ORDER BY id")]


def answers(home: Path) -> list[np.ndarray]:
    """What the version in production says."""
    predictor = Predictor.load(versions(home).current(3).folder)
    return [answer.mask for answer in predictor.segment(predictor.embed(read_image(photo(4))), ["the cat", "a dog"])]


def hidden(home: Path) -> list[str]:
    return [path.name for path in home.iterdir() if path.name.startswith(".")]


def test_what_is_destroyed_comes_back_the_same(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    report = back_up(home, file, secrets=True)
    assert (report.versions, report.snapshots, report.pictures) == (2, 2, 5)
    assert (report.label_studio, report.secrets, report.bytes) == (True, True, file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before, state, said = tree(home), versions(home).read(3), answers(home)
    newest = newest_snapshot(home, 3).name
    exports = {}
    for fmt in ("coco", "refcoco"):
        write_snapshot(newest_snapshot(home, 3), tmp_path / f"before-{fmt}", fmt)
        exports[fmt] = tree(tmp_path / f"before-{fmt}")
    shutil.rmtree(home)
    restored = restore(home, file)
    assert (restored.files, restored.label_studio, restored.secrets) == (report.files, True, True)
    assert tree(home) == before
    assert rows(home) == [1, 2]
    assert versions(home).read(3) == state
    for now, once in zip(answers(home), said, strict=True):
        assert np.array_equal(now, once)
    assert newest_snapshot(home, 3).name == newest
    for folder in snapshots(home, 3):
        verify(folder)
    for fmt, once in exports.items():
        write_snapshot(newest_snapshot(home, 3), tmp_path / f"after-{fmt}", fmt)
        assert tree(tmp_path / f"after-{fmt}") == once
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in home.rglob("*") if path.is_file()} <= {0, 0o044}
    assert stat.S_IMODE(env_file(home).stat().st_mode) == 0o600
    assert hidden(home) == []
    # And is as good a home as any: the next version, snapshot and back-up.
    versions(home).rollback(3)
    assert build(home).folder.name == newest
    assert back_up(home, tmp_path / "again.tar", secrets=True).files == report.files


def test_a_picture_is_in_it_once_and_is_one_file_again(home: Path, file: Path) -> None:
    with tarfile.open(file) as archive:
        members = archive.getmembers()
    pictures = [member for member in members if "/images/" in member.name and not member.isdir()]
    assert pictures
    assert {member.type for member in pictures} == {tarfile.LNKTYPE}
    shutil.rmtree(home)
    restore(home, file)
    for folder in snapshots(home, 3):
        assert {path.stat().st_nlink > 1 for path in (folder / "images").iterdir()} == {True}


def test_caches_logs_queue_and_locks_stay_out(file: Path) -> None:
    with tarfile.open(file) as archive:
        names = archive.getnames()
    assert not set(names) & {*LEFT_OUT, "projects/3.records.sqlite"}
    assert not [name for name in names if name.endswith("lock")]
    assert names[-1] == MANIFEST


def test_other_programs_read_it(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", str(file), "-C", str(out)], check=True)
    listed = json.loads((out / MANIFEST).read_text())["files"]
    sums = "".join(f"{digest}  {name}\n" for name, digest in listed.items())
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "-"], cwd=out, input=sums, text=True, check=False)
    assert checked.returncode == 0


@pytest.mark.parametrize("secrets", [False, True])
def test_secrets_are_in_it_only_where_that_is_said(home: Path, tmp_path: Path, secrets: bool) -> None:
    back_up(home, tmp_path / "backup.tar", secrets)
    data = (tmp_path / "backup.tar").read_bytes()
    assert b"RIS_PORT=9191" in data
    assert b"# A remark." in data
    assert (b"pass-1" in data, b"pass-2" in data) == (secrets, secrets)


def test_without_secrets_those_that_are_there_stay(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    back_up(home, file)
    (env_file(home)).write_text("RIS_PORT=1\nRIS_PASSWORD=newer\n")
    restore(home, file, replace=True)
    assert env_file(home).read_text() == "RIS_PORT=9191\n# A remark.\nRIS_PASSWORD=newer\n"


def test_what_is_there_goes_only_when_told(
    home: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(home)
    (home / "snapshots" / "4").mkdir()
    (home / "snapshots" / "4" / "newer").write_text("later")
    monkeypatch.setenv("RIS_CACHE", str(home / "fetched"))
    (home / "fetched").mkdir()
    (home / "fetched" / "weights").write_text("gigabytes")
    with pytest.raises(InputError, match=r"isn't empty: it has .*models.*--replace"):
        restore(home, file)
    assert (home / "snapshots" / "4" / "newer").exists()
    restore(home, file, replace=True)
    assert tree(home) == {**before, "fetched/weights": b"gigabytes"}
    # Caches and the queue were of another state.
    assert not any((home / name).exists() for name in LEFT_OUT if not name.startswith("logs"))
    assert hidden(home) == []


def test_whoever_uses_it_keeps_a_restore_out(home: Path, file: Path) -> None:
    before = tree(home)
    with locked(home), pytest.raises(AlreadyRunning):
        restore(home, file, replace=True)
    assert tree(home) == before


def test_one_backup_at_a_time_and_none_replaces_another(home: Path, file: Path, tmp_path: Path) -> None:
    with exclusive(home / "backup.lock"), pytest.raises(Unavailable, match="Another back-up"):
        back_up(home, tmp_path / "other.tar")
    with pytest.raises(InputError, match="is there already"):
        back_up(home, file)
    with pytest.raises(InputError, match="nothing to back up"):
        back_up(tmp_path / "nowhere", tmp_path / "other.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "home"]


def rewritten(file: Path, change: Callable[[tarfile.TarFile, tarfile.TarFile], None]) -> None:
    other = file.with_suffix(".changed")
    with tarfile.open(file) as source, tarfile.open(other, "w", format=tarfile.PAX_FORMAT) as target:
        change(source, target)
    other.replace(file)


def copied(source: tarfile.TarFile, target: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for member in source:
        reader = source.extractfile(member) if member.isreg() else None
        yield member, reader.read() if reader else b""


def put(target: tarfile.TarFile, member: tarfile.TarInfo, data: bytes = b"") -> None:
    target.addfile(member, io.BytesIO(data))


def odd(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def with_member(member: tarfile.TarInfo) -> Callable[[tarfile.TarFile, tarfile.TarFile], None]:
    def change(source: tarfile.TarFile, target: tarfile.TarFile) -> None:
        for kept, data in copied(source, target):
            if kept.name == MANIFEST:
                put(target, member)
            put(target, kept, data)

    return change


def without(part: str) -> Callable[[tarfile.TarFile, tarfile.TarFile], None]:
    def change(source: tarfile.TarFile, target: tarfile.TarFile) -> None:
        for member, data in copied(source, target):
            if part not in member.name:
                put(target, member, data)

    return change


def of_another_format(source: tarfile.TarFile, target: tarfile.TarFile) -> None:
    for member, data in copied(source, target):
        told = data.replace(b"ris-studio backup 1", b"ris-studio backup 2") if member.name == MANIFEST else data
        put(target, member, told)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_member(odd("../outside")), "lies outside"),
        (with_member(odd("/tmp/outside")), "lies outside"),
        (with_member(odd("models/../../outside")), "lies outside"),
        (with_member(odd("projects/link", tarfile.SYMTYPE, "/etc/passwd")), "neither a file nor a folder"),
        (with_member(odd("projects/link", tarfile.LNKTYPE, "../../../etc/passwd")), "lies outside"),
        (with_member(odd("projects/pipe", tarfile.FIFOTYPE)), "neither a file nor a folder"),
        (with_member(odd("projects/extra")), "extra is in it or in its manifest, but not in both"),
        (without("production.json"), "production.json is in it or in its manifest, but not in both"),
        (without(MANIFEST), "has no backup.json at its end"),
        (of_another_format, "is a ris-studio backup 2, and this release reads ris-studio backup 1"),
    ],
)
def test_what_is_no_backup_is_refused_and_leaves_nothing(
    home: Path, file: Path, change: Callable[[tarfile.TarFile, tarfile.TarFile], None], sentence: str
) -> None:
    rewritten(file, change)
    shutil.rmtree(home)
    with pytest.raises(BackupDamaged, match=sentence):
        restore(home, file)
    assert {path.name for path in home.iterdir()} <= {"lock"}
    assert not (home.parent / "outside").exists()


def test_a_flipped_bit_is_found_wherever_it_is(home: Path, file: Path) -> None:
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        places = [member.offset_data + member.size // 2 for member in archive if member.isreg() and member.size]
    shutil.rmtree(home)
    for place in places[:: max(1, len(places) // 12)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(BackupDamaged):
            restore(home, file)
        assert {path.name for path in home.iterdir()} <= {"lock"}


def test_one_that_was_cut_off_is_refused(home: Path, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    shutil.rmtree(home)
    for share in (0.0, 0.01, 0.4, 0.9, 0.98):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BackupDamaged):
            restore(home, file)
    with pytest.raises(InputError, match="no back-up"):
        restore(home, tmp_path / "nowhere.tar")


def test_backups_while_everything_changes_are_each_of_one_moment(home: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    candidates = [random_checkpoint(tmp_path / f"candidate{seed}", seed) for seed in (5, 6, 7)]
    with closing(sqlite3.connect(label_studio(home))) as database:
        database.executescript("CREATE TABLE twice (id INTEGER);")

    def learn() -> None:
        registry = versions(home)
        for number in range(10_000):
            if stop.is_set():
                return
            snapshot = build(home, TASKS[: 1 + number % 5])
            version = registry.add(3, candidates[number % 3], {"origin": "fine-tuned", "snapshot": snapshot.id})
            registry.promote(3, version.name)
            registry.prune(3, keep=0)
            named = {str(known.card.get("snapshot")) for known in registry.versions(3)}
            prune_snapshots(home, 3, named, time.time() + 10)

    def annotate() -> None:
        with closing(sqlite3.connect(label_studio(home), timeout=30)) as database:
            for number in range(100_000):
                if stop.is_set():
                    return
                with database:
                    database.execute("INSERT INTO task VALUES (?)", (number,))
                    database.execute("INSERT INTO twice VALUES (?)", (number,))

    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(learn), pool.submit(annotate)]
        try:
            for number in range(6):
                back_up(home, tmp_path / f"{number}.tar")
                time.sleep(0.1)
        finally:
            stop.set()
    for future in work:
        future.result()
    states = set()
    for number in range(6):
        copy = tmp_path / f"restored-{number}"
        restore(copy, tmp_path / f"{number}.tar")
        state = versions(copy).read(3)
        states.add(state.since)
        # The version in production is there, and the snapshots that versions name are whole.
        assert state.current.folder.is_dir()
        there = {folder.name for folder in snapshots(copy, 3)}
        assert {str(version.card["snapshot"]) for version in state.versions if "snapshot" in version.card} <= there
        for folder in snapshots(copy, 3):
            verify(folder)
        with closing(sqlite3.connect(label_studio(copy))) as database:
            counts = "SELECT (SELECT count(*) FROM task) - (SELECT count(*) FROM twice)"
            assert database.execute(counts).fetchone() == (2,)
    assert len(states) > 1, "nothing changed meanwhile"


def run_in_child(act: Callable[[], object], kill_at: int = 0) -> int:
    """Run it in a process that is killed at its step `kill_at` -> how it ended, 0 if it got through."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            steps = 0

            def count(event: str, _arguments: tuple[object, ...]) -> None:
                nonlocal steps
                if event.startswith(KINDS):
                    steps += 1
                    if steps == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def small(home: Path) -> Path:
    """A home folder of few files, to be killed over at every step."""
    files = {
        "models/project-3/versions/lda-1/version.json": b"{}",
        "models/project-3/production.json": b'{"version": "lda-1"}',
        "projects/3.env": b"RIS_FINETUNE_MIN_NEW=3\n",
        "label-studio/media/upload/cat.png": b"cat",
    }
    for name, data in files.items():
        atomic_write(home / name, data)
    atomic_write(env_file(home), ENV.encode())
    with closing(sqlite3.connect(label_studio(home))) as database:
        database.executescript("CREATE TABLE task (id INTEGER); INSERT INTO task VALUES (1);")
    return home


def test_a_backup_killed_at_any_step_is_whole_or_absent(tmp_path: Path) -> None:
    home, kept = small(tmp_path / "home"), tmp_path / "kept"
    kept.mkdir()
    before, seen = tree(home), set()
    for step in range(1, 2000, 3):
        file = kept / "backup.tar"
        code = run_in_child(lambda file=file: back_up(home, file, secrets=True), kill_at=step)
        seen.add(file.exists())
        if file.exists():
            restore(tmp_path / f"restored-{step}", file)
            assert tree(tmp_path / f"restored-{step}") == before
            file.unlink()
        back_up(home, file, secrets=True)
        assert [path.name for path in kept.iterdir()] == ["backup.tar"]
        assert hidden(home) == []
        assert tree(home) == before
        file.unlink()
        if code == 0:
            break
    else:
        pytest.fail("the back-up never finished")
    assert seen == {False, True}


@pytest.mark.parametrize("replacing", [False, True])
def test_a_restore_killed_at_any_step_is_undone_or_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None, replacing: bool
) -> None:
    file = tmp_path / "backup.tar"
    back_up(small(tmp_path / "home"), file, secrets=True)
    wanted, seen = tree(tmp_path / "home"), set()
    for step in range(1, 2000, 3):
        home = tmp_path / f"home-{step}"
        if replacing:
            for name in ("models/project-9/production.json", "features/cached", "snapshots/9/old/manifest.json"):
                atomic_write(home / name, b"old")
        home.mkdir(exist_ok=True)
        before = tree(home)
        monkeypatch.setenv("RIS_HOME", str(home))
        code = run_in_child(lambda home=home: restore(home, file, replace=replacing), kill_at=step)
        if restored_folder(home).exists():
            seen.add("begun")
            with pytest.raises(SettingsError, match="ris restore --resume"):
                load()
            with pytest.raises(InputError, match="ris restore --resume"):
                restore(home, file, replace=True)
            resume(home)
        elif (home / "models" / "project-3").exists():
            seen.add("done")
        else:
            seen.add("undone")
            assert {name: data for name, data in tree(home).items() if not name.startswith(".restoring")} == before
            restore(home, file, replace=replacing)
        assert {name: data for name, data in tree(home).items() if not name.startswith(".replaced")} == wanted
        assert rows(home) == [1]
        assert load().port == 9191
        with pytest.raises(InputError, match="No restore"):
            resume(home)
        if code == 0:
            break
    else:
        pytest.fail("the restore never finished")
    assert seen == {"undone", "begun", "done"}
