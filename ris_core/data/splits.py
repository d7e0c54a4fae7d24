"""Which split a photo belongs to: a hash of its identity decides, so that a photo can't move between splits.

Published datasets bring their own splits; several of them together need `without_leaks`.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Literal, TypeAlias

from ris_core.data.folder import Sample

Split: TypeAlias = Literal["train", "val", "test"]

# Of 100 parts.
VAL, TEST = 10, 10

# COCO's file names of 2014 and of 2017.
_COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)2014_)?(\d{12})\.jpg")


def split_of(identity: str) -> Split:
    """80 % train, 10 % val, 10 % test, by the SHA-256 of `identity`: a file name, or the digest of a picture."""
    part = int(hashlib.sha256(identity.encode()).hexdigest(), 16) % 100
    if part < TEST:
        return "test"
    return "val" if part < TEST + VAL else "train"


def fold_of(identity: str, folds: int = 5) -> int:
    """0 to `folds` - 1, by the SHA-256 of `identity` with a word before it, so that no split lies in a single fold."""
    return int(hashlib.sha256(f"fold {identity}".encode()).hexdigest(), 16) % folds


def is_blind(identity: str, share: float) -> bool:
    """Whether a picture is among that share of the held-out ones of which people are shown no prediction.

    By the SHA-256 of `identity` with a word before it, so that they are of both held-out splits, and stay the same.
    """
    part = int(hashlib.sha256(f"blind {identity}".encode()).hexdigest(), 16) % 1000
    return split_of(identity) != "train" and part < 1000 * share


def without_leaks(training: Iterable[Sample], held_out: Iterable[Sample]) -> list[Sample]:
    """`training` without the photos that `held_out` shows, for training on several datasets together.

    RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO split the same photos of COCO, each in its own way, and PhraseCut shares
    many. COCO's photos are known by their number, however the file is named, all others by their file name: two that
    share a name by chance cost a photo too many, never one too few.
    """
    seen = {photo_identity(sample) for sample in held_out}
    return [sample for sample in training if photo_identity(sample) not in seen]


def photo_identity(sample: Sample) -> str:
    """The same for one photo in whatever dataset: "coco/581857", or the file's name where it isn't COCO's."""
    if sample.coco_id is not None:
        return f"coco/{sample.coco_id}"
    coco_name = _COCO_NAME.fullmatch(sample.image.name)
    return f"coco/{int(coco_name[1])}" if coco_name else sample.image.name
