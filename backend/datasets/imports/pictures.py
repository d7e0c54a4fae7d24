"""A picture's file as it is uploaded: checked, and so that people's browsers show what the masks were drawn on.

Knows no Label Studio but the names of files that it takes.
"""

import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from backend.datasets.imports.folders import FoundPicture
from ris_core.errors import ImageError
from ris_core.files import sha256
from ris_core.images import read_image
from ris_core.orientation import Size, is_tagged, upright

# By Pillow's name of the format, those that Label Studio 1.23.2 takes and browsers show; the first is written.
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
}
_LONGEST_NAME = 60


@dataclass(frozen=True)
class PreparedPicture:
    """A picture to upload. key: by which its task is known. size: (height, width) as it is shown.

    is_saved_anew: the content isn't the file's: it was turned, or is of a format that no browser shows.
    """

    key: str
    file_name: str
    content: bytes
    size: Size
    is_saved_anew: bool = False


def prepare_picture(
    picture: FoundPicture, max_bytes: int, max_pixels: int, present: Collection[str] = ()
) -> PreparedPicture:
    """Read a picture and check it; of one whose key is `present` only that is known then.

    Raises ImageError if it is damaged, too large, or not of its masks' size, and OSError if it can't be read.
    """
    size = picture.path.stat().st_size
    if size > max_bytes:
        raise ImageError(
            f"has {size:,} bytes, more than the limit of {max_bytes:,}. Shrink it, or set RIS_MAX_IMAGE_BYTES"
        )
    content = picture.path.read_bytes()
    key = sha256(f"{sha256(content)} {picture.name}".encode())
    if key in present:
        return PreparedPicture(key, "", b"", (0, 0))
    pixels = read_image(content, max_pixels)
    shown: Size = (pixels.shape[0], pixels.shape[1])
    original, kind = content, _format(content)
    if kind not in _SUFFIXES:
        content, kind = _as_png(content, max_pixels), "PNG"
    if picture.size not in (None, shown) and is_tagged(content):
        # The masks were drawn by a program that heeds other tags than browsers do.
        content = upright(content, picture.size)
        height, width = read_image(content, max_pixels).shape[:2]
        shown = height, width
    if picture.size not in (None, shown):
        height, width = picture.size or shown
        raise ImageError(f"has {shown[1]} x {shown[0]} pixels, but its masks were drawn on {width} x {height}")
    return PreparedPicture(key, _file_name(picture.name, kind), content, shown, content != original)


def _format(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        return image.format or ""


def _as_png(content: bytes, max_pixels: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(read_image(content, max_pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def _file_name(name: str, kind: str) -> str:
    path = PurePosixPath(re.sub(r"#\d+$", "", name))
    is_known = path.suffix.lower() in _SUFFIXES[kind]
    stem = re.sub(r"[^\w.-]+", "_", path.stem if is_known else path.name).strip("._")[:_LONGEST_NAME] or "picture"
    return stem + (path.suffix if is_known else _SUFFIXES[kind][0])
