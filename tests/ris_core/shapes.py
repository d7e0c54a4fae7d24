"""A small dataset folder for tests: coloured discs and squares on grey, so that little training goes a long way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ris_core.data.derive.choices import Thing
from ris_core.data.derive.folder_writer import LabelledPhoto, write_folder
from ris_core.data.derive.words import noun

COLOURS = {
    "red disc": (220, 30, 30),
    "blue square": (30, 30, 220),
    "green disc": (30, 200, 30),
    "white square": (250,) * 3,
}


def make(folder: Path, photos: int = 6) -> Path:
    """Write `photos` pictures of two shapes each, with three absent names a photo."""
    source = folder / "source"
    source.mkdir(parents=True)
    write_folder(folder / "data", [_photo(source, number) for number in range(photos)], [*COLOURS, "cat", "dog"], {})
    return folder / "data"


def _photo(source: Path, number: int) -> LabelledPhoto:
    random = np.random.default_rng(number)
    height, width = (96, 128) if number % 2 else (128, 96)
    canvas = np.full((height, width, 3), 128, np.uint8)
    canvas += random.integers(0, 20, canvas.shape, dtype=np.uint8)
    things = []
    for place, name in enumerate(random.choice(list(COLOURS), 2, replace=False)):
        shape = np.zeros((height, width), np.uint8)
        x, y = (width // 4, height // 4) if place == 0 else (3 * width // 4, 3 * height // 4)
        if "disc" in name:
            cv2.circle(shape, (x, y), 18, 1, -1)
        else:
            cv2.rectangle(shape, (x - 16, y - 16), (x + 16, y + 16), 1, -1)
        canvas[shape > 0] = COLOURS[str(name)]
        things.append(Thing(str(name), shape > 0, noun(str(name))))
    path = source / f"{number}.png"
    Image.fromarray(canvas).save(path)
    return LabelledPhoto(path, things, [thing.name for thing in things])
