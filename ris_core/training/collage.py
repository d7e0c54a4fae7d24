"""Photos that a thing of another photo is laid over, and what is then true of them.

Ours, around `paste`. A thing goes only where nothing is spoken of in words that might mean it too, and only among
photos of one dataset, where a name means the same. Of a photo's expressions the names alone are kept: what is hidden
may have decided which dog is "the left dog".
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ris_core.data.derive.words import mentions
from ris_core.data.folder import LazyMask, Sample
from ris_core.images import Pixels
from ris_core.masks import Mask, encode_rle
from ris_core.training.paste import cut, paste

# Kinds of expressions that stay true of any part of a photo; "the left dog" may not, once another dog is out of view.
NAMED = ("name", "synonym", "absent")
# Things drawn before a photo is left as it is.
_TRIES = 20


class CollageScene(NamedTuple):
    """A photo's pixels, HxWx3 RGB, and what is true of them."""

    image: Pixels
    samples: list[Sample]


class Collage:
    """The things that can be laid over photos: single objects that a name means.

    Only photos whose expressions say of which kind they are take part: of others it isn't known which are names.
    """

    def __init__(self, photos: Iterable[Sequence[Sample]]) -> None:
        """`photos`: the samples of each."""
        self._photos = {photo[0].image: photo for photo in photos if any(sample.kind != "name" for sample in photo)}
        names = [sample for photo in self._photos.values() for sample in photo if sample.kind == "name"]
        # Of two shoes one is no "the shoes".
        self._things = [sample for sample in names if len(sample.segmentations) == 1]

    def make(self, host: Sequence[Sample], rng: random.Random) -> CollageScene | None:
        """A photo, given by its samples, with a thing drawn by chance over it; None where none can go.

        Raises ImageError or DatasetError if a photo or a mask can't be read.
        """
        if host[0].image not in self._photos:
            return None
        there = [sample for sample in host if sample.has_target]
        for thing in rng.sample(self._things, min(_TRIES, len(self._things))):
            if _is_elsewhere(thing, host[0]) and not _speak_of(there, [_name(thing)]):
                brought = self._brought(thing)
                if brought and not _speak_of(there, brought):
                    return self._lay(thing, brought, host, rng)
        return None

    def _brought(self, thing: Sample) -> list[str]:
        """The names of all that shows in a thing's pixels, its own too: a person's mask may hold a tie."""
        mask, around = thing.mask(), self._photos[thing.image]
        return [_name(other) for other in around if other.kind == "name" and (other.mask() & mask).any()]

    def _lay(
        self, thing: Sample, brought: Sequence[str], host: Sequence[Sample], rng: random.Random
    ) -> CollageScene | None:
        pasted = paste(host[0].photo(), cut(thing.photo(), thing.mask()), rng)
        if pasted is None:
            return None
        same = [sample for sample in self._photos[thing.image] if sample.segmentations == thing.segmentations]
        return CollageScene(pasted.image, [*_still_true(host, brought, pasted.mask), *_new(host[0], same, pasted.mask)])


def _still_true(host: Sequence[Sample], brought: Sequence[str], hidden: Mask) -> Iterator[Sample]:
    for sample in host:
        if sample.kind in NAMED and sample.has_target:
            yield replace(sample, segmentations=(_VisibleMask(sample, hidden),))
        elif sample.kind in NAMED and not _speak_of([sample], brought):
            yield sample


def _new(host: Sample, same: Sequence[Sample], mask: Mask) -> Iterator[Sample]:
    """What is said of a thing where it was cut out, said of the host."""
    where = (encode_rle(mask),)
    for sample in same:
        if sample.kind in NAMED:
            # A number that no ref of the host's has.
            ref = -sample.ref_id
            yield replace(host, ref_id=ref, sentence=sample.sentence, kind=sample.kind, segmentations=where)


@dataclass(frozen=True, eq=False)
class _VisibleMask(LazyMask):
    """What of a sample's target shows beside what `hides` it, HxW."""

    sample: Sample
    hides: Mask

    def mask(self, height: int, width: int) -> Mask:
        return self.sample.mask() & ~self.hides


def _is_elsewhere(one: Sample, other: Sample) -> bool:
    """Whether they are about two photos of one dataset."""
    return one.image != other.image and one.image.parent == other.image.parent


def _speak_of(samples: Iterable[Sample], names: Sequence[str]) -> bool:
    return any(mentions(sample.sentence, name) for sample in samples for name in names)


def _name(sample: Sample) -> str:
    return sample.sentence.removeprefix("the ")
