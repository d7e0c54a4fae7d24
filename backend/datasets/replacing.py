"""Where an export may go: it gives way to a later one, and to nothing else. Knows nothing of formats."""

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.datasets.snapshots import MANIFEST, read_manifest
from ris_core.errors import DatasetError
from ris_core.files import atomic_dir

# What ultralytics leaves beside the labels that it has read.
_CACHE = re.compile(r"labels/\w+\.cache")


def check_replaceable(out: Path) -> None:
    """Raise DatasetError if a folder `out` holds anything but an earlier export."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise DatasetError(f"{out} is a file. Choose a folder to export to.")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    files = {name for name in files if not _CACHE.fullmatch(name)}
    check_written_by_export(str(out), files, {*read_manifest(out), MANIFEST})


def check_written_by_export(place: str, names: Iterable[str], written: Iterable[str]) -> None:
    """Raise DatasetError if among the `names` in a place is one that no export has `written`."""
    foreign = set(names).difference(written)
    if foreign:
        raise DatasetError(
            f"{place} holds {min(foreign)}, which no export wrote. Move it away, or export to another place."
        )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of an earlier export at `out` when the block succeeds.

    One process at a time may write to `out`; whatever ends it, the next one sweeps up. Raises DatasetError if `out`
    holds anything else, and leaves it alone.
    """
    check_replaceable(out)
    previous, fresh = (out.with_name(f".{out.name}.{name}") for name in ("previous", "new"))
    if previous.exists() and not out.exists():
        # Killed between the two renames below.
        previous.rename(out)
    for leftover in (previous, fresh, *_unfinished(fresh)):
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_dir(fresh) as folder:
        yield folder
    if out.exists():
        out.rename(previous)
    fresh.rename(out)
    shutil.rmtree(previous, ignore_errors=True)


def _unfinished(folder: Path) -> list[Path]:
    """What `atomic_dir` leaves where its process is killed."""
    if not folder.parent.is_dir():
        return []
    return [path for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")]
