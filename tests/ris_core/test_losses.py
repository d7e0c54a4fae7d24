"""The losses, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ris_core.losses import ABSENT_WEIGHT, PRESENCE_WEIGHT, QUALITY_WEIGHT, mask_loss, quality_loss, total_loss
from ris_core.models.output import LossWeights, Output

HALF = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
ALL = torch.ones(1, 1, 2, 2)
ENTROPY, DICE, FOCAL = LossWeights(1, 0), LossWeights(0, 1), LossWeights(0, 0, focal=1)
BOTH = LossWeights(1, 1)


def test_a_perfect_mask_costs_next_to_nothing() -> None:
    loss = mask_loss(HALF * 40 - 20, HALF, ALL, torch.ones(1), LossWeights(1, 1, 1))
    assert loss.item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (ENTROPY, math.log(2)),
        # Probability 2, overlap 1.
        (DICE, 1 - (2 + 1) / (2 + 2 + 1)),
        (FOCAL, 0.25 * math.log(2)),
        (LossWeights(2, 3, 20), 2 * math.log(2) + 3 * 0.4 + 20 * 0.25 * math.log(2)),
    ],
    ids=str,
)
def test_indifference_by_hand(weights: LossWeights, expected: float) -> None:
    loss = mask_loss(torch.zeros(1, 1, 2, 2), HALF, ALL, torch.ones(1), weights)
    assert loss.item() == pytest.approx(expected)


def test_the_focal_loss_forgets_what_is_known() -> None:
    known, unknown = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), -3.0)
    ratio = [
        mask_loss(known, ALL, ALL, torch.ones(1), weights) / mask_loss(unknown, ALL, ALL, torch.ones(1), weights)
        for weights in (FOCAL, ENTROPY)
    ]
    assert ratio[0] < 0.01 * ratio[1]


def test_an_absent_thing_costs_entropy_alone() -> None:
    loss = mask_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), ALL, torch.zeros(1), BOTH)
    assert loss.item() == pytest.approx(ABSENT_WEIGHT * math.log(2))


def test_cells_without_photo_do_not_count() -> None:
    valid = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    logits = torch.tensor([[[[3.0, -50.0], [-2.0, 50.0]]]], requires_grad=True)
    mask_loss(logits, HALF, valid, torch.ones(1), LossWeights(1, 1, 1)).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 1] == 0).all()
    assert (logits.grad[..., 0] != 0).all()


def test_quality_is_the_masks_real_iou() -> None:
    # Three cells said, two true, two of them right: 2 / 3; what lies beside the photo isn't counted.
    mask = torch.tensor([[[[1.0, 1.0, 9.0], [1.0, -1.0, 9.0]]]])
    truth = torch.tensor([[[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]])
    valid = torch.tensor([[[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]]])
    best = torch.logit(torch.tensor([2 / 3]))
    around = [
        quality_loss(Output(mask, best, best + shift), truth, valid, torch.ones(1)).item() for shift in (-0.1, 0, 0.1)
    ]
    assert around[1] < min(around[0], around[2])
    absent = quality_loss(Output(mask, best, best), truth, valid, torch.zeros(1))
    assert absent.item() == 0


def test_the_total_by_hand() -> None:
    zeros = torch.zeros(1, 1, 2, 2)
    output = Output(zeros, torch.zeros(1), torch.zeros(1), (torch.zeros(1, 1, 1, 1),))
    weights = LossWeights(1, 0, auxiliary=0.5)
    total = total_loss(output, HALF, ALL, torch.ones(1), weights).item()
    assert total == pytest.approx((1 + 0.5 + PRESENCE_WEIGHT + QUALITY_WEIGHT) * math.log(2))
