"""A model's answers as plain values. Knows no torch: who passes them on needn't wait for its import."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ris_core.masks import Mask

Vector = NDArray[np.float32]

# Passes under dropout that disagreement is measured by, see `uncertainty`.
PASSES = 4


class RawPrediction(NamedTuple):
    """What the model says of one prompt, before the operating point.

    probability: HxW, P(a pixel belongs to the thing). presence: P(it is there). quality: the IoU expected if so.
    distance: of the sentence from the nearest name that was taught, see `Segmenter.distances`; 0 where none is known.
    things: disjoint masks of the things that it consists of, from models that see such; empty from others.
    mask: HxW bool, where nothing else was asked for: at the operating point, and `probability` is empty then.
    """

    probability: NDArray[np.float32]
    presence: float
    quality: float
    distance: float = 0.0
    things: Sequence[Mask] = ()
    mask: Mask | None = None


@dataclass(frozen=True)
class Prediction:
    """One prompt's answer.

    mask: HxW bool at the photo's size, empty unless `present`. presence, quality: as in `RawPrediction`, in [0, 1].
    score: the IoU to expect of this answer, [0, 1]; saying that a thing isn't there scores 1 where that is so.
    things: disjoint masks that `mask` consists of, one a thing; empty where nobody told them apart, see `instances`.
    guess: where the model takes the thing for absent, the IoU to expect of the mask that it would be; 0: it has none.
    """

    prompt: str
    mask: Mask
    present: bool
    presence: float
    quality: float
    score: float
    guess: float = field(default=0.0, kw_only=True)
    things: Sequence[Mask] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class AssessedPrediction(Prediction):
    """An answer with its embedding (D,) and, if that was asked for, its disagreement in [0, 1]."""

    embedding: Vector
    disagreement: float | None = None
