"""A small project with corrections of every kind, and snapshots of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from annotated import CONFIG, absent, annotation, drawn, task, typed
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend.datasets.annotations import Correction, read_corrections
from backend.datasets.dataset import read_dataset_folder
from backend.datasets.export import export_dataset
from backend.datasets.snapshots import Snapshot, build_snapshot
from backend.errors import FetchFailed

HEIGHT, WIDTH = 24, 32


def photo(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH), kind: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def saved_anew(seed: int) -> bytes:
    """`photo(seed)` with the same pixels and other bytes: metadata, and another compression."""
    info = PngInfo()
    info.add_text("Software", "another program")
    return photo(seed, compress_level=1, pnginfo=info)


def blob(seed: int) -> np.ndarray:
    """Two rings that touch the border, and a speck."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    top, left = np.random.default_rng(seed).integers(0, 12, 2)
    mask[top : top + 9, left : left + 9] = True
    mask[top + 2 : top + 5, left + 2 : left + 6] = False
    mask[0, ::2] ^= True
    return mask


TASKS = [
    task(1, annotation(11, drawn("a", blob(1), "cat", "The cat"), drawn("b", blob(2), "dog", "a dog"))),
    task(2, annotation(12, drawn("a", blob(3), "cat", "cats"), drawn("c", blob(4), "dog", "cats"))),
    task(3, annotation(13, typed("a unicorn"), absent())),
    task(4, annotation(14, drawn("a", blob(5), "cup"), origin="manual")),
    task(5, annotation(15)),
    task(6),
]
PHOTOS = {number: photo(number) for number in range(1, 7)}


def build(
    home: Path, tasks: list[dict[str, Any]] = TASKS, photos: Mapping[int, bytes] = PHOTOS, **options: Any
) -> Snapshot:
    def fetch(correction: Correction) -> bytes:
        if correction.task not in photos:
            raise FetchFailed(f"Task {correction.task}'s image answers 404.")
        return photos[correction.task]

    return build_snapshot(3, read_corrections(tasks, CONFIG), CONFIG, fetch, home, **options)


def export_snapshot(snapshot: Snapshot, out: Path, fmt: str = "coco") -> Mapping[str, int]:
    return write_snapshot(snapshot.folder, out, fmt)


def write_snapshot(folder: Path, out: Path, fmt: str) -> Mapping[str, int]:
    return export_dataset(read_dataset_folder(folder), out, fmt)


def load(snapshot: Snapshot, name: str) -> Any:
    return json.loads((snapshot.folder / name).read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
