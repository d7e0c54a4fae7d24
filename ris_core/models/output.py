"""What a model answers, and how training weighs the parts of its loss."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """What a model says to N sentences; all are logits.

    mask: (N, 1, H/4, W/4). presence: (N,), the thing is there at all. quality: (N,), the IoU of the mask.
    auxiliary: (N, 1, h, w) each, coarser masks that only training reads.
    """

    mask: Tensor
    presence: Tensor
    quality: Tensor
    auxiliary: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class LossWeights:
    """entropy: cross-entropy. dice: Dice. focal: focal loss. auxiliary: cross-entropy of each coarser mask."""

    entropy: float = 1.0
    dice: float = 1.0
    focal: float = 0.0
    auxiliary: float = 0.0
