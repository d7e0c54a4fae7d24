"""What training minimises, in parts; each design says how it weighs them. Weights are ours unless a design says so."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ris_core.models.output import LossWeights, Output

# An absent thing's empty mask teaches less than presence does, and there are many of them.
ABSENT_WEIGHT = 0.3
PRESENCE_WEIGHT = 0.5
QUALITY_WEIGHT = 0.2
# Lin et al. 2017, as SAM uses it.
_FOCUS = 2.0


def total_loss(output: Output, targets: Tensor, valid: Tensor, present: Tensor, weights: LossWeights) -> Tensor:
    """Everything that training minimises, as one number.

    Args:
        output: a model's, for N expressions.
        targets: (N, 1, h, w) share of each cell that the thing covers, at the grid of `output.mask`.
        valid: (N, 1, h, w), 1 where there is photo.
        present: (N,), 1 where the thing is in view.
    """
    loss = mask_loss(output.mask, targets, valid, present, weights)
    for coarse in output.auxiliary:
        at = [F.adaptive_avg_pool2d(grid, (coarse.shape[-2], coarse.shape[-1])) for grid in (targets, valid)]
        loss = loss + weights.auxiliary * _mean(_entropy(coarse, at[0], at[1]), present)
    presence = F.binary_cross_entropy_with_logits(output.presence, present)
    return loss + PRESENCE_WEIGHT * presence + QUALITY_WEIGHT * quality_loss(output, targets, valid, present)


def mask_loss(logits: Tensor, targets: Tensor, valid: Tensor, present: Tensor, weights: LossWeights) -> Tensor:
    """Mean over expressions; cells without photo don't count, nor does Dice where there is nothing to overlap with.

    Args:
        logits, targets, valid: (N, 1, h, w); targets in [0, 1], valid in {0, 1}.
        present: (N,) in {0, 1}.
    """
    pixels = torch.zeros_like(present)
    if weights.entropy:
        pixels = pixels + weights.entropy * _entropy(logits, targets, valid)
    if weights.focal:
        pixels = pixels + weights.focal * _focal(logits, targets, valid)
    return _mean(pixels, present) + weights.dice * (present * _dice(logits, targets, valid)).mean()


def quality_loss(output: Output, targets: Tensor, valid: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of the predicted IoU against the mask's real one, over the expressions with a target."""
    with torch.no_grad():
        mask, truth = (output.mask > 0) & (valid > 0), (targets > 0.5) & (valid > 0)
        overlap = (mask & truth).sum(dim=(1, 2, 3))
        iou = overlap / (mask | truth).sum(dim=(1, 2, 3)).clamp_min(1)
    losses = F.binary_cross_entropy_with_logits(output.quality, iou.to(output.quality.dtype), reduction="none")
    return (present * losses).sum() / present.sum().clamp_min(1)


def _mean(losses: Tensor, present: Tensor) -> Tensor:
    return (losses * (present + ABSENT_WEIGHT * (1 - present))).mean()


def _entropy(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    return _per_cell(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), valid)


def _focal(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy that counts a cell less the better it is already known."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = (logits.sigmoid() - targets).abs()
    return _per_cell(wrong.pow(_FOCUS) * entropy, valid)


def _dice(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    probability, inside = logits.sigmoid() * valid, targets * valid
    overlap = (probability * inside).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + inside.sum(dim=(1, 2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)


def _per_cell(loss: Tensor, valid: Tensor) -> Tensor:
    return (loss * valid).sum(dim=(1, 2, 3)) / valid.sum(dim=(1, 2, 3)).clamp_min(1)
