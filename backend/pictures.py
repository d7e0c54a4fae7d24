"""Pictures kept once each, under their SHA-256, for snapshots to link to. Knows nothing of annotations."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from ris_core.files import atomic_write, sha256
from ris_core.images import FORMATS, MAX_PIXELS, read_image

# EXIF orientations that lay a picture on its side: width and height change places.
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """A readable picture. width and height in pixels, after its EXIF orientation; suffix such as ".jpg"."""

    digest: str
    path: Path
    width: int
    height: int
    suffix: str


class PictureStore:
    """A folder of pictures named by content. What is in it is whole, can be decoded, and never changes."""

    def __init__(self, root: Path, max_pixels: int = MAX_PIXELS) -> None:
        self._root = root
        self._max_pixels = max_pixels

    def add(self, data: bytes) -> Picture:
        """Keep a picture's bytes.

        Raises:
            ImageError: they aren't a picture, are damaged, or have too many pixels.
        """
        digest = sha256(data)
        path = self._root / digest[:2] / digest
        if not path.exists():
            # A damaged picture must fail here, where it costs one task, not later in the middle of training.
            read_image(data, self._max_pixels)
            atomic_write(path, data)
        return _describe(path, digest)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _describe(path: Path, digest: str) -> Picture:
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
            width, height = height, width
        return Picture(digest, path, width, height, _suffix(image.format or ""))


def _suffix(name: str) -> str:
    return {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(name, f".{name.lower()}")
