"""Test-time augmentation by mirroring: a photo is read as it is and mirrored, and the two answers are averaged.

Twice the work, for measuring. The operating point stays as it was fixed for photos that are read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ris_core.data.derive.words import mirror_words
from ris_core.inference.frame import Image
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.predictor import Predictor
from ris_core.inference.segmenter import PreparedImage, Segmenter


@dataclass(frozen=True)
class MirroredPair(PreparedImage):
    """A photo, prepared as it is and mirrored."""

    mirrored: PreparedImage = field(kw_only=True)


class FlipPredictor(Predictor):
    """Answers as a `Predictor` does, but for what is said above: left and right change places in mirrored prompts."""

    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """A `MirroredPair` of each HxWx3 uint8 RGB; raises as `Predictor.embed_all` does."""
        straight = super().embed_all(images)
        mirrored = super().embed_all([np.ascontiguousarray(image[:, ::-1]) for image in images])
        return [
            MirroredPair(one.levels, one.frame, one.interactive, mirrored=other)
            for one, other in zip(straight, mirrored, strict=True)
        ]

    # A mask alone can't be averaged: also where no more is wanted, both readings' probabilities are fetched.
    _ask = Segmenter._ask

    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """The mean of both readings; raises as `Predictor.predict_raw` does, and TypeError for others' images."""
        straight = super().predict_raw(requests)
        mirrored = super().predict_raw(
            [(_mirrored(image), [mirror_words(prompt) for prompt in prompts]) for image, prompts in requests]
        )
        return [_mean(one, other) for one, other in zip(straight, mirrored, strict=True)]


def _mirrored(image: PreparedImage) -> PreparedImage:
    if not isinstance(image, MirroredPair):
        raise TypeError("A FlipPredictor answers about what it embedded itself.")
    return image.mirrored


def _mean(one: RawPrediction, other: RawPrediction) -> RawPrediction:
    """Of what is said of a photo and of its mirror image."""
    probability = np.float32(0.5) * (one.probability + other.probability[:, ::-1])
    presence, quality = (one.presence + other.presence) / 2, (one.quality + other.quality) / 2
    return RawPrediction(probability, presence, quality, one.distance)
