"""Checkpoints that load in the real predictor, without training: random weights over the real encoders."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.models.lda import LDA, LDAOptions

# Small, so that a test costs milliseconds.
_SIDE = 64


@cache
def _model(seed: int, clicks: bool) -> LDA:
    torch.manual_seed(seed)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(width=16))
    if clicks:
        model.add_interactive()
    return model


def random_checkpoint(folder: Path, seed: int = 0, finds: bool = True, clicks: bool = False) -> Path:
    """A checkpoint whose masks mean nothing.

    finds: whether it finds whatever it is asked for. clicks: whether it has a decoder of its own for them.
    """
    point = OperatingPoint(side=_SIDE, mask=0.0 if finds else 0.5, presence=0.0 if finds else 1.1)
    checkpoint.save(_model(seed, clicks), point, folder, "# Random\n")
    return folder
