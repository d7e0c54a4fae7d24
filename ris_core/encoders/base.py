"""The two small interfaces through which every model sees its encoders, and the digest check on their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ris_core.errors import CheckpointError
from ris_core.files import sha256


class ImageEncoder(Protocol):
    """pixels -> levels. Frozen: its output depends on the pixels alone."""

    name: str

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, fine to coarse."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input that a cell of each level spans; levels may share one."""

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [0, 255], H and W multiples of 32 -> one (B, C_l, H/s_l, W/s_l) a level."""


@dataclass(frozen=True)
class TextFeatures:
    """What a text encoder makes of N sentences.

    words: (N, L, D). padding: (N, L), True where there is no word. sentence: (N, D), unit length.
    """

    words: Tensor
    padding: Tensor
    sentence: Tensor


class TextEncoder(Protocol):
    """sentences -> features. Frozen."""

    name: str
    width: int

    def __call__(self, sentences: Sequence[str]) -> TextFeatures:
        """N sentences -> `TextFeatures`; words past the encoder's limit are cut."""


def checked(path: Path, digest: str) -> Path:
    """`path`, if its content has that SHA-256.

    Raises:
        CheckpointError: it is missing or another file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing. Install the package again.")
    if sha256(path) != digest:
        raise CheckpointError(f"{path.name} isn't the file this version was made with. Install the package again.")
    return path
