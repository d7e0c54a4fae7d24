"""Which way up: tags that browsers heed and those they don't, and files from which the tag is gone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ris_core.images import read_image
from ris_core.orientation import is_tagged, orientation, upright

# A photo as a phone writes it: 48x64 pixels (HxW in the file 64x48), EXIF orientation 6.
PHONE = Path(__file__).parent.parent / "fixtures" / "images" / "phone.jpg"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
LYING = (20, 40)
STANDING = (40, 20)


def picture(form: str, exif: int | None = None, xmp: bool = False, order: str = "<") -> bytes:
    """20x40, black, its upper left corner white, with the tags."""
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    if exif:
        tags = Image.Exif()
        tags.endian = order
        tags[0x0112] = exif
        options["exif"] = tags.tobytes()
    if xmp and form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = info
    elif xmp:
        options["xmp"] = XMP
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def how(data: bytes, shown: tuple[int, int] | None = None) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return orientation(image, shown)


# As Chromium 156 showed them: naturalWidth and naturalHeight of each.
@pytest.mark.parametrize(
    ("form", "exif", "xmp", "size"),
    [
        ("JPEG", 6, False, STANDING),
        ("JPEG", None, True, LYING),
        ("JPEG", 1, True, LYING),
        ("PNG", 6, False, STANDING),
        ("PNG", None, True, LYING),
        ("WEBP", 6, False, LYING),
        ("WEBP", None, True, LYING),
        ("WEBP", 1, True, LYING),
    ],
)
def test_pictures_are_turned_as_the_browser_shows_them(
    form: str, exif: int | None, xmp: bool, size: tuple[int, int]
) -> None:
    assert read_image(picture(form, exif, xmp)).shape[:2] == size


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("exif", "xmp"), [(6, False), (8, False), (None, True)])
@pytest.mark.parametrize("shown", [LYING, STANDING])
def test_the_size_that_it_was_shown_at_decides(form: str, exif: int | None, xmp: bool, shown: tuple[int, int]) -> None:
    data = picture(form, exif, xmp)
    assert how(data, shown) == (1 if shown == LYING else exif or 6)
    file = upright(data, shown)
    assert not is_tagged(file)
    with Image.open(io.BytesIO(file)) as image:
        assert (image.size[::-1], image.format) == (shown, form)
        assert image.getexif().get(0x0112, 1) == 1
    # The white corner: upper left as the file lies, upper right where it is turned clockwise, lower left else.
    corner = (0, 0) if shown == LYING else (0, -1) if (exif or 6) == 6 else (-1, 0)
    pixels = read_image(file)
    white = {(row, column) for row in (0, -1) for column in (0, -1) if pixels[row, column].min() > 200}
    assert white == {corner}


@pytest.mark.parametrize("shown", [None, (7, 7), STANDING])
def test_a_size_that_fits_neither_way_changes_nothing(shown: tuple[int, int] | None) -> None:
    assert how(picture("JPEG", 6), shown) == 6
    assert how(picture("JPEG", 3), shown) == 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_without_a_tag_stays_as_it_is(form: str) -> None:
    data = picture(form)
    assert upright(data) is data
    assert upright(data, (7, 7)) is data


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("exif", "xmp", "order"), [(6, False, "<"), (6, False, ">"), (None, True, "<"), (8, True, "<")]
)
def test_where_no_pixel_is_turned_only_the_tag_changes(form: str, exif: int | None, xmp: bool, order: str) -> None:
    data = picture(form, exif, xmp, order)
    file = upright(data, LYING)
    assert len(file) == len(data)
    assert sum(before != after for before, after in zip(data, file, strict=True)) == bool(exif) + xmp
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(file)) as after:
        assert (np.asarray(before) == np.asarray(after)).all()


def test_a_phones_photo_stands() -> None:
    file = upright(PHONE.read_bytes())
    with Image.open(io.BytesIO(file)) as image:
        assert image.size == (64, 48)
    difference = np.abs(read_image(file).astype(int) - read_image(PHONE))
    assert difference.mean() < 2


# Pillow itself warns, as it looks for the resolution there.
@pytest.mark.filterwarnings("ignore:.*[Cc]orrupt EXIF:UserWarning")
def test_a_damaged_tag_is_none() -> None:
    data = picture("JPEG", 6)
    start = data.index(b"Exif\0\0") + 6
    for broken in (b"XX", b"II*\0\xff\xff\xff\xff"):
        assert how(data[:start] + broken + data[start + len(broken) :]) == 1
