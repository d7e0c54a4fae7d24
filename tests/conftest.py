"""Shared by all tests: one torch thread a process, and an untrained model over the real encoders."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

from ris_core.encoders import image_encoder, text_encoder
from ris_core.models.class_alignment import align
from ris_core.models.lda import LDA

torch.set_num_threads(1)
# Installations under test aren't the one that a person's commands look for.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="ris-state-")


@pytest.fixture
def untrained() -> LDA:
    """LDA as training starts with it, the same in every test."""
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"))
    align(model)
    return model.eval()
