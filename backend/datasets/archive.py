"""An export as one .zip file. The same export gives the same bytes, as far as the same zlib compresses it."""

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from backend.datasets.finished import FinishedExport
from backend.datasets.replacing import check_written_by_export
from backend.datasets.snapshots import MANIFEST, parse_manifest
from ris_core.errors import DatasetError

_CHUNK = 1 << 20
# The earliest time that the format knows: when an export was made is none of its content.
_TIME = (1980, 1, 1, 0, 0, 0)
_READABLE, _UNIX = 0o100644 << 16, 3
# Compressed by themselves: deflating them costs time and gains nothing.
_COMPRESSED = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".gz", ".zip", ".npz", ".parquet"}


def write_archive(export: FinishedExport, target: IO[bytes], on_progress: Callable[[int, int], object]) -> None:
    """Write an export's files, sorted by name, one chunk in memory. on_progress: (files done, files)."""
    names = sorted([*export.files, MANIFEST])
    with ZipFile(target, "w") as archive:
        for done, name in enumerate(names):
            on_progress(done, len(names))
            _add(archive, export.path(name), name)
    on_progress(len(names), len(names))
    export.check_unchanged()


def check_archive_replaceable(place: str, file: IO[bytes]) -> None:
    """Raise DatasetError if a file at some place is anything but an earlier export's archive."""
    try:
        with ZipFile(file) as archive:
            names = {name for name in archive.namelist() if not name.endswith("/")}
            written = parse_manifest(archive.read(MANIFEST)) if MANIFEST in names else None
    except BadZipFile:
        written = None
    if written is None:
        raise DatasetError(f"{place} isn't an export's archive. Move it away, or choose another name.")
    check_written_by_export(place, names, {*written, MANIFEST})


def _add(archive: ZipFile, path: Path, name: str) -> None:
    entry = ZipInfo(name, _TIME)
    entry.create_system, entry.external_attr = _UNIX, _READABLE
    entry.compress_type = ZIP_STORED if PurePosixPath(name).suffix.lower() in _COMPRESSED else ZIP_DEFLATED
    # By which the archive knows that an entry needs 64 bits.
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, _CHUNK)
