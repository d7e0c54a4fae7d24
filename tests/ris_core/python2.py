"""Pickles byte for byte as Python 2's cPickle writes them at protocol 2, which Python 3 no longer can.

bytes stand for Python 2's `str`, str for its `unicode`, and `Long` for its `long`.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any


class Long(int):
    """A number that Python 2 wrote as 5L."""


def dumps(value: Any) -> bytes:
    """Python 2: cPickle.dumps(value, 2), where every object is used more than once and so gets a memo."""
    return b"\x80\x02" + _Pickler().encode(value) + b"."


class _Pickler:
    def __init__(self) -> None:
        self.memo: dict[bytes | str, int] = {}
        self.count = 0

    def encode(self, value: Any) -> bytes:
        if isinstance(value, bytes | str):
            return self.text(value)
        if isinstance(value, list):
            return b"]" + self.put() + self.batch(value, b"a", b"e")
        if isinstance(value, dict):
            return b"}" + self.put() + self.batch([part for pair in value.items() for part in pair], b"s", b"u", 2)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if value is None:
            return b"N"
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        return number(value)

    def put(self) -> bytes:
        self.count += 1
        return b"q" + bytes([self.count]) if self.count < 256 else b"r" + struct.pack("<I", self.count)

    def get(self, place: int) -> bytes:
        return b"h" + bytes([place]) if place < 256 else b"j" + struct.pack("<I", place)

    def text(self, value: bytes | str) -> bytes:
        if value in self.memo:
            return self.get(self.memo[value])
        if isinstance(value, str):
            encoded = value.encode()
            code = b"X" + struct.pack("<I", len(encoded)) + encoded
        elif len(value) < 256:
            code = b"U" + bytes([len(value)]) + value
        else:
            code = b"T" + struct.pack("<i", len(value)) + value
        code += self.put()
        self.memo[value] = self.count
        return code

    def batch(self, values: list[Any], one: bytes, many: bytes, per: int = 1) -> bytes:
        if not values:
            return b""
        encoded = b"".join(map(self.encode, values))
        return encoded + one if len(values) == per else b"(" + encoded + many


def number(value: int) -> bytes:
    if isinstance(value, Long):
        encoded = pickle.encode_long(value)
        return b"\x8a" + bytes([len(encoded)]) + encoded
    if 0 <= value < 1 << 8:
        return b"K" + bytes([value])
    if 0 <= value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    return b"J" + struct.pack("<i", value)
