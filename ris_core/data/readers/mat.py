"""One numeric array of a MATLAB file. Source: MathWorks, "MAT-File Format", version 5; what MATLAB's `save -v7` writes.

ReferIt's masks are the only MATLAB files here. Reading them takes these few lines and runs nothing; SciPy would be a
dependency of 90 MB for the same bytes.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ris_core.errors import DatasetError

_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
# The flags word holds the array's class in its lowest byte; 6 to 15 are numbers, below are cells, structs and texts.
_NUMBERS, _COMPLEX = range(6, 16), 0x800
# A mask of ReferIt takes 1.4 MB as doubles. More than this is no mask.
_LARGEST = 1 << 26


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """The array `name` of a MAT-file, in the shape and with the values that MATLAB shows.

    Raises DatasetError if there is no such file or array, it isn't of real numbers, or the file is of another version.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing. Unpack the dataset's masks again.") from None
    try:
        order = _ORDERS[data[_HEADER - 2 : _HEADER]]
        for content in _matrices(data[_HEADER:], order):
            flags, dimensions, label, *values = _elements(content, order)
            if label[1] == name.encode():
                return _array(flags, dimensions, values[0], order)
    except (KeyError, ValueError, IndexError, struct.error, zlib.error) as error:
        raise DatasetError(f"{path} isn't a MAT-file of version 5: {error!r}. Save it with `save -v7`.") from None
    raise DatasetError(f"{path} has no array {name!r}. It isn't one of the dataset's masks.")


def _matrices(data: bytes, order: str) -> Iterator[bytes]:
    for kind, content in _elements(data, order):
        if kind == _MATRIX:
            yield content
        elif kind == _COMPRESSED:
            yield from (matrix for inner, matrix in _elements(_inflate(content), order) if inner == _MATRIX)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each data element; short contents stand in the tag itself."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, end = at + 8, at + 8 + size
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 4 + size
        if end > len(data):
            raise ValueError("cut short")
        yield kind, data[start:end]
        # Elements begin at multiples of 8 bytes, compressed ones wherever the one before ended.
        at = end if kind == _COMPRESSED else -(-end // 8) * 8


def _inflate(content: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(content, _LARGEST)
    if not stream.eof:
        raise ValueError("cut short, or larger than a mask")
    return data


def _array(
    flags: tuple[int, bytes], dimensions: tuple[int, bytes], values: tuple[int, bytes], order: str
) -> NDArray[Any]:
    (word,) = struct.unpack_from(f"{order}I", flags[1])
    if word & 0xFF not in _NUMBERS or word & _COMPLEX:
        raise ValueError("not an array of real numbers")
    # Whole numbers may be stored in a smaller type than their class; comparing them needs no cast.
    stored = np.frombuffer(values[1], order + _TYPES[values[0]])
    return stored.reshape(np.frombuffer(dimensions[1], f"{order}i4"), order="F")
