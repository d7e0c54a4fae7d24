"""Bitmasks as the editor's canvas writes them, as ours are written, and what else may stand in their place."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from backend.errors import RegionError
from backend.labelstudio.masks import bitmask
from ris_core.masks import Mask

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


def url(image: Image.Image, kind: str = "PNG", **options: object) -> str:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return bitmask.PREFIX + base64.b64encode(data.getvalue()).decode()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@settings(deadline=None)
@given(masks)
def test_round_trip(mask: Mask) -> None:
    assert (bitmask.decode(bitmask.encode(mask), *mask.shape) == mask).all()


def test_black_pixels_on_a_transparent_background() -> None:
    mask = np.eye(6, 9, dtype=np.bool_)
    png = base64.b64decode(bitmask.encode(mask).removeprefix("data:image/png;base64,"))
    assert png[16:26] == struct.pack(">IIBB", 9, 6, 1, 0)
    # Read by another library than the one that wrote it.
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        assert (pixels[..., 3] == mask * 255).all()
        assert (pixels[mask][:, :3] == 0).all()
    else:
        assert ((pixels == 0) == mask).all()
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    assert (shown[..., 3] == mask * 255).all()
    assert (shown[mask][:, :3] == 0).all()


def test_a_canvas_with_soft_edges_counts_wherever_alpha_is_above_0() -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[1, :, 3] = [0, 1, 128, 255]
    assert bitmask.decode(url(Image.fromarray(pixels)), 3, 4).tolist() == [
        [False] * 4,
        [False, True, True, True],
        [False] * 4,
    ]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_picture_without_transparency_covers_all_as_in_the_editor(mode: str) -> None:
    assert bitmask.decode(url(Image.new(mode, (4, 3))), 3, 4).all()


def test_a_palette_with_a_transparent_colour() -> None:
    image = Image.fromarray(np.eye(3, dtype=np.uint8), "L").convert("P")
    assert bitmask.decode(url(image, transparency=0), 3, 3).tolist() == np.eye(3, dtype=bool).tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "doesn't start with data:image/png"),
        (17, "doesn't start with"),
        ("", "doesn't start with"),
        ("http://example.com/mask.png", "doesn't start with"),
        ("data:image/svg+xml;base64,AAAA", "doesn't start with"),
        (bitmask.PREFIX, "holds no PNG"),
        (bitmask.PREFIX + "!", "isn't base64"),
        (bitmask.PREFIX + "AAAA", "holds no PNG"),
        (bitmask.PREFIX + "é", "isn't base64"),
        (url(Image.new("RGBA", (4, 3)), "BMP"), "holds no PNG"),
        (url(Image.new("RGBA", (3, 4))), "of 3x4 pixels, but its image of 4x3"),
        (url(Image.new("RGBA", (4, 3)))[:-44], "damaged|isn't base64"),
        (bitmask.PREFIX + "A" * 3_000_000, "too large"),
    ],
)
def test_what_is_no_bitmask_is_refused(value: object, message: str) -> None:
    with pytest.raises(RegionError, match=message):
        bitmask.decode(value, 3, 4)


def test_the_size_is_checked_before_a_pixel_is_read() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6), 9)) + chunk(b"IEND", b"")
    with pytest.raises(RegionError, match="60000x60000"):
        bitmask.decode(bitmask.PREFIX + base64.b64encode(bomb).decode(), 480, 640)


@settings(deadline=None)
@given(masks, st.data())
def test_flipped_bits_give_a_mask_or_an_error(mask: Mask, data: st.DataObject) -> None:
    png = bytearray(base64.b64decode(bitmask.encode(mask).removeprefix(bitmask.PREFIX)))
    png[data.draw(st.integers(0, len(png) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = bitmask.decode(bitmask.PREFIX + base64.b64encode(png).decode(), *mask.shape)
    except RegionError:
        return
    assert read.shape == mask.shape
