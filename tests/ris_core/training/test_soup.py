"""Every weight of a mean is the mean, and only what is made alike has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import CheckpointError, InputError
from ris_core.models.base import RISModel
from ris_core.models.lda import LDA, LDAOptions
from ris_core.models.maris import MARIS, MARISOptions
from ris_core.training.soup import average
from ris_core.tuning import Tuning

ENCODERS = ("efficientnet-lite0", "minilm")


def save(model: RISModel, folder: Path, presence: float = 0.5) -> Path:
    """With weights that say in how many parts they were added up."""
    checkpoint.save(model, OperatingPoint(side=96, presence=presence), folder, "# card")
    return folder


def build(seed: int, tuning: Tuning | None = None, width: int = 16) -> LDA:
    torch.manual_seed(seed)
    model = LDA(image_encoder(ENCODERS[0]), text_encoder(ENCODERS[1]), LDAOptions(width=width), tuning)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    return model


@pytest.mark.parametrize("tuning", [None, Tuning("adapters")], ids=["frozen", "adapters"])
def test_every_weight_is_the_mean(tuning: Tuning | None, tmp_path: Path) -> None:
    models = [build(seed, tuning) for seed in range(3)]
    folders = [save(model, tmp_path / str(seed), 0.2 + seed / 10) for seed, model in enumerate(models)]
    mean, point = average(folders)
    assert point == OperatingPoint(side=96, presence=0.2)
    states = [model.own_state() for model in models]
    assert mean.own_state().keys() == states[0].keys()
    for name, tensor in mean.own_state().items():
        assert tensor.dtype == states[0][name].dtype
        assert torch.allclose(tensor, sum(state[name] for state in states) / 3, atol=1e-6), name
    assert any("lora_A" in name for name in states[0]) is (tuning is not None)
    # Encoders that models share stay as they are.
    assert mean.encode_text(["a cat"]).sentence.isfinite().all()
    assert not mean.training


def test_the_mean_of_one_with_itself_is_itself(tmp_path: Path) -> None:
    folder = save(build(0), tmp_path / "one")
    mean, point = average([folder, folder])
    save(mean, tmp_path / "mean", point.presence)
    assert checkpoint_files.version(tmp_path / "mean") == checkpoint_files.version(folder)


def test_only_what_is_made_alike_has_a_mean(tmp_path: Path) -> None:
    maris = MARIS(image_encoder(ENCODERS[0]), text_encoder(ENCODERS[1]), MARISOptions(width=16))
    first = save(build(0), tmp_path / "first")
    others = [
        save(model, tmp_path / name)
        for name, model in {"wide": build(0, width=32), "tuned": build(0, Tuning("adapters")), "maris": maris}.items()
    ]
    for other in others:
        with pytest.raises(CheckpointError, match=f"{other.name} isn't made like .*first"):
            average([first, other])
    with pytest.raises(InputError, match="two checkpoints or more"):
        average([first])
