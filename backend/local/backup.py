"""A back-up of the home folder, made while everything runs: one tar, whole or absent.

In it: the registry, the projects' files and ledgers, snapshots, their pictures (once each, by hard links), what a
teacher said, settings, and the Label Studio that `ris up` starts. Not in it, since it is made anew: caches, logs,
exports, the state of a running training, and the queue, whose events are found again by asking Label Studio.

All is taken at one moment: under the locks of those who write, hard links pin the large files, which are replaced and
never changed, and the small ones are copied. The tar is written from them with no lock held. Its last member is a
manifest of every file's SHA-256: a tar that was cut off has none. Knows nothing of restoring (`backend.local.restore`).
"""

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from backend.home import (
    backup_lock,
    env_file,
    label_studio_folder,
    models_folder,
    pictures_folder,
)
from backend.locks import exclusive
from backend.settings import PREFIX, secret_knobs
from ris_core.errors import InputError
from ris_core.files import atomic_file

FORMAT = "ris-studio backup 1"
MANIFEST = "backup.json"
STANDARD_STREAM = Path("-")
"""In place of a file: standard output for a back-up, standard input for a restore."""
_STAGING = ".backup."
_DATABASE = "label_studio.sqlite3"
_LINKED = ("models", "snapshots", "pictures")
# These may grow, or be edited by a person, where they are.
_COPIED = ("projects", "taught")


@dataclass(frozen=True)
class BackupReport:
    """What is in a back-up. bytes: of the tar. label_studio: whether its data is in it. secrets: whether those are."""

    file: str
    files: int
    bytes: int
    versions: int
    snapshots: int
    pictures: int
    label_studio: bool
    secrets: bool


def back_up(home: Path, file: Path, secrets: bool = False) -> BackupReport:
    """Write the home folder's back-up to `file`, which its owner alone may read; "-" is standard output.

    Raises InputError if `file` is there already or home isn't, Unavailable while another back-up of it is made.
    """
    if not home.is_dir():
        raise InputError(f"There is nothing to back up: {home.absolute()} isn't a folder.")
    if file.exists():
        raise InputError(f"{file} is there already. Name another file: a back-up replaces none.")
    refusal = f"Another back-up of {home} is being made. Wait for it."
    with exclusive(backup_lock(home), refusal), _moment(home, secrets) as moment:
        about = {
            "format": FORMAT,
            "release": version("ris-studio"),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "label_studio": (moment / "label-studio" / _DATABASE).exists(),
            "secrets": secrets,
        }
        if file == STANDARD_STREAM:
            with os.fdopen(os.dup(1), "wb") as output:
                names, size = _write(output, moment, about)
        else:
            with _whole(file) as output:
                names, size = _write(output, moment, about)
    return BackupReport(
        str(file),
        len(names),
        size,
        sum(name.startswith("models/") and name.endswith("/version.json") for name in names),
        len({"/".join(name.split("/")[:3]) for name in names if name.startswith("snapshots/")}),
        sum(name.startswith("pictures/") and len(name) == len("pictures/00/") + 64 for name in names),
        bool(about["label_studio"]),
        secrets,
    )


@contextmanager
def _moment(home: Path, secrets: bool) -> Iterator[Path]:
    """A folder in home with what home held at one moment. A killed one's is removed by the next."""
    for left in home.glob(f"{_STAGING}*"):
        shutil.rmtree(left, ignore_errors=True)
    moment = Path(tempfile.mkdtemp(dir=home, prefix=_STAGING))
    try:
        # First: what its annotations were made from is then in the registry, which is taken later.
        _take_label_studio(label_studio_folder(home), moment / "label-studio")
        with _nobody_writes(home):
            for name in (*_LINKED, *_COPIED):
                _take(home / name, moment / name, name in _LINKED)
            _take_settings(env_file(home), moment / env_file(home).name, secrets)
        yield moment
    finally:
        shutil.rmtree(moment, ignore_errors=True)


@contextmanager
def _nobody_writes(home: Path) -> Iterator[None]:
    """Hold the locks of the registry, the snapshots, the pictures and the ledgers.

    Whoever holds one of them waits for no other, so that their order doesn't matter.
    """
    with ExitStack() as held:
        projects = [path for path in models_folder(home).glob("project-*") if path.is_dir()]
        locks = [project / "writing.lock" for project in projects]
        locks += [folder / ".lock" for folder in (home / "snapshots").glob("*") if folder.is_dir()]
        locks += [pictures_folder(home) / "pixels.lock"] if pictures_folder(home).is_dir() else []
        ledgers = (home / "projects").glob("*.json")
        locks += [file.with_suffix(".lock") for file in ledgers]
        for lock in sorted(set(locks)):
            held.enter_context(exclusive(lock))
        yield


def _take(source: Path, target: Path, linked: bool) -> None:
    """A folder's files in a new folder of the same time, without locks, caches and what isn't finished."""
    if not source.is_dir():
        return
    target.mkdir(mode=0o700)
    for entry in os.scandir(source):
        if _is_left_out(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            _take(Path(entry.path), target / entry.name, linked)
        elif entry.is_file(follow_symlinks=False):
            _take_file(Path(entry.path), target / entry.name, linked)
    shutil.copystat(source, target)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.endswith((".lock", "-wal", "-shm", "-journal")) or ".records.sqlite" in name


def _take_file(source: Path, target: Path, linked: bool) -> None:
    if linked:
        # Not every file system has hard links.
        with suppress(OSError):
            os.link(source, target)
            return
    # One that is gone was deleted while folders were gone through.
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


def _take_label_studio(source: Path, target: Path) -> None:
    """Its database by SQLite's own way of copying one in use, then the files that were uploaded, which don't change."""
    if not (source / _DATABASE).is_file():
        return
    target.mkdir(mode=0o700)
    address = f"{(source / _DATABASE).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as live, closing(sqlite3.connect(target / _DATABASE)) as copy:
        live.backup(copy)
    # A file is uploaded before its row is written: all that the copy names is there.
    _take(source / "media", target / "media", linked=True)


def _take_settings(source: Path, target: Path, secrets: bool) -> None:
    if source.is_file():
        text = source.read_text(encoding="utf-8")
        target.write_text(text if secrets else without_secrets(text), encoding="utf-8")
        target.chmod(0o600)


def without_secrets(text: str) -> str:
    """The lines of a ris.env but for those that set a secret."""
    return "".join(line for line in text.splitlines(keepends=True) if not sets_secret(line))


def sets_secret(line: str) -> bool:
    """Whether a line of a ris.env sets a secret."""
    return line.partition("=")[0].strip().upper() in _SECRET_NAMES


_SECRET_NAMES = frozenset(f"{PREFIX}{knob}".upper() for knob in secret_knobs())


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """A file that is there once all of it is on disk. What a killed one left beside it is removed."""
    for left in file.parent.glob(f".{file.name}.*"):
        left.unlink()
    with atomic_file(file, 0o600) as output:
        yield output


def _write(output: BinaryIO, moment: Path, about: Mapping[str, object]) -> tuple[dict[str, str], int]:
    """Write the tar -> the SHA-256 of its files, and its size in bytes."""
    digests: dict[str, str] = {}
    first: dict[int, str] = {}
    counted = _Counted(output)
    # Pictures before the snapshots that link to them, whatever the order on disk.
    with tarfile.open(fileobj=counted, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(moment.rglob("*")):
            name = path.relative_to(moment).as_posix()
            info = _member(path, name)
            if path.is_dir():
                archive.addfile(info)
                continue
            same = first.setdefault(path.stat().st_ino, name)
            if same != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, same, 0
                archive.addfile(info)
                digests[name] = digests[same]
                continue
            with path.open("rb") as file:
                hashing = _Hashed(file)
                archive.addfile(info, hashing)
                digests[name] = hashing.digest.hexdigest()
        manifest = json.dumps({**about, "files": digests}, indent=1, sort_keys=True).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(manifest), 0o600
        archive.addfile(info, io.BytesIO(manifest))
    return digests, counted.size


def _member(path: Path, name: str) -> tarfile.TarInfo:
    """A member without owner: who restores it owns it."""
    status = path.stat()
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = status.st_mode & 0o777, status.st_mtime
    if path.is_dir():
        info.type = tarfile.DIRTYPE
    else:
        info.size = status.st_size
    return info


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


class _Counted(io.RawIOBase):
    """A file whose bytes are counted as they are written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        self._file.write(data)
        return len(data)
