"""Which split a photo belongs to: a hash of its identity decides, so that a photo can't move between splits."""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "val", "test"]

# Of 100 parts.
VAL, TEST = 10, 10


def split_of(identity: str) -> Split:
    """80 % train, 10 % val, 10 % test, by the SHA-256 of `identity`: a file name, or the digest of a picture."""
    part = int(hashlib.sha256(identity.encode()).hexdigest(), 16) % 100
    if part < TEST:
        return "test"
    return "val" if part < TEST + VAL else "train"
