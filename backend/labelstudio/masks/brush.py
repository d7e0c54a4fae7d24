"""Label Studio's brush masks: an exact codec for its run-length format. Knows nothing of regions or HTTP.

The format (`@thi.ng/rle-pack`, bits most significant first) holds the RGBA values of an image, row by row:

    uint32          number of values, 4 * height * width
    uint5           word size - 1
    4 x uint4       the four widths a run's length may have, each - 1
    then, until all the values are there:
        1 bit       1 = run, 0 = literal
        2 bits      which of the four widths
        that width  length - 1
        run:        one word, repeated `length` times
        literal:    `length` words

Label Studio's editor draws a pixel where alpha, every fourth value, is above 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.errors import BrushError
from backend.labelstudio.masks import Runs, paint
from ris_core.masks import Mask

MAX_PIXELS = 100_000_000
_HEADER_BITS = 53
_HEADER_BYTES = 7
_WORD = 8
_WIDTHS = np.array([3, 4, 8, 16])
_LONGEST = 1 << 16
_OPAQUE = 255
# The longest record of a single value that a header allows: 3 + 16 + 32 bits.
_RECORD = 51
# Bytes whose bits are looked at together; a mask seldom has more.
_BLOCK = 1 << 16

_Integers = npt.NDArray[np.int64]


class _Header(NamedTuple):
    values: int
    word: int
    widths: tuple[int, ...]


def encode(mask: Mask) -> list[int]:
    """Encode a mask (HxW bool) as Label Studio's list of bytes, 0..255: opaque where True, else transparent.

    Raises BrushError if the mask isn't a two-dimensional, non-empty boolean array of at most MAX_PIXELS.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise BrushError(f"A brush mask must be HxW and boolean, not {mask.dtype} of shape {mask.shape}.")
    _check_size(*mask.shape)
    on, lengths = _runs(mask.ravel())
    bits = np.concatenate([_header_bits(4 * mask.size), _record_bits(on, lengths)])
    encoded: list[int] = np.packbits(bits).tolist()
    return encoded


def decode(rle: Sequence[int], height: int, width: int) -> Mask:
    """Decode Label Studio's list of bytes into a mask (HxW bool), True where alpha is above 0.

    Bytes after the last value are ignored: Label Studio's own tools append one. Nothing is allocated before
    the size is checked. Raises BrushError if the list isn't bytes, isn't for an image of this size, or ends
    too soon.
    """
    return decode_runs(rle, height, width).mask()


def decode_runs(rle: Sequence[int], height: int, width: int) -> Runs:
    """The same as the runs of the mask, for whom pixels are a detour. Raises as `decode` does."""
    header = _read_header(rle, height, width)
    most = (_HEADER_BITS + _RECORD * header.values) // 8 + 1
    return _alpha(_bytes(rle[:most]), header, height, width)


def check(rle: Sequence[int], height: int, width: int) -> None:
    """Raise BrushError if it isn't a list of bytes that begins as a mask for an image of this size does."""
    _read_header(rle, height, width)
    _bytes(rle)


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise BrushError(f"A brush mask of {width}x{height} pixels is outside 1 to {MAX_PIXELS} pixels.")


def _runs(flat: Mask) -> tuple[Mask, _Integers]:
    """Runs of values, opaque ones on, in pieces of at most 65536, the most a record can hold."""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size) * 4
    pieces = -(-lengths // _LONGEST)
    split = np.full(int(pieces.sum()), _LONGEST)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST
    return np.repeat(flat[starts], pieces), split


def _header_bits(values: int) -> npt.NDArray[np.uint8]:
    header = values << 21 | (_WORD - 1) << 16 | 2 << 12 | 3 << 8 | 7 << 4 | 15
    return _to_bits(np.array([header << 64 - _HEADER_BITS], dtype=">u8"))[0, :_HEADER_BITS]


def _record_bits(on: Mask, lengths: _Integers) -> npt.NDArray[np.uint8]:
    choice = np.searchsorted(1 << _WIDTHS, lengths)
    width = _WIDTHS[choice]
    size = 3 + width + _WORD
    record = (4 | choice) << width + _WORD | lengths - 1 << _WORD | np.where(on, _OPAQUE, 0)
    bits = _to_bits((record << 32 - size).astype(">u4"))
    return bits[np.arange(32) < size[:, None]]


def _to_bits(words: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    """N big-endian words of B bytes -> N x 8B bits."""
    return np.unpackbits(words.view(np.uint8).reshape(len(words), -1), axis=1)


def _bytes(values: Sequence[int]) -> bytes:
    try:
        return bytes(values)
    except (TypeError, ValueError):
        raise BrushError("A brush mask must be a list of whole numbers from 0 to 255.") from None


def _read_header(rle: Sequence[int], height: int, width: int) -> _Header:
    _check_size(height, width)
    # A bare integer must not get through: bytes(n) would allocate n zeros.
    if not isinstance(rle, Sequence) or isinstance(rle, str):
        raise BrushError(f"A brush mask must be a list of bytes, not {type(rle).__name__}.")
    data = _bytes(rle[:_HEADER_BYTES])
    if len(data) < _HEADER_BYTES:
        raise BrushError(f"The brush mask has {len(data)} bytes, too few for its header.")
    bits = int.from_bytes(data, "big") >> 8 * _HEADER_BYTES - _HEADER_BITS
    header = _Header(bits >> 21, (bits >> 16 & 31) + 1, tuple((bits >> shift & 15) + 1 for shift in (12, 8, 4, 0)))
    if header.values != 4 * height * width:
        raise BrushError(
            f"The brush mask holds {header.values} values, but an image of {width}x{height} has "
            f"{4 * height * width}. Save the annotation again in Label Studio."
        )
    return header


def _alpha(data: bytes, header: _Header, height: int, width: int) -> Runs:
    starts = _record_starts(data, header)
    padded = np.frombuffer(data + bytes(8), np.uint8)
    # Each record is read from 64 bits that begin with it.
    window = _window(padded, starts[:-1])
    field = np.array(header.widths)[_take(window, 1, 2)]
    lengths = _take(window, 3, field) + 1
    ends = np.cumsum(lengths)
    last = int(np.searchsorted(ends, header.values))
    if last == len(ends) or ends[last] != header.values or starts[last + 1] > 8 * len(data):
        whole = min(last, int(np.count_nonzero(starts[1:] <= 8 * len(data))))
        done = int(ends[whole - 1]) if whole else 0
        raise BrushError(f"The brush mask is damaged: {done} of its {header.values} values can be read.")
    used = slice(last + 1)
    is_run = _take(window[used], 0, 1) == 1
    begins, ends, words = (ends - lengths)[used], ends[used], (starts[:-1] + 3 + field)[used]
    on = is_run & (_take(window[used], 3 + field[used], header.word) > 0)
    # Alpha is the last value of each pixel, so a run sets the pixels that end in it.
    starts, stops = begins[on] // 4, ends[on] // 4
    literal = ~is_run
    if not literal.any():
        drawn = starts < stops
        return Runs(starts[drawn], stops[drawn], height, width)
    mask = paint(starts, stops, height, width)
    _paint_literals(mask.reshape(-1), padded, begins[literal], ends[literal], words[literal], header.word)
    return Runs.of(mask)


def _record_starts(data: bytes, header: _Header) -> _Integers:
    """The bits where records start, and where the last one ends, which may be past the data.

    Where a record starts depends on all before it, so this is a walk. What a step needs to know of a run, three bits,
    is looked up beforehand, for all positions at once.
    """
    run = [3 + width + header.word for width in header.widths]
    # By the first three bits of a record: the bits that a run takes; for a literal, that depends on its length.
    table = bytes([0, 0, 0, 0, *run]).ljust(256, b"\0")
    padded = data + bytes(8)
    starts, position = [], _HEADER_BITS
    for first in range(0, len(data), _BLOCK):
        bits = np.unpackbits(np.frombuffer(padded[first : first + _BLOCK + 1], np.uint8))
        steps = (bits[:-2] << 2 | bits[1:-1] << 1 | bits[2:]).tobytes().translate(table)
        end = 8 * min(first + _BLOCK, len(data))
        while position < end:
            starts.append(position)
            position += steps[position - 8 * first] or _literal_bits(padded, position, header)
    return np.array([*starts, position], dtype=np.int64)


def _literal_bits(padded: bytes, position: int, header: _Header) -> int:
    window = int.from_bytes(padded[position >> 3 : (position >> 3) + 8], "big") << (position & 7)
    width = header.widths[window >> 61 & 3]
    length = (window >> 61 - width & (1 << width) - 1) + 1
    return 3 + width + length * header.word


def _paint_literals(
    flat: Mask, padded: npt.NDArray[np.uint8], begins: _Integers, ends: _Integers, words: _Integers, word: int
) -> None:
    """Set the pixels whose alpha is in a literal: every fourth of its words."""
    pixels = ends // 4 - begins // 4
    literal = np.repeat(np.arange(len(begins)), pixels)
    pixel = np.arange(len(literal)) - np.repeat(np.cumsum(pixels) - pixels - begins // 4, pixels)
    bit = words[literal] + (4 * pixel + 3 - begins[literal]) * word
    flat[pixel] = _take(_window(padded, bit), 0, word) > 0


def _window(padded: npt.NDArray[np.uint8], position: _Integers) -> npt.NDArray[np.uint64]:
    """The bits from each position, 57 or more in the upper end of 64."""
    eight = np.lib.stride_tricks.sliding_window_view(padded, 8)[position >> 3]
    window: npt.NDArray[np.uint64] = eight.view(">u8")[:, 0].astype(np.uint64) << (position & 7).astype(np.uint64)
    return window


def _take(window: npt.NDArray[np.uint64], skip: int | _Integers, count: int | _Integers) -> _Integers:
    """Of each window, the number that `count` bits hold after the first `skip`."""
    left, right = np.asarray(skip, dtype=np.uint64), np.asarray(64 - np.asarray(count), dtype=np.uint64)
    return (window << left >> right).astype(np.int64)
