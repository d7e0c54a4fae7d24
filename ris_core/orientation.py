"""Which way up a picture is: as the browser shows it in which it was annotated. Knows no annotations.

A camera notes how it was held in EXIF or XMP instead of turning the pixels. Chromium 156 heeds EXIF in JPEG and PNG;
EXIF in WebP, and XMP anywhere, it doesn't (measured; other browsers may). Where it is known how large a picture was
shown, that decides; else what Chromium does.
"""

import io
import re
from typing import Any, Literal, TypeAlias

from PIL import ExifTags, Image

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""
_Order: TypeAlias = Literal["little", "big"]

# Of TIFF, which no browser shows, Pillow itself turns the pixels.
_HEEDED, _TAGGED = ("JPEG", "MPO", "PNG"), ("JPEG", "MPO", "PNG", "WEBP")
# EXIF orientation -> what turns the pixels upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_XMP = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)([2-8])""")
# 95 and 4:4:4: what turning a JPEG costs can't be seen. WebP and PNG lose nothing.
_SAVED: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
}


def orientation(image: Image.Image, shown: Size | None = None) -> int:
    """How an opened picture is turned to be as it is shown: an EXIF orientation, 1 for not at all.

    shown: the size that it was shown at, if that is known.
    """
    exif, xmp = _tags(image)
    usual = exif if image.format in _HEEDED else 1
    choices = (usual, 1, exif, xmp)
    return next((choice for choice in choices if shown == _size(image, choice)), usual)


def is_tagged(data: bytes) -> bool:
    """Whether a picture's file has a tag by which some reader would turn it."""
    with Image.open(io.BytesIO(data)) as image:
        return _tags(image) != (1, 1)


def turned(image: Image.Image, how: int) -> Image.Image:
    """The picture turned by an EXIF orientation."""
    return image.transpose(_TURNS[how]) if how in _TURNS else image


def upright(data: bytes, shown: Size | None = None) -> bytes:
    """A picture's file without a tag that turns it, its pixels as they are `shown`: all readers see the same.

    One without such a tag comes back as it is. Where the pixels lie right, JPEG and WebP only lose the tag, and no
    pixel changes; a JPEG whose pixels must be turned is encoded anew.
    """
    with Image.open(io.BytesIO(data)) as image:
        if _tags(image) == (1, 1):
            return data
        how = orientation(image, shown)
        untagged = _untagged(data, image) if how == 1 else None
        return untagged or _encoded(turned(image, how), image)


def _tags(image: Image.Image) -> tuple[int, int]:
    """What EXIF and XMP say, 1 where they say nothing that makes sense."""
    if image.format not in _TAGGED:
        return 1, 1
    exif, (place, order) = _exif(image), _entry(_exif(image))
    value = int.from_bytes(exif[place : place + 2], order) if place else 1
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    noted = _XMP.search(packet.encode() if isinstance(packet, str) else packet)
    return value if value in _TURNS else 1, int(noted[2]) if noted else 1


def _exif(image: Image.Image) -> bytes:
    return bytes(image.info.get("exif") or b"").removeprefix(b"Exif\0\0")


def _entry(exif: bytes) -> tuple[int, _Order]:
    """Where in EXIF the orientation stands, 0 for nowhere, and its byte order. Of what is damaged, slices are empty."""
    order: _Order = "little" if exif[:2] == b"II" else "big"
    first = int.from_bytes(exif[4:8], order)
    entries = range(first + 2, first + 2 + 12 * int.from_bytes(exif[first : first + 2], order), 12)
    tags = (entry for entry in entries if int.from_bytes(exif[entry : entry + 2], order) == ExifTags.Base.Orientation)
    return next(tags, -8) + 8, order


def _size(image: Image.Image, how: int) -> Size:
    return image.size if how in _SIDEWAYS else image.size[::-1]


def _untagged(data: bytes, image: Image.Image) -> bytes | None:
    """The file with each tag set to 1 in place; None where that can't be done."""
    # PNG has checksums.
    if image.format == "PNG":
        return None
    data = _XMP.sub(rb"\g<1>1", data)
    place, order = _entry(_exif(image))
    start = data.find(_exif(image))
    if place and start >= 0:
        data = data[: start + place] + (1).to_bytes(2, order) + data[start + place + 2 :]
    with Image.open(io.BytesIO(data)) as changed:
        return data if _tags(changed) == (1, 1) else None


def _encoded(image: Image.Image, source: Image.Image) -> bytes:
    name = "JPEG" if source.format == "MPO" else source.format or "PNG"
    image.info = {key: source.info[key] for key in ("transparency",) if key in source.info}
    buffer = io.BytesIO()
    image.save(buffer, name, icc_profile=source.info.get("icc_profile"), **_SAVED[name])
    return buffer.getvalue()
