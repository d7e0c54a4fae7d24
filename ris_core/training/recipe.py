"""What a training run is told to do. Without torch: commands name their settings after it before anything is loaded."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ris_core.errors import InputError

TrainingPrecision: TypeAlias = Literal["float32", "bfloat16", "float16"]
# Of a canvas' longer side: the shorter, two thirds of it, is then a multiple of 32.
_STEP = 96


@dataclass(frozen=True)
class Design:
    """A model that isn't trained yet: by name, with its encoders' names and its switches, see `design`."""

    model: str = "lda"
    image_encoder: str = "efficientnet-lite2"
    text_encoder: str = "minilm"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's outcome besides its data.

    photos: a batch's. present, absent: at most so many expressions a photo and pass, with and without a target.
    side: the canvas' longer side in pixels, a multiple of 96; the shorter is two thirds of it.
    views: ways in which a photo is moved and recoloured, passes taking turns; 0 for another in every pass.
    paste: chance that a thing of another photo is laid over one, see `collage`; not with views that come again.
    average: decay of the weights' running mean, which is what is kept. accumulate: batches a step.
    precision: of the passes through the model; weights and gradients are float32.

    Raises InputError if a number is out of its range.
    """

    epochs: int = 10
    photos: int = 8
    present: int = 2
    absent: int = 1
    side: int = 384
    views: int = 0
    rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 100
    clip: float = 1.0
    average: float = 0.998
    accumulate: int = 1
    precision: TrainingPrecision = "float32"
    seed: int = 0
    workers: int = 0
    paste: float = 0.0

    def __post_init__(self) -> None:
        # Said before data are read and a model is built.
        if self.side < 1 or self.side % _STEP:
            raise InputError(f"The side is {self.side} pixels. It has to be a multiple of {_STEP}.")
        if not 0 <= self.paste <= 1:
            raise InputError(f"The chance to paste is {self.paste}. It has to be between 0 and 1.")
        if self.paste and self.views:
            raise InputError("Nothing can be pasted onto views that come again. Leave out either paste or views.")
