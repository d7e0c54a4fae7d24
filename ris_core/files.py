"""Files that are either whole or absent: written aside, synced, then renamed. Knows nothing of what is in them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20


def sha256(source: bytes | Path) -> str:
    """Hexadecimal SHA-256 of bytes or of a file's content."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader sees the old content or all of the new, whatever dies meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, mode) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file beside `path`, in a folder that is there, that takes its place when the block succeeds."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its name when the block succeeds, and vanishes when it fails.

    Raises FileExistsError if `path` is there already: folders made so are immutable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            sync(file)
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Put a file's content, or a folder's names, on disk. A rename lasts through a power cut once its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache() -> Path:
    """The folder that fetched weights are kept in: `RIS_CACHE`, or else ~/.cache/ris."""
    return Path(os.environ.get("RIS_CACHE") or "~/.cache/ris").expanduser()
