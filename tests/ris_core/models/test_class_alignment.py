"""The start that LDA gets from an ImageNet classifier: it points at things, and stays as it was set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.encoders import Small

from backend.projects.samples import photos
from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import text_encoder
from ris_core.images import read_image
from ris_core.models import MODELS, OPTIONS
from ris_core.models.class_alignment import align
from ris_core.models.lda import LDA


def test_the_alignment_points_at_what_is_there(untrained: LDA) -> None:
    """Before any mask was seen, a sentence's evidence is strongest on the photo of that thing."""
    pictures = {name: read_image(data) for name, data in photos()}
    nouns = {"chelsea.png": "the cat", "coffee.png": "the cup", "rocket.jpg": "the rocket", "flower.jpg": "the flower"}
    for noun in nouns.values():
        evidence = {}
        for name, shown in nouns.items():
            pixels = torch.from_numpy(pictures[name][:256, :384].copy()).permute(2, 0, 1)[None].float()
            valid = torch.ones(1, 1, *pixels.shape[-2:])
            level = untrained.encode_image(pixels, valid)[-1]
            logits = untrained.attend[-1].spatial_logits(level, untrained.encode_text([noun]).sentence)
            evidence[shown] = logits.max().item()
        assert max(evidence, key=evidence.__getitem__) == noun


def test_a_loaded_model_keeps_its_alignment(untrained: LDA, tmp_path: Path) -> None:
    checkpoint.save(untrained, OperatingPoint(), tmp_path / "saved", "")
    model, _ = checkpoint.load(tmp_path / "saved")
    assert isinstance(model, LDA)
    aligned = [model.key[-1], model.attend[-1].spatial_query]
    assert not any(weight.requires_grad for part in aligned for weight in part.parameters())
    others = [weight for name, weight in model.named_parameters() if "key.4." not in name and "_query." not in name]
    assert all(weight.requires_grad for weight in others)


@pytest.mark.parametrize("name", MODELS)
def test_without_a_classifier_nothing_is_aligned(name: str) -> None:
    model = MODELS[name](Small(), text_encoder("minilm"), OPTIONS[name](width=32))
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    align(model)
    model.on_load()
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())
