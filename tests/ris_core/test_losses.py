"""The losses, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ris_core.losses import ABSENT_WEIGHT, PRESENCE_WEIGHT, mask_loss, presence_loss

HALF = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
ALL = torch.ones(1, 1, 2, 2)


def test_a_perfect_mask_costs_next_to_nothing() -> None:
    loss = mask_loss(HALF * 40 - 20, HALF, ALL, torch.ones(1))
    assert loss.item() == pytest.approx(0, abs=1e-3)


def test_indifference_by_hand() -> None:
    # Entropy ln 2; probability 2, overlap 1: dice 1 - (2 + 1) / (2 + 2 + 1).
    loss = mask_loss(torch.zeros(1, 1, 2, 2), HALF, ALL, torch.ones(1))
    assert loss.item() == pytest.approx(math.log(2) + 1 - 3 / 5)


def test_an_absent_thing_costs_entropy_alone() -> None:
    loss = mask_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), ALL, torch.zeros(1))
    assert loss.item() == pytest.approx(ABSENT_WEIGHT * math.log(2))


def test_cells_without_photo_do_not_count() -> None:
    valid = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    logits = torch.tensor([[[[3.0, -50.0], [-2.0, 50.0]]]], requires_grad=True)
    mask_loss(logits, HALF, valid, torch.ones(1)).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 1] == 0).all()
    assert (logits.grad[..., 0] != 0).all()


def test_presence() -> None:
    loss = presence_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(PRESENCE_WEIGHT * math.log(2))
