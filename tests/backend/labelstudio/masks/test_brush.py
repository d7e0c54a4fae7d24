"""The brush codec against label-studio-sdk, Label Studio's worked example, a recorded mask and a slow reader."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
import sdk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from backend.errors import BrushError
from backend.labelstudio.masks import brush

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))
headers = st.tuples(st.integers(1, 32), st.tuples(*[st.integers(1, 16)] * 4))


@pytest.fixture(scope="module")
def label_studio_sdk() -> Iterator[sdk.Sdk]:
    with sdk.running() as process:
        yield process


class SlowBits:
    """Bits of a list of bytes, read one by one: the obvious way, as the reference."""

    def __init__(self, data: list[int]) -> None:
        self.bits: Iterator[str] = iter("".join(f"{byte:08b}" for byte in data))

    def take(self, count: int) -> int:
        return int("".join(next(self.bits) for _ in range(count)), 2)


def slow_decode(data: list[int]) -> list[int]:
    bits = SlowBits(data)
    values, word = bits.take(32), bits.take(5) + 1
    widths = [bits.take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < values:
        is_run, width = bits.take(1), widths[bits.take(2)]
        length = bits.take(width) + 1
        out += [bits.take(word)] * length if is_run else [bits.take(word) for _ in range(length)]
    return out


def pack(bits: str) -> list[int]:
    padded = bits + "0" * (-len(bits) % 8)
    return [int(padded[i : i + 8], 2) for i in range(0, len(padded), 8)]


def header(values: int, word: int = 8, widths: tuple[int, ...] = (3, 4, 8, 16)) -> str:
    return f"{values:032b}{word - 1:05b}" + "".join(f"{width - 1:04b}" for width in widths)


@st.composite
def foreign_streams(draw: st.DrawFn, widest: int = 32) -> tuple[list[int], list[int], int, int]:
    """(stream, values, height, width) as another encoder may write it: any header, runs and literals."""
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    word, widths = draw(headers)
    word = min(word, widest)
    bits, values, total = header(4 * height * width, word, widths), [], 4 * height * width
    while len(values) < total:
        choice = draw(st.integers(0, 3))
        length = draw(st.integers(1, min(total - len(values), 1 << widths[choice])))
        run = draw(st.booleans())
        count = 1 if run else length
        words = draw(st.lists(st.integers(0, (1 << word) - 1), min_size=count, max_size=count))
        bits += f"{int(run)}{choice:02b}{length - 1:0{widths[choice]}b}"
        bits += "".join(f"{value:0{word}b}" for value in words)
        values += words * length if run else words
    return pack(bits), values, height, width


def test_worked_example_of_the_format() -> None:
    mask = np.array([[0, 1, 0], [0, 0, 0]], dtype=np.bool_)
    assert brush.encode(mask) == [0, 0, 0, 24, 57, 27, 252, 96, 17, 255, 223, 0]
    # Label Studio's own tools append a byte when the bits fill the last one exactly.
    assert (brush.decode([0, 0, 0, 24, 57, 27, 252, 96, 17, 255, 223, 0, 0], 2, 3) == mask).all()


def test_mask_recorded_from_label_studio() -> None:
    recorded = bytes.fromhex(
        "00003000391bff0a2700cefffa1c033bffe8700cefffa1c033bffe8700cefffa1c033bffe8700cefffa1c033bffe8700"
        "cefffa1c033bffe8700cefffa1c033bffe8700cefffa1c033bffe8700cefffa1c033bffe8700cefffa1c033bffe8700c"
        "efffa1c033bfff125f0000"
    )
    mask = np.zeros((48, 64), dtype=np.bool_)
    mask[10:30, 10:40] = True
    assert (brush.decode(list(recorded), 48, 64) == mask).all()
    # Its last byte is the spare one that Label Studio's Python tools append.
    assert brush.encode(mask) == list(recorded[:-1])


@given(masks)
@example(np.zeros((1, 1), dtype=np.bool_))
@example(np.ones((1, 1), dtype=np.bool_))
@example(np.ones((128, 129), dtype=np.bool_))
def test_round_trip_and_reference_agree(mask: brush.Mask) -> None:
    data = brush.encode(mask)
    assert json.loads(json.dumps(data)) == data
    assert slow_decode(data) == np.repeat(mask.ravel() * 255, 4).tolist()
    assert (brush.decode(data, *mask.shape) == mask).all()


@pytest.mark.parametrize("values", [65532, 65536, 65540, 131072, 131076])
def test_runs_split_exactly_where_a_record_ends(values: int) -> None:
    pixels = values // 4
    mask = np.zeros((1, pixels + 1), dtype=np.bool_)
    mask[0, :pixels] = True
    data = brush.encode(mask)
    assert slow_decode(data) == [255] * values + [0] * 4
    assert (brush.decode(data, 1, pixels + 1) == mask).all()


@given(foreign_streams())
def test_decodes_what_other_encoders_write(stream: tuple[list[int], list[int], int, int]) -> None:
    data, values, height, width = stream
    alpha = np.array(values)[3::4].reshape(height, width)
    assert (brush.decode(data, height, width) == (alpha > 0)).all()


@given(foreign_streams(), st.integers(1, 9))
def test_records_may_begin_in_one_block_of_bytes_and_end_in_another(
    stream: tuple[list[int], list[int], int, int], block: int
) -> None:
    data, values, height, width = stream
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brush, "_BLOCK", block)
        decoded = brush.decode(data, height, width)
    assert (decoded == (np.array(values)[3::4].reshape(height, width) > 0)).all()


@settings(deadline=None)
@given(masks)
def test_writes_what_the_sdk_writes_and_reads_what_it_reads(label_studio_sdk: sdk.Sdk, mask: brush.Mask) -> None:
    theirs = label_studio_sdk.ask("encode", mask.astype(int).tolist())
    # It appends a byte where the bits fill the last one exactly.
    assert theirs[: len(brush.encode(mask))] == brush.encode(mask)
    assert theirs[len(brush.encode(mask)) :] in ([], [0])
    assert (brush.decode(theirs, *mask.shape) == mask).all()
    assert label_studio_sdk.ask("decode", brush.encode(mask)) == np.repeat(mask.ravel() * 255, 4).tolist()


@settings(deadline=None)
@given(foreign_streams(widest=8))
def test_reads_any_header_as_the_sdk_does(
    label_studio_sdk: sdk.Sdk, stream: tuple[list[int], list[int], int, int]
) -> None:
    data, _, height, width = stream
    theirs = np.array(label_studio_sdk.ask("decode", data)).reshape(height, width, 4)
    assert (brush.decode(data, height, width) == (theirs[:, :, 3] > 0)).all()


@given(masks, st.data())
def test_truncation_is_always_refused(mask: brush.Mask, data: st.DataObject) -> None:
    encoded = brush.encode(mask)
    kept = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(BrushError):
        brush.decode(encoded[:kept], *mask.shape)


@settings(max_examples=300)
@given(st.integers(1, 20), st.integers(1, 20), st.binary(max_size=300))
def test_garbage_after_a_valid_size_never_breaks_out(height: int, width: int, tail: bytes) -> None:
    data = [*(4 * height * width).to_bytes(4, "big"), *tail]
    try:
        mask = brush.decode(data, height, width)
    except BrushError:
        return
    assert mask.shape == (height, width)
    assert mask.tolist() == (np.array(slow_decode(data))[3::4].reshape(height, width) > 0).tolist()


@given(masks, st.data())
def test_flipped_bits_give_a_mask_or_brush_error(mask: brush.Mask, data: st.DataObject) -> None:
    encoded = brush.encode(mask)
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(BrushError):
        assert brush.decode(encoded, *mask.shape).shape == mask.shape


@pytest.mark.parametrize(
    "rle",
    [
        None,
        5,
        10**12,
        "0000",
        {},
        [1.5] * 20,
        [256] * 20,
        [-1] * 20,
        ["0"] * 20,
        [[0]] * 20,
        [],
        [0] * 6,
        [0] * 7,
    ],
)
def test_what_is_not_a_mask_is_refused(rle: object) -> None:
    with pytest.raises(BrushError):
        brush.decode(rle, 4, 4)  # type: ignore[arg-type]


def test_declared_length_is_refused_before_anything_is_allocated() -> None:
    bomb = [255, 255, 255, 255, *pack(header(0)[32:]), *[255] * 900]
    large = bomb * 1000
    start = time.perf_counter()
    with pytest.raises(BrushError, match="4294967295"):
        brush.decode(bomb, 480, 640)
    with pytest.raises(BrushError, match="4294967295"):
        brush.decode(large, 480, 640)
    with pytest.raises(BrushError, match="pixels is outside"):
        brush.decode(bomb, 32768, 32767)
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-4, -4), (3, 4)])
def test_another_size_is_refused(height: int, width: int) -> None:
    with pytest.raises(BrushError):
        brush.decode(brush.encode(np.ones((4, 4), dtype=np.bool_)), height, width)


@pytest.mark.parametrize(
    "mask", [np.ones((2, 2)), np.ones((2, 2), np.uint8), np.ones(4, np.bool_), np.ones((0, 4), np.bool_)]
)
def test_only_boolean_masks_are_encoded(mask: brush.Mask) -> None:
    with pytest.raises(BrushError):
        brush.encode(mask)


def test_a_noisy_mask_is_exact_and_quick() -> None:
    mask = np.random.default_rng(7).random((540, 960)) > 0.5
    start = time.perf_counter()
    data = brush.encode(mask)
    assert (brush.decode(data, 540, 960) == mask).all()
    # A quarter of a million runs, far worse than any drawing; walking bit by bit takes a minute.
    assert time.perf_counter() - start < 15
