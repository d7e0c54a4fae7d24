"""Shared by the tests of all designs: the photos that they look at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def photo() -> tuple[Tensor, Tensor]:
    """Two photos on a canvas, (2, 3, 64, 96), and where there is photo; the second is a third narrower."""
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    valid = torch.ones(2, 1, 64, 96)
    valid[1, :, :, 64:] = 0
    return pixels * valid, valid
