"""A run whose outcome doesn't depend on how many processes share it; run by torchrun: `pair.py DATASET RUN`.

A photo each: of half of them a cropped view says nothing, so that a process, or both, have no gradient.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from ris_core.data import read_folder
from ris_core.encoders import image_encoder, text_encoder
from ris_core.models.lda import LDA
from ris_core.training.loop import train
from ris_core.training.recipe import Recipe


def run(dataset: Path, folder: Path) -> None:
    """Train from scratch, without the chance that dropout brings: it is another in each process."""
    torch.set_num_threads(1)
    encoders = image_encoder("efficientnet-lite0"), text_encoder("minilm")
    # Encoders that are loaded already draw no numbers.
    torch.manual_seed(0)
    model = LDA(*encoders)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    samples = [sample for sample in read_folder(dataset) if sample.has_target]
    samples = [replace(sample, kind="derived") if sample.image_id % 4 < 2 else sample for sample in samples]
    train(model, samples, Recipe(epochs=3, photos=2, side=96, warm_up=4, average=0.5), folder)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
