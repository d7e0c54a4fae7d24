"""What finds boxes by words. A mask decoder turns them into masks, see `grounded`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ris_core.inference.frame import Image
from ris_core.zero_shot.network import Published


class Boxes(NamedTuple):
    """What a sentence found.

    boxes: (K, 4) float32, left, top, right and bottom, shares of the photo's width and height, [0, 1]; some may be
    empty. scores: (K,) float32, P(the thing in a box is meant).
    """

    boxes: Tensor
    scores: Tensor


class Detector(Published, ABC):
    """A published detector with an open vocabulary."""

    @abstractmethod
    def encode(self, images: Sequence[Image]) -> list[tuple[Tensor, ...]]:
        """Each HxWx3 uint8 RGB -> what is kept of it for `detect`. Raises OutOfMemory if not even one fits."""

    @abstractmethod
    def detect(self, kept: tuple[Tensor, ...], sentences: Sequence[str]) -> list[Boxes]:
        """What each sentence finds in a photo, in no order."""


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) middle, width and height -> float32 left, top, right and bottom."""
    column, row, width, height = boxes.float().unbind(-1)
    return torch.stack([column - width / 2, row - height / 2, column + width / 2, row + height / 2], dim=-1)
