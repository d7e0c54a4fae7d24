"""What `ZeroShotSegmenter` asks of a published model: encode a photo, find what a sentence names, draw at clicks.

A network turns photos and sentences into tensors and back; thresholds, suppression and sizes aren't its matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ris_core.inference.frame import Image
from ris_core.inference.segmenter import PreparedImage


class Found(NamedTuple):
    """What a sentence found in a photo, before any threshold but that which the network was given.

    masks: (K, h, w) mask logits on the canvas' grid, of any stride; K may be 0. scores: (K,), P(it is meant).
    qualities: (K,), the IoU that the network expects of each mask; 1 where it doesn't say. presence: P(anything is
    meant). apart: whether masks are things, or parts of one map.
    """

    masks: Tensor
    scores: Tensor
    qualities: Tensor
    presence: float
    apart: bool = True


@dataclass(frozen=True, eq=False)
class Pointed:
    """Where somebody pointed, in pixels of the canvas.

    points: (P, 2) column and row. labels: (P,) 1 on the thing, 0 beside it. box: (4,) left, top, right, bottom, or
    None. mask: (h, w) logits of an earlier answer at a quarter of the canvas, or None.
    """

    points: Tensor
    labels: Tensor
    box: Tensor | None = None
    mask: Tensor | None = None


class Drawn(NamedTuple):
    """mask: (h, w) logits on the canvas' grid. quality: the IoU that the network expects of it."""

    mask: Tensor
    quality: float


class Published(nn.Module):
    """A published network or a part of one. Frozen, in evaluation mode, called in inference mode."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights, and of what goes in."""
        return next(self.parameters()).dtype

    @property
    def photos_together(self) -> int:
        """How many photos are encoded in one pass, at most; on a CPU more than one cost memory and gain nothing."""
        return 4 if self.device.type == "cuda" else 1


def square_map(cells: Tensor) -> Tensor:
    """(..., L, C) of a square canvas, row by row -> (..., C, h, w)."""
    *before, count, channels = cells.shape
    side = round(count**0.5)
    return cells.transpose(-1, -2).reshape(*before, channels, side, side)


class ZeroShotNetwork(Published, ABC):
    """A published model, or several of them as one.

    Attributes:
        clickable: whether `draw` answers.
    """

    clickable: bool = False

    @abstractmethod
    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """Each HxWx3 uint8 RGB -> what is kept of it, with the frame in which masks and clicks are; together."""

    @abstractmethod
    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        """What each sentence finds in a photo; things below the score `least` needn't be drawn."""

    @abstractmethod
    def features(self, image: PreparedImage) -> Tensor:
        """(C, H, W), the deepest features of the photo's canvas, 0 where there is no photo."""

    def draw(self, image: PreparedImage, pointed: Sequence[Pointed]) -> list[Drawn]:
        """What somebody points at, on the embedding that is there already. Only where `clickable`."""
        raise NotImplementedError
