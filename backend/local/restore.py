"""Put a back-up (`backend.local.backup`) into a home folder: all of it, or nothing.

It is unpacked beside what is there, every file is compared with the manifest, and only then is it put in its place:

1. unpacked and checked in `.restoring.*`; killed here, the home folder is as it was
2. that folder is renamed to `.restored`: from here on the restore counts, and no service starts before it is finished
3. entry by entry, what is there gives way; killed here, `resume` goes on

Nothing may run on the home folder meanwhile; `ris up` is kept out by its lock.
"""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from backend.errors import BackendError
from backend.home import env_file, restored_folder
from backend.local.backup import FORMAT, MANIFEST, STANDARD_STREAM, sets_secret
from backend.local.secrets import locked
from ris_core.errors import InputError
from ris_core.files import cache, sha256, sync

_STAGING = ".restoring."
_REPLACED = ".replaced"
# What `ris up` leaves in a home folder that was never used, and what a restore needs itself.
_NOTHING = ("lock", "logs", "backup.lock")


class BackupDamaged(BackendError, code="backup_damaged"):
    """A file isn't a back-up, or not a whole one."""


@dataclass(frozen=True)
class RestoreReport:
    """What was restored. release, made: of the back-up, a UTC time. label_studio, secrets: whether they were in it."""

    home: str
    files: int
    release: str
    made: str
    label_studio: bool
    secrets: bool


def restore(home: Path, file: Path, replace: bool = False) -> RestoreReport:
    """Make `home` what a back-up holds, "-" being standard input. replace: whether what is there may go.

    Where the back-up has no secrets, those of the home folder stay. Raises InputError if something is there, or the
    restore before wasn't finished; BackupDamaged if the back-up isn't whole; AlreadyRunning while `ris up` runs.
    """
    if file != STANDARD_STREAM and not file.is_file():
        raise InputError(f"There is no back-up {file}.")
    with _held(home):
        if restored_folder(home).exists():
            raise InputError(f"A restore of {home} was interrupted. Finish it first: `ris restore --resume`.")
        _sweep(home)
        if not replace and (there := _there(home)):
            raise InputError(
                f"{home} isn't empty: it has {', '.join(there[:5])}. Restore into another folder (RIS_HOME), or add "
                "--replace if what is there may go."
            )
        staging = Path(tempfile.mkdtemp(dir=home, prefix=_STAGING))
        try:
            manifest = _unpack(file, staging)
            if not manifest["secrets"]:
                _keep_secrets(env_file(home), staging / env_file(home).name)
            staging.rename(restored_folder(home))
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync(home)
        _put_in_place(home)
    return RestoreReport(
        str(home),
        len(manifest["files"]),
        str(manifest["release"]),
        str(manifest["made"]),
        bool(manifest["label_studio"]),
        bool(manifest["secrets"]),
    )


def resume(home: Path) -> None:
    """Finish a restore that was interrupted. Raises InputError if none was."""
    if not restored_folder(home).exists():
        raise InputError(f"No restore of {home} was interrupted. `ris restore FILE` begins one.")
    with _held(home):
        _put_in_place(home)


@contextmanager
def _held(home: Path) -> Iterator[None]:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(home, announced=False):
        yield


def _there(home: Path) -> list[str]:
    """What would have to give way. Fetched weights, which containers keep here, are nobody's state."""
    fetched = cache().resolve()
    entries = (entry for entry in home.iterdir() if entry.resolve() != fetched)
    return sorted(entry.name for entry in entries if entry.name not in _NOTHING)


def _sweep(home: Path) -> None:
    for left in (*home.glob(f"{_STAGING}*"), home / _REPLACED):
        shutil.rmtree(left, ignore_errors=True)


def _put_in_place(home: Path) -> None:
    """Move what is there away and what was restored in, each entry in one step; again after a kill: the rest."""
    restored, replaced = restored_folder(home), home / _REPLACED
    replaced.mkdir(exist_ok=True)
    waiting = {entry.name for entry in restored.iterdir()}
    begun = replaced / "begun"
    if not begun.exists():
        # What the back-up doesn't have goes as well: caches and queue of another state.
        for name in _there(home):
            if name not in (restored.name, replaced.name):
                (home / name).rename(replaced / f"old-{name}")
        begun.touch()
    for name in sorted(waiting):
        (restored / name).rename(home / name)
    sync(home)
    restored.rmdir()
    shutil.rmtree(replaced)
    sync(home)


def _unpack(file: Path, staging: Path) -> Mapping[str, Any]:
    """Unpack into an empty folder -> the manifest, which every file agrees with. Raises BackupDamaged."""
    times: dict[Path, float] = {}
    try:
        with _opened(file) as source, tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                times[_place(archive, member, staging)] = member.mtime
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise BackupDamaged(f"{file} isn't a whole back-up ({error}). Take another one.") from None
    manifest = _checked(file, staging)
    for path in sorted(times, reverse=True):
        if path.exists():
            os.utime(path, (times[path], times[path]))
    for path in staging.rglob("*"):
        sync(path)
    sync(staging)
    return manifest


def _opened(file: Path) -> BinaryIO:
    return os.fdopen(os.dup(0), "rb") if file == STANDARD_STREAM else file.open("rb")


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, staging: Path) -> Path:
    """Write one member below `staging`, whatever its name says. Raises ValueError for what no back-up has."""
    path = _inside(member.name, staging)
    if member.isdir():
        path.mkdir(mode=0o700, exist_ok=True)
    elif member.islnk():
        os.link(_inside(member.linkname, staging), path)
    elif member.isreg():
        source = archive.extractfile(member)
        assert source
        with source, path.open("xb") as target:
            shutil.copyfileobj(source, target)
        path.chmod(member.mode & 0o700)
    else:
        raise ValueError(f"{member.name} is neither a file nor a folder")
    return path


def _inside(name: str, staging: Path) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name} lies outside")
    return staging.joinpath(*parts)


def _checked(file: Path, staging: Path) -> Mapping[str, Any]:
    """The manifest, which is taken out. Raises BackupDamaged unless it names just what is there."""
    try:
        manifest = json.loads((staging / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise BackupDamaged(f"{file} is a {manifest['format']}, and this release reads {FORMAT}.")
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupDamaged(f"{file} has no {MANIFEST} at its end: it was cut off, or isn't a back-up.") from None
    (staging / MANIFEST).unlink()
    there = {path.relative_to(staging).as_posix(): path for path in staging.rglob("*") if path.is_file()}
    if there.keys() != manifest["files"].keys():
        odd = sorted(there.keys() ^ manifest["files"].keys())[0]
        raise BackupDamaged(f"{file} is damaged: {odd} is in it or in its manifest, but not in both.")
    digests: dict[int, str] = {}
    for name, path in there.items():
        inode = path.stat().st_ino
        digests[inode] = digests.get(inode) or sha256(path)
        if digests[inode] != manifest["files"][name]:
            raise BackupDamaged(f"{file} is damaged: {name} isn't what was backed up.")
    return dict(manifest)


def _keep_secrets(present: Path, restored: Path) -> None:
    """Add to the restored settings the secrets that the present ones set."""
    lines = present.read_text(encoding="utf-8").splitlines() if present.is_file() else []
    if kept := [line for line in lines if sets_secret(line)]:
        text = restored.read_text(encoding="utf-8") if restored.exists() else ""
        restored.write_text("\n".join([*text.splitlines(), *kept, ""]), encoding="utf-8")
        restored.chmod(0o600)
