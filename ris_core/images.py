"""A photo's bytes -> pixels, safely: size checked before decoding, formats allow-listed, orientation applied once.

And pixels -> a picture's file, which is whole or absent.
"""

import io
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ris_core.errors import ImageError
from ris_core.files import atomic_write
from ris_core.orientation import orientation, turned

Pixels: TypeAlias = NDArray[np.uint8]
"""HxWx3 RGB in [0, 255]."""

# Pillow reads MPO, what some cameras write, as JPEG; it has no reader of its own to name here.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 100_000_000
# JPEG's limit. What is longer is no picture, and of few pixels in many rows each row takes time of its own.
MAX_SIDE = 65_535
# What is written, by suffix. 4:4:4, or thin coloured lines would be smeared.
_WRITTEN: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 90, "subsampling": 0},
}

# Our own limit is checked on the header, before a pixel is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


def read_image(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> Pixels:
    """An encoded image, or the path of one -> HxWx3 uint8 RGB in [0, 255], of an animation the first frame.

    It is turned as browsers show it (`ris_core.orientation`); transparency is laid over white. Raises ImageError if it
    isn't an image, of a format that isn't read, of more than `max_pixels` or MAX_SIDE, or damaged.
    """
    name = str(source) if isinstance(source, Path) else "the image"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            _check_size(image, name, max_pixels)
            image.load()
            return np.asarray(_to_rgb(turned(image, orientation(image))))
    except FileNotFoundError:
        raise ImageError(f"{name} doesn't exist. Check the path.") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder. Name one picture.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} isn't a picture that can be read. Use one of {', '.join(FORMATS)}.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name} is damaged ({error}). Export it again from its source.") from None


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write HxW grey or HxWx3 RGB to a .png or .jpg, so that a reader sees the old picture or all of the new."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **_WRITTEN[path.suffix])
    atomic_write(path, buffer.getvalue())


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name} has {width} x {height} pixels, more than {MAX_SIDE:,} on a side. Cut or shrink it.")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels:,}. "
            "Shrink it, or raise RIS_MAX_IMAGE_PIXELS."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _stretch(image).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _stretch(image: Image.Image) -> Image.Image:
    # Pillow would clip deep grey images at 255; their own range is what a person would see.
    pixels = np.asarray(image, dtype=np.float64)
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) * (255.0 / (high - low or 1.0))
    return Image.fromarray(scaled.astype(np.uint8))
