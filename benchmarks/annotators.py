"""Simulated annotators: real photos whose masks, drawn by people, are the corrections. Used by loop.py, worlds.py and
rejections.py.

Some labels are reserved: the base model is trained without any expression about them, so they are what a project
brings that is new. Of the fifteen most frequent names of a dataset's training photos every third is reserved, whatever
it is. What is asked are pairs of a photo and a reserved name; the answer is the name's mask, or that it isn't there.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ris_core.data import Sample, by_photo, fold_of
from ris_core.data.derive.words import may_be, noun, synonyms
from ris_core.masks import encode_rle

FREQUENT, EVERY = 15, 3
# A mask that is changed by less than this is taken for accepted: it agrees with the person's by an IoU of 0.8.
ACCEPTED = 0.8


@dataclass(frozen=True)
class Album:
    """Photos of one dataset, and what is in them."""

    samples: tuple[Sample, ...]

    @cached_property
    def reserved(self) -> tuple[str, ...]:
        """The reserved names, the most frequent first."""
        taught = [name_of(sample) for sample in self.samples if sample.kind == "name" and sample.split == "train"]
        return tuple(name for name, _ in Counter(taught).most_common(FREQUENT))[EVERY - 1 :: EVERY]

    def pairs(self, photos: Sequence[Sequence[Sample]], names: Sequence[str]) -> list[Sample]:
        """Each photo asked for each name, and the truth; left out where another label may truly be called so."""
        return [pair for photo in photos for name in names if (pair := _pair(photo, name)) is not None]

    def known_names(self) -> list[str]:
        """Names that the base is taught."""
        names = Counter(name_of(sample) for sample in self.samples if sample.kind == "name")
        return [name for name, _ in names.most_common(2 * FREQUENT) if name not in self.reserved]

    def photos(self, split: str) -> list[list[Sample]]:
        return [photo for photo in by_photo(self.samples) if photo[0].split == split]


def name_of(sample: Sample) -> str:
    return sample.sentence.removeprefix("the ")


def without(samples: Sequence[Sample], names: Sequence[str]) -> list[Sample]:
    """`samples` that neither speak of the reserved names nor mean the same as one that does."""
    words = {word for name in names for word in (*synonyms(name), noun(name).many, name.removesuffix("s"))}
    speaks = re.compile(rf"\b({'|'.join(sorted(map(re.escape, words)))})\b", re.IGNORECASE)
    return [sample for photo in by_photo(samples) for sample in _others(photo, speaks)]


def is_held_out(sample: Sample) -> bool:
    """Whether a correction goes to validation: one photo in five does."""
    return fold_of(sample.image.name) == 0


def spoil(corrections: Sequence[Sample], how: str, seed: int) -> list[Sample]:
    """Corrections as a bad hand gives them. shuffled: masks of other photos; empty: nothing is ever there; mislabelled:
    another name for each mask."""
    drawn = random.Random(seed)
    if how == "empty":
        return [replace(correction, segmentations=()) for correction in corrections]
    if how == "shuffled":
        masks = [correction for correction in corrections if correction.has_target]
        others = masks[1:] + masks[:1]
        given = {id(correction): _moved(other, correction) for correction, other in zip(masks, others, strict=True)}
        return [given.get(id(correction), correction) for correction in corrections]
    sentences = sorted({correction.sentence for correction in corrections})
    return [
        replace(
            correction, sentence=drawn.choice([sentence for sentence in sentences if sentence != correction.sentence])
        )
        for correction in corrections
    ]


def _others(photo: Sequence[Sample], speaks: re.Pattern[str]) -> Iterator[Sample]:
    spoken = {
        _key(segmentation)
        for sample in photo
        if speaks.search(sample.sentence)
        for segmentation in sample.segmentations
    }
    for sample in photo:
        if not speaks.search(sample.sentence) and spoken.isdisjoint(map(_key, sample.segmentations)):
            yield sample


def _pair(photo: Sequence[Sample], name: str) -> Sample | None:
    names = {name_of(sample) for sample in photo if sample.kind == "name"}
    labelled = next((sample for sample in photo if sample.kind == "name" and name_of(sample) == name), None)
    if labelled is None and names & may_be(name):
        return None
    return labelled or replace(photo[0], sentence=f"the {name}", segmentations=(), kind="absent")


def _moved(source: Sample, target: Sample) -> Sample:
    """The source's mask on the target's photo, cut or padded at the lower right."""
    mask, canvas = source.mask(), target.mask() & False
    height, width = min(mask.shape[0], canvas.shape[0]), min(mask.shape[1], canvas.shape[1])
    canvas[:height, :width] = mask[:height, :width]
    return replace(target, segmentations=(encode_rle(canvas),) if canvas.any() else ())


def _key(segmentation: Any) -> str:
    return str(segmentation["counts"]) if isinstance(segmentation, dict) else str(segmentation)
