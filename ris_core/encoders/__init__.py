"""Image and text encoders behind two small interfaces, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from ris_core.encoders.base import ImageEncoder, TextEncoder, TextFeatures
from ris_core.encoders.efficientnet_lite import EfficientNetLite2
from ris_core.encoders.minilm import MiniLM
from ris_core.errors import CheckpointError

IMAGE_ENCODERS: dict[str, Callable[[], ImageEncoder]] = {EfficientNetLite2.name: EfficientNetLite2}
TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {MiniLM.name: MiniLM}

Encoder = TypeVar("Encoder")


@cache
def image_encoder(name: str) -> ImageEncoder:
    """The image encoder of that name, loaded once a process: encoders are frozen, so every model shares them.

    Raises:
        CheckpointError: no encoder has that name, or its weights are damaged.
    """
    return _known(IMAGE_ENCODERS, name)()


@cache
def text_encoder(name: str) -> TextEncoder:
    """The text encoder of that name, loaded once a process and shared.

    Raises:
        CheckpointError: no encoder has that name, or its weights are damaged.
    """
    return _known(TEXT_ENCODERS, name)()


def _known(encoders: dict[str, Encoder], name: str) -> Encoder:
    if name not in encoders:
        raise CheckpointError(f"There is no encoder {name!r}. Choose from {', '.join(encoders)}.")
    return encoders[name]


__all__ = [
    "IMAGE_ENCODERS",
    "TEXT_ENCODERS",
    "ImageEncoder",
    "TextEncoder",
    "TextFeatures",
    "image_encoder",
    "text_encoder",
]
