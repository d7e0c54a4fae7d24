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

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.errors import BrushError

Mask = npt.NDArray[np.bool_]

MAX_PIXELS = 100_000_000
_HEADER_BITS = 53
_WORD = 8
_WIDTHS = np.array([3, 4, 8, 16])
_LONGEST = 1 << 16
_OPAQUE = 255
# The longest run record that a header allows, 3 + 16 + 32 bits: 8 bytes hold it at any offset.
_WINDOW = 51


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
    on, lengths = _split(*_runs(mask.ravel()))
    bits = np.concatenate([_header_bits(4 * mask.size), _record_bits(on, lengths)])
    encoded: list[int] = np.packbits(bits).tolist()
    return encoded


def decode(rle: Sequence[int], height: int, width: int) -> Mask:
    """Decode Label Studio's list of bytes into a mask (HxW bool), True where alpha is above 0.

    Bytes after the last value are ignored: Label Studio's own tools append one. Nothing is allocated before
    the size is checked. Raises BrushError if the list isn't bytes, isn't for an image of this size, or ends
    too soon.
    """
    _check_size(height, width)
    data = _bytes(rle)
    header = _read_header(data)
    if header.values != 4 * height * width:
        raise BrushError(
            f"The brush mask holds {header.values} values, but an image of {width}x{height} has "
            f"{4 * height * width}. Save the annotation again in Label Studio."
        )
    return _read_alpha(data, header).reshape(height, width)


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise BrushError(f"A brush mask of {width}x{height} pixels is outside 1 to {MAX_PIXELS} pixels.")


def _runs(flat: Mask) -> tuple[Mask, npt.NDArray[np.int64]]:
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts], np.diff(starts, append=flat.size) * 4


def _split(on: Mask, lengths: npt.NDArray[np.int64]) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Cut runs into pieces of at most 65536 values, the most a record can hold."""
    pieces = -(-lengths // _LONGEST)
    split = np.full(int(pieces.sum()), _LONGEST)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST
    return np.repeat(on, pieces), split


def _header_bits(values: int) -> npt.NDArray[np.uint8]:
    header = values << 21 | (_WORD - 1) << 16 | 2 << 12 | 3 << 8 | 7 << 4 | 15
    return _to_bits(np.array([header << 64 - _HEADER_BITS], dtype=">u8"))[0, :_HEADER_BITS]


def _record_bits(on: Mask, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    choice = np.searchsorted(1 << _WIDTHS, lengths)
    width = _WIDTHS[choice]
    size = 3 + width + _WORD
    record = (4 | choice) << width + _WORD | lengths - 1 << _WORD | np.where(on, _OPAQUE, 0)
    bits = _to_bits((record << 32 - size).astype(">u4"))
    return bits[np.arange(32) < size[:, None]]


def _to_bits(words: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    """N big-endian words of B bytes -> N x 8B bits."""
    return np.unpackbits(words.view(np.uint8).reshape(len(words), -1), axis=1)


def _bytes(rle: Sequence[int]) -> bytes:
    # A bare integer must not get through: bytes(n) would allocate n zeros.
    if not isinstance(rle, Sequence) or isinstance(rle, str):
        raise BrushError(f"A brush mask must be a list of bytes, not {type(rle).__name__}.")
    try:
        return bytes(rle)
    except (TypeError, ValueError):
        raise BrushError("A brush mask must be a list of whole numbers from 0 to 255.") from None


def _read_header(data: bytes) -> _Header:
    if len(data) * 8 < _HEADER_BITS:
        raise BrushError(f"The brush mask has {len(data)} bytes, too few for its header.")
    header = int.from_bytes(data[:7], "big") >> 3
    widths = tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))
    return _Header(header >> 21, (header >> 16 & 31) + 1, widths)


def _read_alpha(data: bytes, header: _Header) -> Mask:
    """The flat alpha channel. A record takes at least 5 bits, so the input's length bounds the time."""
    alpha = np.zeros(header.values // 4, dtype=np.bool_)
    padded = data + bytes(8)
    position, done = _HEADER_BITS, 0
    while done < header.values:
        first = position >> 3
        window = int.from_bytes(padded[first : first + 8], "big") >> 64 - _WINDOW - (position & 7)
        width = header.widths[window >> 48 & 3]
        length = (window >> 48 - width & (1 << width) - 1) + 1
        is_run = window >> _WINDOW - 1 & 1
        words = position + 3 + width
        position = words + header.word * (1 if is_run else length)
        if position > len(data) * 8 or done + length > header.values:
            raise BrushError(f"The brush mask is damaged: {done} of its {header.values} values can be read.")
        if not is_run:
            # The first alpha at or after value `done` is value 3 of its pixel.
            literal = _words_set(data, words, length, header.word)[(3 - done) % 4 :: 4]
            alpha[done // 4 : done // 4 + len(literal)] = literal
        elif window >> 48 - width - header.word & (1 << header.word) - 1:
            alpha[done // 4 : (done + length) // 4] = True
        done += length
    return alpha


def _words_set(data: bytes, start: int, count: int, word: int) -> Mask:
    """For each of `count` words from bit `start`: is it above 0?"""
    end = start + count * word
    first = start >> 3
    bits = np.unpackbits(np.frombuffer(data, np.uint8)[first : end + 7 >> 3])
    is_set: Mask = np.any(bits[start - first * 8 : end - first * 8].reshape(count, word), axis=1)
    return is_set
