"""Images kept once each, under their SHA-256, for snapshots to link to. Knows nothing of annotations.

<root>/<xx>/<digest>            the file as it was uploaded
<root>/<xx>/<digest>.original   the digest of the first file with the same pixels
<root>/pixels/<xx>/<digest>     the same by the SHA-256 of the pixels
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from backend.locks import exclusive
from ris_core.files import atomic_write, sha256
from ris_core.images import FORMATS, MAX_PIXELS, read_image

# EXIF orientations that lay an image on its side: width and height change places.
_SIDEWAYS = (5, 6, 7, 8)
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}


@dataclass(frozen=True)
class StoredImage:
    """A readable image. width and height in pixels, after its EXIF orientation; suffix such as ".jpg".

    original: the digest of the first image here that had the same pixels, its own where it was that: what tells the
    photo, however often its file was saved anew without loss.
    """

    digest: str
    path: Path
    width: int
    height: int
    suffix: str
    original: str


class ImageStore:
    """A folder of images named by content. What is in it is whole, can be decoded, and never changes."""

    def __init__(self, root: Path, max_pixels: int = MAX_PIXELS) -> None:
        self._root = root
        self._max_pixels = max_pixels

    def add(self, data: bytes) -> StoredImage:
        """Keep an image's bytes. Raises ImageError if they aren't one, are damaged, or have too many pixels."""
        digest = sha256(data)
        path = self._root / digest[:2] / digest
        original = path.with_suffix(".original")
        if not original.exists():
            # A damaged image must fail here, where it costs one task, not later in the middle of training.
            pixels = read_image(data, self._max_pixels)
            atomic_write(path, data)
            atomic_write(original, self._first(pixels, digest).encode())
        return _describe(path, digest, original.read_text())

    def _first(self, pixels: NDArray[np.uint8], digest: str) -> str:
        """The digest of the first image with these pixels, which is this one if there was none."""
        name = sha256(str(pixels.shape).encode() + pixels.tobytes())
        first = self._root / "pixels" / name[:2] / name
        with exclusive(self._root / "pixels.lock"):
            if not first.exists():
                atomic_write(first, digest.encode())
        return first.read_text()


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _describe(path: Path, digest: str, original: str) -> StoredImage:
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
            width, height = height, width
        name = image.format or ""
        return StoredImage(digest, path, width, height, _SUFFIXES.get(name, f".{name.lower()}"), original)
