"""The embedded encoders: equal to what their packages compute, frozen, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.base import checked
from ris_core.encoders.efficientnet_lite import _weights
from ris_core.errors import CheckpointError


def test_levels_are_as_declared() -> None:
    encoder = image_encoder("efficientnet-lite2")
    levels = encoder(torch.rand(2, 3, 64, 96) * 255)
    for level, channels, stride in zip(levels, encoder.channels, encoder.strides, strict=True):
        assert level.shape == (2, channels, 64 // stride, 96 // stride)


def test_folding_changes_nothing() -> None:
    network = EfficientNet.from_name("efficientnet-lite2", image_size=384)
    network.load_state_dict(torch.load(_weights(), weights_only=True))
    pixels = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        expected = network.eval().extract_features((pixels - 127) / 128)
        found = image_encoder("efficientnet-lite2")(pixels)[-1]
    assert torch.allclose(expected, found, atol=1e-3)


def test_encoders_stay_frozen_in_training() -> None:
    for encoder in (image_encoder("efficientnet-lite2"), text_encoder("minilm")):
        assert not encoder.train().training
        assert not any(weight.requires_grad for weight in encoder.parameters())


def test_a_sentence_has_unit_length_and_ignores_its_neighbours() -> None:
    encoder = text_encoder("minilm")
    alone = encoder(["the cat"])
    beside = encoder(["the cat", "a very much longer sentence about some quite different thing"])
    assert torch.allclose(alone.sentence[0], beside.sentence[0], atol=1e-5)
    assert beside.sentence.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert beside.padding[0].any() and not beside.padding[1].any()


def test_meaning_is_near() -> None:
    cat, kitten, rocket = text_encoder("minilm")(["the cat", "the kitten", "the rocket"]).sentence
    assert cat @ kitten > cat @ rocket + 0.2


def test_encoders_are_shared() -> None:
    assert image_encoder("efficientnet-lite2") is image_encoder("efficientnet-lite2")


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no encoder .resnet.\. Choose from efficientnet-lite2"):
        image_encoder("resnet")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not what it was")
    with pytest.raises(CheckpointError, match=r"weights\.pth isn't the file"):
        checked(tmp_path / "weights.pth", "00")
    with pytest.raises(CheckpointError, match="is missing"):
        checked(tmp_path / "nowhere.pth", "00")
