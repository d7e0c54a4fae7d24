"""Publishing: a finished export goes to a folder, a .zip file, or an object store, whole or not at all.

What was there must be an earlier export, which gives way; anything else is refused. Killed at any moment, the next run
completes it. One process at a time may publish to a place; those that publish from one home take turns.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.datasets.archive import check_archive_replaceable, write_archive
from backend.datasets.finished import FinishedExport
from backend.datasets.object_store import PROTOCOLS, ObjectStore
from backend.datasets.object_sync import check_prefix, synchronise
from backend.datasets.replacing import check_replaceable, replacing
from backend.datasets.snapshots import MANIFEST
from backend.errors import PublishError
from backend.locks import exclusive
from ris_core.errors import DatasetError
from ris_core.files import sha256, sync

OnProgress = Callable[[int, int], object]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it may only be read",
    errno.EACCES: "it may not be written to",
    errno.EPERM: "it may not be written to",
}


def check_destination(destination: str) -> None:
    """Raise PublishError if an export can't go there, DatasetError if there is anything but an earlier one."""
    with _explained(destination):
        _place(destination).check()


def publish(folder: Path, destination: str, on_progress: OnProgress = lambda done, total: None) -> str:
    """Put the finished export in `folder` where it should go, and return where that is.

    destination: a folder, a name that ends in .zip, or either at an address such as s3://BUCKET/PREFIX, see PROTOCOLS.
    on_progress: called with the numbers of files that are there, and of all. Raises DatasetError if the export isn't
    whole, or there is anything but an earlier export; PublishError if there is no way to it.
    """
    place = _place(destination)
    with _explained(destination):
        export = FinishedExport.read(folder)
        with exclusive(_hidden(folder, place.name, "lock")):
            place.check()
            try:
                place.put(export, on_progress)
            except (OSError, PublishError):
                # If its files were replaced under our hands, that is why.
                export.check_unchanged()
                raise
    return place.name


class _Place(Protocol):
    @property
    def name(self) -> str:
        """The same place has the same name."""

    def check(self) -> None:
        """Raise DatasetError if there is anything but an earlier export."""

    def put(self, export: FinishedExport, on_progress: OnProgress) -> None:
        """Put it there."""


@dataclass(frozen=True)
class _Folder:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def check(self) -> None:
        check_replaceable(self.path)
        _check_writable(self.path)

    def put(self, export: FinishedExport, on_progress: OnProgress) -> None:
        _check_apart(export, self.path)
        names = [*export.files, MANIFEST]
        with replacing(self.path) as folder:
            for done, name in enumerate(names):
                on_progress(done, len(names))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(export.path(name), folder / name)
            export.check_unchanged()
        on_progress(len(names), len(names))


@dataclass(frozen=True)
class _Archive:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def check(self) -> None:
        if self.path.is_dir():
            raise DatasetError(f"{self.path} is a folder. Choose another name for the archive.")
        if self.path.exists():
            with self.path.open("rb") as file:
                check_archive_replaceable(self.name, file)
        _check_writable(self.path)

    def put(self, export: FinishedExport, on_progress: OnProgress) -> None:
        _check_apart(export, self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _written_aside(self.path.with_name(f".{self.path.name}.new"), export, on_progress) as temporary:
            temporary.replace(self.path)
            sync(self.path.parent)


@dataclass(frozen=True)
class _Prefix:
    store: ObjectStore

    @property
    def name(self) -> str:
        return self.store.address

    def check(self) -> None:
        check_prefix(self.store)

    def put(self, export: FinishedExport, on_progress: OnProgress) -> None:
        synchronise(export, self.store, on_progress)


@dataclass(frozen=True)
class _RemoteArchive:
    """An archive in an object store: written beside the export first, since a store takes no half file back."""

    store: ObjectStore
    file: str

    @property
    def name(self) -> str:
        return f"{self.store.address}/{self.file}"

    def check(self) -> None:
        with self.store.open(self.file) as file:
            if file is not None:
                check_archive_replaceable(self.name, file)

    def put(self, export: FinishedExport, on_progress: OnProgress) -> None:
        # Its folder is there: the lock is in it.
        with _written_aside(_hidden(export.folder, self.name, "zip"), export, on_progress) as temporary:
            self.store.upload(self.file, temporary)


def _place(destination: str) -> _Place:
    is_archive = destination.lower().endswith(".zip")
    address = _ADDRESS.fullmatch(destination)
    protocol, within = address.groups() if address else ("file", destination)
    if protocol not in PROTOCOLS:
        raise PublishError(
            f"There is no way to publish to {protocol}://. Known are {', '.join(PROTOCOLS)}, and paths without any."
        )
    if protocol == "file":
        path = Path(within).expanduser().absolute()
        return _Archive(path) if is_archive else _Folder(path)
    if is_archive:
        parent, _, file = within.rpartition("/")
        return _RemoteArchive(ObjectStore(f"{protocol}://{parent}"), file)
    return _Prefix(ObjectStore(destination))


def _check_writable(path: Path) -> None:
    """Raise PublishError if nothing can be made in the folder that is to hold it."""
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise PublishError(f"{path} can't be made: {above} is a file. Publish somewhere else.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PublishError(f"{path} can't be made: {above} may not be written to. Publish somewhere else.")


def _check_apart(export: FinishedExport, path: Path) -> None:
    ours, other = export.folder.resolve(), path.resolve()
    if ours == other or ours in other.parents or other in ours.parents:
        raise PublishError(f"{path} and the export at {export.folder} lie within each other. Publish somewhere else.")


@contextmanager
def _written_aside(temporary: Path, export: FinishedExport, on_progress: OnProgress) -> Iterator[Path]:
    """The archive, on disk and under a name that vanishes with the block. A killed writer's is written over."""
    try:
        with temporary.open("wb") as file:
            write_archive(export, file, on_progress)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _hidden(folder: Path, name: str, suffix: str) -> Path:
    """A file beside the export that stands for a place."""
    return folder.with_name(".publishing") / f"{sha256(name.encode())[:16]}.{suffix}"


@contextmanager
def _explained(destination: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
        file = f" ({error.filename})" if error.filename else ""
        raise PublishError(
            f"{destination} can't be published to: {cause}{file}. Mend that, then run it again."
        ) from error
