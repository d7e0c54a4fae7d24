"""Photos as people have them: turned, grey, deep, transparent, animated, damaged, or a bomb."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ris_core.errors import ImageError
from ris_core.images import read_image, write_image


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def corner_marked() -> Image.Image:
    """40x30, black, red in the upper left corner."""
    image = Image.new("RGB", (40, 30))
    image.paste((255, 0, 0), (0, 0, 10, 10))
    return image


# Where the marked corner of the stored picture belongs when it is shown, by EXIF orientation: (row, column).
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(encoded(corner_marked(), exif=exif))
    assert pixels.shape == ((30, 40, 3) if orientation <= 4 else (40, 30, 3))
    marked = {(row, column) for row in (0, -1) for column in (0, -1) if pixels[row, column, 0] == 255}
    assert marked == {CORNERS[orientation]}


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    pixels = read_image(encoded(Image.new(mode, (5, 4)), form))
    assert pixels.shape == (4, 5, 3)
    assert pixels.dtype == np.uint8


def test_deep_grey_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    pixels = read_image(encoded(Image.fromarray(ramp)))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) > 200


def test_transparency_lies_over_white() -> None:
    assert (read_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == 255).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    pixels = read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert len(bomb) < 1000
    with pytest.raises(ImageError, match="60000 x 60000 pixels, more than the limit"):
        read_image(bomb)


def test_the_limit_is_the_one_given() -> None:
    data = encoded(Image.new("RGB", (100, 100)))
    assert read_image(data, max_pixels=10_000).shape == (100, 100, 3)
    with pytest.raises(ImageError, match="RIS_MAX_IMAGE_PIXELS"):
        read_image(data, max_pixels=9_999)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_cut_file_is_damaged(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(ImageError, match="damaged"):
        read_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7 not a picture", b"<svg/>"])
def test_what_is_no_picture_is_named_so(data: bytes) -> None:
    with pytest.raises(ImageError, match="isn't a picture"):
        read_image(data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png doesn't exist"):
        read_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_written_picture_replaces_the_old_one_whole(tmp_path: Path, suffix: str) -> None:
    path, pixels = tmp_path / "new" / f"drawn{suffix}", np.zeros((20, 30, 3), np.uint8)
    pixels[5:9] = (213, 94, 0)
    for each in (255 - pixels, pixels):
        write_image(path, each)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    near = np.abs(read_image(path).astype(int) - pixels)
    assert near.max() <= (40 if suffix == ".jpg" else 0)
    write_image(tmp_path / "grey.png", pixels[..., 0])
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "L"
        assert (np.asarray(image) == pixels[..., 0]).all()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "drawn.png"
    write_image(path, np.zeros((2, 2), np.uint8))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_image(path, np.zeros((2, 2, 7), np.uint8))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
