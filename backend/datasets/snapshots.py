"""Snapshots: a project's corrections as an immutable dataset folder named by its content. Knows no model.

    <home>/snapshots/<project>/<id>/
        images/<task>_<name>    each image once, as it was uploaded
        instances.json          COCO; masks as exact run lengths
        refs.json               gRefCOCO's refs: the sentences, what they mean, and the split
        manifest.json           the SHA-256 of every other file

The id is the SHA-256 of the manifest, so it vouches for every file. Nothing in a snapshot depends on the time: the same
annotations of the same predictions give the same id, also after the predictions were deleted, as long as home keeps
what was measured of them (`backend.datasets.edits`) and the numbers of categories (`backend.datasets.categories`).
Training reads it.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from backend.datasets.annotations import Correction, Corrections, SkippedTask
from backend.datasets.categories import number_categories
from backend.datasets.dataset import Dataset, compact_json
from backend.datasets.formats.coco import write_documents
from backend.datasets.formats.options import link
from backend.datasets.image_store import ImageStore, StoredImage
from backend.datasets.instances import categories_of, dataset_image
from backend.errors import FetchError
from backend.home import pictures_folder, snapshots_folder
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.task_data import path_of
from backend.locks import exclusive
from ris_core.errors import DatasetError, ImageError, InputError
from ris_core.files import atomic_dir, sha256
from ris_core.images import MAX_PIXELS

FORMAT = "ris-studio snapshot 1"
MANIFEST = "manifest.json"
_LONGEST_NAME = 100

FetchImage = Callable[[Correction], bytes]


@dataclass(frozen=True)
class Snapshot:
    """A dataset folder that is complete. skipped: the tasks that have corrections, but aren't in it."""

    folder: Path
    images: int
    annotations: int
    refs: int
    skipped: tuple[SkippedTask, ...] = ()

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.folder.name


def snapshots(home: Path, project: int) -> list[Path]:
    """The folders of a project's snapshots, the one that was made or asked for last first."""
    folders = [folder for folder in snapshots_folder(home, project).glob("[!.]*") if folder.is_dir()]
    return sorted(folders, key=lambda folder: (folder.stat().st_mtime, folder.name), reverse=True)


def newest_snapshot(home: Path, project: int) -> Path:
    """The folder of the snapshot that was made or asked for last. Raises DatasetError if the project has none."""
    folders = snapshots(home, project)
    if not folders:
        raise DatasetError(
            f"Project {project} has no snapshot to compare on. Annotate, then `ris finetune --project {project}` "
            "makes one."
        )
    return folders[0]


def spare_snapshots(home: Path, project: int, named: Collection[str], since: float) -> list[Path]:
    """A project's snapshots but the `named`, the newest, and those asked for since a time, in seconds of the epoch."""
    old = (folder for folder in snapshots(home, project)[1:] if folder.stat().st_mtime < since)
    return [folder for folder in old if folder.name not in named]


def prune_snapshots(home: Path, project: int, named: Collection[str], since: float) -> list[Path]:
    """Delete what `spare_snapshots` finds, each in one step. Who has a file of theirs open can go on reading it."""
    parent = snapshots_folder(home, project)
    with exclusive(parent / ".lock"):
        gone = spare_snapshots(home, project, named, since)
        for folder in gone:
            folder.rename(parent / f".{folder.name}.pruned")
        _sweep(parent)
    return gone


def build_snapshot(
    project: int,
    corrections: Corrections,
    config: LabelConfig,
    fetch: FetchImage,
    home: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    parent: Path | None = None,
) -> Snapshot:
    """Write a project's corrections as a snapshot, or find the one that holds just these.

    parent: the folder that it lies in. [that of the project's snapshots]

    One image is in memory at a time. A task whose image can't be had (`fetch` raises a `FetchError`), or isn't of its
    masks' size, is left out and reported. Any other error ends the build: where Label Studio itself is down, half a
    snapshot would be worse than none. Whatever ends the process, the folder is either whole or absent. Raises
    DatasetError if no task is left.
    """
    store = ImageStore(pictures_folder(home), max_pixels)
    images, failed = _fetch_images(corrections.items, fetch, store)
    skipped = tuple(sorted((*corrections.skipped, *failed), key=lambda task: task.task))
    if not images and skipped:
        first = skipped[0]
        raise DatasetError(f"None of project {project}'s tasks can be used. Task {first.task}: {first.reason}")
    if not images:
        raise DatasetError(f"Project {project} has no submitted annotation yet. Annotate a task in Label Studio first.")
    used = {drawn.label for correction, _ in images for drawn in correction.objects}
    numbers = number_categories(home, project, config, used)
    rows = [dataset_image(correction, image, file_name(correction, image), numbers) for correction, image in images]
    dataset = Dataset(describe(project), categories_of(numbers, config), lambda: iter(rows))
    folder = _write(parent or snapshots_folder(home, project), dataset)
    return Snapshot(
        folder,
        len(rows),
        sum(len(image.instances) for image in rows),
        sum(len(image.refs) for image in rows),
        skipped,
    )


def describe(project: int) -> str:
    """What a project's dataset says that it is."""
    return f"Corrections of Label Studio project {project}"


def label_names(folder: Path) -> dict[int, str]:
    """The label of what each ref of a snapshot means, by its number; nothing of those that mean nothing there."""
    instances, refs = (json.loads((folder / name).read_bytes()) for name in ("instances.json", "refs.json"))
    names = {category["id"]: category["name"] for category in instances["categories"]}
    return {ref["ref_id"]: names[ref["category_id"][0]] for ref in refs if ref["category_id"][0] in names}


def verify(folder: Path) -> None:
    """Raise DatasetError if a snapshot or an export has no manifest, or a file is missing or has another content."""
    for name, digest in read_manifest(folder).items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            raise DatasetError(f"{path} is missing or was changed. Export the project again.")


def write_manifest(folder: Path) -> None:
    """Write the manifest of all files in a folder."""
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}
    (folder / MANIFEST).write_bytes(compact_json({"format": FORMAT, "files": files}))


def read_manifest(folder: Path) -> dict[str, str]:
    """File names of a snapshot or an export, relative to it -> SHA-256. Raises DatasetError if it has no manifest."""
    with suppress(OSError):
        if (files := parse_manifest((folder / MANIFEST).read_bytes())) is not None:
            return files
    raise DatasetError(f"{folder} has no {MANIFEST} of a snapshot: it isn't an export, or it is damaged.")


def parse_manifest(data: bytes, fmt: str = FORMAT) -> dict[str, str] | None:
    """A manifest's content -> file names and their SHA-256; nothing if it isn't a manifest of that format."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        manifest = json.loads(data)
        if manifest["format"] == fmt:
            return {str(name): str(digest) for name, digest in manifest["files"].items()}
    return None


def _fetch_images(
    corrections: Sequence[Correction], fetch: FetchImage, store: ImageStore
) -> tuple[list[tuple[Correction, StoredImage]], list[SkippedTask]]:
    """The corrections whose image can be had and is of their masks' size, and the others with the reason."""
    images, skipped = [], []
    for correction in corrections:
        try:
            images.append((correction, store_image(correction, fetch(correction), store)))
        except (InputError, FetchError) as error:
            skipped.append(SkippedTask(correction.task, str(error)))
    return images, skipped


def store_image(correction: Correction, data: bytes, store: ImageStore) -> StoredImage:
    """Keep a correction's picture as it was shown. Raises ImageError if it isn't one of its masks' size."""
    sizes = [drawn.rle["size"] for drawn in correction.objects]
    image = store.add(data, (sizes[0][0], sizes[0][1]) if sizes else None)
    for drawn in correction.objects:
        height, width = drawn.rle["size"]
        if (height, width) != (image.height, image.width):
            raise ImageError(
                f"Task {correction.task}'s masks were drawn on {width} x {height} pixels, but its picture "
                f"has {image.width} x {image.height}. Annotate it again."
            )
    return image


def file_name(correction: Correction, image: StoredImage) -> str:
    """`<task>_<base name>`: unique, and free of whatever else the image's address holds."""
    stem = (
        re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(path_of(correction.image)).stem)[:_LONGEST_NAME].strip("._")
        or "image"
    )
    return f"{correction.task}_{stem}{image.suffix}"


def _write(parent: Path, dataset: Dataset) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    with exclusive(parent / ".lock"):
        _sweep(parent)
        with TemporaryDirectory(dir=parent, prefix=".documents.") as documents:
            write_documents(dataset, Path(documents))
            files = {f"images/{image.file_name}": image.digest for image in dataset.images()}
            files |= {path.name: sha256(path) for path in Path(documents).iterdir()}
            manifest = compact_json({"format": FORMAT, "files": files})
            folder = parent / sha256(manifest)
            if folder.exists():
                # It is the newest again.
                os.utime(folder)
                return folder
            with atomic_dir(folder) as temporary:
                (temporary / "images").mkdir()
                for image in dataset.images():
                    link(image.path, temporary / "images" / image.file_name)
                for path in Path(documents).iterdir():
                    path.rename(temporary / path.name)
                (temporary / MANIFEST).write_bytes(manifest)
    return folder


def _sweep(parent: Path) -> None:
    # Nobody else writes while the lock is held, so hidden folders are what killed writers left.
    for folder in parent.glob(".*/"):
        shutil.rmtree(folder)
