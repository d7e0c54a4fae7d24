"""Images kept once each, under their SHA-256, for snapshots to link to. Knows nothing of annotations.

<root>/<xx>/<digest>            the file as it was uploaded, or that with its pixels turned upright
<root>/<xx>/<digest>.original   the digest of the first file with the same pixels
<root>/<xx>/<digest>.<h>x<w>    the digest of the upright file, for one with an orientation tag that was shown so large
<root>/<xx>/<digest>.phash      its perceptual hash, 16 hexadecimal digits; of a turned one, once it was asked for
<root>/pixels/<xx>/<digest>     the digest of the first file with the same pixels, by the SHA-256 of these
"""

from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.locks import exclusive
from ris_core.files import atomic_write, sha256
from ris_core.images import FORMATS, MAX_PIXELS, read_image
from ris_core.orientation import Size, is_tagged, upright

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}


@dataclass(frozen=True)
class StoredImage:
    """A readable image that no tag turns. width and height in pixels; suffix such as ".jpg".

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

    def add(self, data: bytes, shown: Size | None = None) -> StoredImage:
        """Keep an image's bytes, turned as they were shown (the size then, if it is known; see ris_core.orientation).

        Raises ImageError if they aren't an image, are damaged, or have too many pixels.
        """
        digest = sha256(data)
        path = self._path(digest)
        original = path.with_suffix(".original")
        if not original.exists():
            # A damaged image must fail here, where it costs one task, not later in the middle of training.
            pixels = read_image(data, self._max_pixels)
            atomic_write(path, data)
            if not is_tagged(data):
                # Its pixels are at hand; decoding them again is what takes time.
                _keep_hash(path, _perceptual_hash(pixels))
            atomic_write(original, self._first(pixels, digest).encode())
        upright = self._upright(data, path, shown)
        return _describe(upright, upright.name, original.read_text())

    def perceptual_hash(self, digest: str) -> int:
        """`perceptual_hash` of a kept image, computed once. Raises ImageError if none has that digest."""
        path = self._path(digest)
        try:
            return int(_hash_file(path).read_text(), 16)
        except FileNotFoundError:
            value = perceptual_hash(path, self._max_pixels)
        _keep_hash(path, value)
        return value

    def _upright(self, data: bytes, path: Path, shown: Size | None) -> Path:
        """The file whose pixels lie as they were shown: the image's own, if no tag turns it."""
        if not is_tagged(data):
            return path
        note = path.with_suffix(f".{shown[0]}x{shown[1]}" if shown else ".shown")
        if not note.exists():
            turned = upright(data, shown)
            atomic_write(self._path(sha256(turned)), turned)
            atomic_write(note, sha256(turned).encode())
        return self._path(note.read_text())

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def _first(self, pixels: NDArray[np.uint8], digest: str) -> str:
        """The digest of the first image with these pixels, which is this one if there was none."""
        name = sha256(str(pixels.shape).encode() + pixels.tobytes())
        first = self._root / "pixels" / name[:2] / name
        with exclusive(self._root / "pixels.lock"):
            if not first.exists():
                atomic_write(first, digest.encode())
        return first.read_text()


def perceptual_hash(path: Path, max_pixels: int = MAX_PIXELS) -> int:
    """64 bits of which few change where a picture is saved anew, resized or brightened, see `near_duplicates`.

    Raises ImageError if the picture can't be read.
    """
    return _perceptual_hash(read_image(path, max_pixels))


def _perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    return int(str(imagehash.phash(Image.fromarray(pixels))), 16)


def _hash_file(path: Path) -> Path:
    return path.with_suffix(".phash")


def _keep_hash(path: Path, value: int) -> None:
    atomic_write(_hash_file(path), f"{value:016x}".encode())


def _describe(path: Path, digest: str, original: str) -> StoredImage:
    with Image.open(path, formats=FORMATS) as image:
        name = image.format or ""
        return StoredImage(digest, path, *image.size, _SUFFIXES.get(name, f".{name.lower()}"), original)
