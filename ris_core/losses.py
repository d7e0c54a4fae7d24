"""What training minimises: binary cross-entropy and Dice on the mask, cross-entropy on presence. Weights are ours."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

# An absent thing's empty mask teaches less than presence does, and there are many of them.
ABSENT_WEIGHT = 0.3
PRESENCE_WEIGHT = 0.5


def mask_loss(logits: Tensor, targets: Tensor, valid: Tensor, present: Tensor) -> Tensor:
    """Mean over expressions of cross-entropy plus, where there is a target, Dice; cells without photo don't count.

    Args:
        logits, targets, valid: (N, 1, h, w); targets in [0, 1], valid in {0, 1}.
        present: (N,) in {0, 1}.
    """
    cells = valid.sum(dim=(1, 2, 3)).clamp_min(1)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    entropy = (entropy * valid).sum(dim=(1, 2, 3)) / cells
    probability, inside = logits.sigmoid() * valid, targets * valid
    overlap = (probability * inside).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + inside.sum(dim=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return (present * (entropy + dice) + ABSENT_WEIGHT * (1 - present) * entropy).mean()


def presence_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Weighted binary cross-entropy of (N,) logits against (N,) in {0, 1}."""
    return PRESENCE_WEIGHT * F.binary_cross_entropy_with_logits(logits, present)
