"""What `ris_core.encoders` knows of an encoder without loading it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from ris_core.encoders.base import ImageEncoder, TextEncoder
from ris_core.encoders.weights import WeightsSource

Encoder = TypeVar("Encoder", ImageEncoder, TextEncoder)


@dataclass(frozen=True)
class EncoderEntry(Generic[Encoder]):
    """How to get an encoder, and what it gives.

    load: with its weights. untrained: the same network at random, for timing; embedded ones always have their weights.
    channels, strides: of each level of an image encoder; the width alone, and none, of a text encoder.
    """

    load: Callable[[], Encoder]
    untrained: Callable[[], Encoder]
    source: WeightsSource
    channels: tuple[int, ...]
    strides: tuple[int, ...] = ()


@dataclass(frozen=True)
class EncoderCard:
    """An encoder for people to read.

    channels, strides: as in `EncoderEntry`. source: where its weights come from, in words. folder: where they lie on
    this machine, None if they don't.
    """

    name: str
    kind: Literal["image", "text"]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    source: str
    folder: Path | None
