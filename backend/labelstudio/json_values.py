"""JSON as it comes from outside, read so that no later step stumbles over a single value in it.

What no JSON should hold, and Python's reader lets through, becomes what JSON can hold: a number that isn't finite, or
has more digits than any id or coordinate, is null; half of a surrogate pair, which no file and no header can carry, is
the replacement character. So it costs what it belongs to, such as one task of many, and nothing else. Knows no HTTP.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

MOST = 1e9
"""The largest number that means something about a picture: pixels, percent, degrees."""

_MOST_DIGITS = 40
# Of a 64-bit key.
_IDS = 1 << 63
# Where none of these is there, no surrogate is alone.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(content: bytes) -> object:
    """The value. Raises ValueError if it isn't JSON in UTF-8, RecursionError if it is nested too deeply."""
    value = json.loads(content.decode(), parse_constant=_nothing, parse_int=_integer, parse_float=_real)
    return _mended(value) if _SURROGATE.search(content) else value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that can mean something about a picture."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST <= value <= MOST


def is_id(value: object) -> TypeGuard[int]:
    """Whether it can be the number of something in Label Studio's database."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _IDS


def objects_in(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; none, where it is no list."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _nothing(_constant: str) -> None:
    return None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _real(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _mended(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(entry) for entry in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(entry) for name, entry in value.items()}
    return value
