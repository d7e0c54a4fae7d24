"""Masks as Label Studio's BitmaskLabels hold them: a PNG in a data URL. Knows nothing of regions or HTTP.

As the editor of Label Studio 1.23.2 writes and reads it (`BitmaskRegion.jsx`): black pixels on a transparent
background, at the size of the image; a pixel belongs to the mask where alpha is above 0, also on the soft edge of a
stroke. A picture without transparency covers everything, there as here.
"""

import base64
import binascii
import io
import struct
import zlib

import numpy as np
from PIL import Image

from backend.errors import RegionError
from ris_core.masks import Mask

PREFIX = "data:image/png;base64,"
_BOMB = Image.DecompressionBombError
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Signature, then the first chunk: length, "IHDR", width, height.
_HEADER_BYTES = 24
# Beyond this, what isn't pixels outweighs what is: 8 bytes a pixel is the most that PNG knows.
_SPARE_BYTES = 1 << 20


def encode(mask: Mask) -> str:
    """A mask (HxW bool, not empty) as the data URL of a PNG of one bit a pixel: black where True, else transparent."""
    png = io.BytesIO()
    # Grey of one bit: 0 is black, and 1 is declared transparent.
    Image.fromarray(~mask).save(png, "PNG", transparency=1)
    return PREFIX + base64.b64encode(png.getvalue()).decode("ascii")


def decode(url: object, height: int, width: int) -> Mask:
    """The mask (HxW bool) of a data URL, True where alpha is above 0. The size is checked before a pixel is read.

    Raises RegionError if it isn't a PNG in a data URL, is of another size, or is damaged.
    """
    png = _png(url, height, width)
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if not image.has_transparency_data:
                return np.ones((height, width), dtype=np.bool_)
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, _BOMB) as error:
        raise RegionError(f"Its PNG is damaged ({error}). Draw it again.") from None
    mask: Mask = alpha > 0
    return mask


def _png(url: object, height: int, width: int) -> bytes:
    if not isinstance(url, str) or not url.startswith(PREFIX):
        raise RegionError(f"Its imageDataURL doesn't start with {PREFIX}. Draw it again.")
    if len(url) > 4 * (8 * height * width + _SPARE_BYTES) // 3:
        raise RegionError(f"Its PNG is too large for an image of {width}x{height}. Draw it again.")
    try:
        png = base64.b64decode(url[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise RegionError("Its imageDataURL isn't base64. Draw it again.") from None
    if len(png) < _HEADER_BYTES or not png.startswith(_SIGNATURE):
        raise RegionError("Its imageDataURL holds no PNG. Draw it again.")
    size = struct.unpack(">II", png[16:_HEADER_BYTES])
    if size == (width, height):
        return png
    raise RegionError(f"Its PNG is of {size[0]}x{size[1]} pixels, but its image of {width}x{height}. Draw it again.")
