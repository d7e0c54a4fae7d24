"""An export: a snapshot, written in a format to a folder of its own, where an earlier export gives way to it."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.datasets.dataset import Dataset, read_dataset_folder
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.formats.options import ExportOptions
from backend.datasets.project import read_project, snapshot_project
from backend.datasets.snapshots import MANIFEST, read_manifest, write_manifest
from backend.errors import BadRequest
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import Defaults
from ris_core.errors import DatasetError
from ris_core.files import atomic_dir
from ris_core.images import MAX_PIXELS

_DEFAULTS = ExportOptions()
# What ultralytics leaves beside the labels that it has read.
_CACHE = re.compile(r"labels/\w+\.cache")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_export(fmt: object, name: object) -> None:
    """Raise BadRequest if there is no such format, or `name` can't name an export's folder."""
    if fmt not in EXPORT_FORMATS:
        raise BadRequest(f"There is no export format {fmt!r:.100}. Choose from {', '.join(EXPORT_FORMATS)}.")
    # A path from the queue could lead anywhere on the disk.
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest(f"{name!r:.100} can't name an export. Use letters, digits, dots and dashes.")


def export_project(
    client: LabelStudio,
    images: ImageResolver,
    project: int,
    out: Path,
    *,
    home: Path,
    fmt: str = "coco",
    max_pixels: int = MAX_PIXELS,
    defaults: Defaults | None = None,
) -> dict[str, Any]:
    """Export a project's corrections to the folder `out`; an earlier export there is replaced.

    Returns a report for JSON: project, snapshot, out, the numbers of images, annotations and refs, left_out (how many
    things the format can't say, by what they are), and skipped, a list of {task, reason}. Raises BadRequest if
    there is no such format, DatasetError if there is nothing to export or `out` holds something else, and
    LabelStudioError.
    """
    check_export(fmt, out.name)
    _check_replaceable(out)
    annotated = read_project(client, project, home, defaults)
    snapshot = snapshot_project(annotated, images, home, max_pixels)
    left_out = export_dataset(read_dataset_folder(snapshot.folder), out, fmt)
    return {
        "project": project,
        "format": fmt,
        "out": str(out),
        "snapshot": snapshot.id,
        "images": snapshot.images,
        "annotations": snapshot.annotations,
        "refs": snapshot.refs - sum(count for what, count in left_out.items() if what.startswith("expressions")),
        "left_out": dict(left_out),
        "skipped": [asdict(task) for task in (*snapshot.skipped, *annotated.corrections.remarks)],
    }


def export_dataset(
    dataset: Dataset, out: Path, fmt: str = "coco", options: ExportOptions = _DEFAULTS
) -> Mapping[str, int]:
    """Write a dataset to the folder `out` in one of EXPORT_FORMATS. Returns what that can't say, see there.

    An earlier export at `out` is replaced once the new one is complete. Raises DatasetError if `out` holds
    anything else, and leaves it alone.
    """
    _check_replaceable(out)
    previous, fresh = (out.with_name(f".{out.name}.{name}") for name in ("previous", "new"))
    # Left behind only by a process that was killed.
    for leftover in (previous, fresh):
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_dir(fresh) as folder:
        left_out = EXPORT_FORMATS[fmt].write(dataset, folder, options)
        # By which a later export knows what it may replace.
        write_manifest(folder)
    if out.exists():
        out.rename(previous)
    fresh.rename(out)
    shutil.rmtree(previous, ignore_errors=True)
    return left_out


def _check_replaceable(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise DatasetError(f"{out} is a file. Choose a folder to export to.")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    files = {name for name in files if not _CACHE.fullmatch(name)}
    foreign = files - {*read_manifest(out), MANIFEST}
    if foreign:
        raise DatasetError(
            f"{out} holds {min(foreign)}, which no export wrote. Move it away, or export to another folder."
        )
