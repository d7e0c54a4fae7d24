"""A copy in half precision answers alike, and what training reads stays in float32."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import tiny
from models.encoders import Small

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.inference import casting
from ris_core.inference.casting import cast
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.models import MODELS, OPTIONS
from ris_core.models.base import RISModel
from ris_core.models.lda import LDA
from ris_core.tuning import Tuning

CPU = torch.device("cpu")
POINT = OperatingPoint(side=64, mask=0.5, presence=0.0)
DESIGNS = [*((name, {}) for name in MODELS), ("vipa", {"fusion": "early"})]
# As long as half precision's 11 bits let a few layers keep two of a thousand.
CLOSE = 2e-2


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (48, 60, 3), dtype=np.uint8)


def build(name: str, **options: object) -> RISModel:
    torch.manual_seed(5)
    model = MODELS[name](Small(), text_encoder("minilm"), OPTIONS[name](width=32, **options))
    model.add_interactive()
    return model.eval()


def assert_alike(full: Predictor, half: Predictor) -> None:
    prompts = ["the cat", "a red cup on the table", "x"]
    for one, other in zip(*(by.predict_raw([(by.embed(photo()), prompts)]) for by in (full, half)), strict=True):
        assert np.isfinite(other.probability).all()
        assert np.abs(one.probability - other.probability).max() < CLOSE
        assert one[1:3] == pytest.approx(other[1:3], abs=CLOSE)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), DESIGNS)
def test_a_half_copy_answers_alike(name: str, options: dict[str, object], precision: str) -> None:
    model = build(name, **options)
    full, half = Predictor(model, POINT, "t", "float32"), Predictor(model, POINT, "t", precision)  # type: ignore[arg-type]
    dtype = getattr(torch, precision)
    parts = (half.model, half.model.image_encoder, half.model.text_encoder)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {dtype}
    if precision == "float16":
        assert_alike(full, half)
    asked = [
        Prompt(points=[Point(0.4, 0.4)]),
        Prompt(box=Box(0.2, 0.2, 0.7, 0.7)),
        Prompt("the cat", [Point(0.5, 0.5)]),
    ]
    clicked = [by.segment(by.embed(photo()), asked) for by in (full, half)]
    for one, other in zip(*clicked, strict=True):
        assert one.score == pytest.approx(other.score, abs=CLOSE if precision == "float16" else 0.1)


@pytest.mark.parametrize("name", tiny.IMAGE)
def test_every_image_encoder_reads_photos_in_half_precision(name: str, tmp_path: Path) -> None:
    encoder = tiny.image(name, tmp_path)
    model = LDA(encoder, text_encoder("minilm")).eval()
    half = cast(model, torch.float16, CPU).image_encoder
    pixels, fill = tiny.pixels(), torch.ones(2, 1, 64, 96)
    with torch.inference_mode():
        for one, other in zip(model.encode_levels(pixels, fill), half(pixels), strict=True):
            assert other.dtype == torch.float16
            assert (one - other.float()).norm() < 0.01 * one.norm()


@pytest.mark.parametrize("name", tiny.TEXT)
def test_every_text_encoder_reads_sentences_in_half_precision(name: str, tmp_path: Path) -> None:
    encoder = tiny.text(name, tmp_path)
    half = cast(LDA(Small(), encoder).eval(), torch.float16, CPU).text_encoder
    with torch.inference_mode():
        one, other = (by(["the cat", "a rather long sentence about a cat"]) for by in (encoder, half))
    assert other.words.dtype == other.sentence.dtype == torch.float16
    assert one.lengths == other.lengths
    assert (one.sentence - other.sentence.float()).norm() < 0.01 * one.sentence.norm()


def test_the_model_itself_stays_as_it_is() -> None:
    model = build("lda").train().requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    half = Predictor(model, POINT, "t", "float16")
    half.predict_raw([(half.embed(photo()), ["the cat"])])
    assert model.training and not half.model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad for weight in half.model.parameters())
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])
    # And it learns, over the encoders that all models share.
    levels = model.encode_image(torch.rand(1, 3, 64, 64) * 255, torch.ones(1, 1, 64, 64))
    output = model(levels, model.encode_text(["the cat"]), torch.zeros(1, dtype=torch.long))
    output.mask.square().mean().backward()
    assert output.mask.dtype == torch.float32
    assert model.to_mask.weight.grad is not None


def test_frozen_encoders_are_copied_once_for_each_precision() -> None:
    one, other = (cast(build("lda"), torch.float16, CPU) for _ in range(2))
    assert one.text_encoder is other.text_encoder is not text_encoder("minilm")
    assert one.text_encoder is not cast(build("lda"), torch.bfloat16, CPU).text_encoder
    assert one.text_encoder.tokenizer is text_encoder("minilm").tokenizer
    assert text_encoder("minilm").network.dtype == torch.float32


def test_copies_go_with_the_encoder_they_were_made_of() -> None:
    encoder = Small()
    cast(LDA(encoder, text_encoder("minilm")), torch.float16, CPU)
    count = len(casting._shared)
    del encoder
    gc.collect()
    assert len(casting._shared) == count - 1


def test_a_versions_own_encoder_is_copied_with_its_adapters() -> None:
    torch.manual_seed(0)
    shared = image_encoder("efficientnet-lite0")
    model = LDA(shared, text_encoder("minilm"), tuning=Tuning("adapters", stages=1, rank=2)).eval()
    with torch.no_grad():
        for name, weight in model.image_encoder.named_parameters():
            if "lora" in name:
                weight.fill_(0.05)
    half = cast(model, torch.float16, CPU)
    assert half.image_encoder is not cast(LDA(shared, text_encoder("minilm")), torch.float16, CPU).image_encoder
    pixels, valid = torch.rand(1, 3, 64, 64) * 255, torch.ones(1, 1, 64, 64)
    with torch.inference_mode():
        one, other = model.encode_levels(pixels, valid)[-1], half.encode_levels(pixels, valid)[-1]
        plain = shared(pixels)[-1]
    assert (one - other.float()).norm() < 0.01 * one.norm() < (one - plain).norm()


def test_pixels_are_normalised_in_float32(tmp_path: Path) -> None:
    model = LDA(tiny.image("sam", tmp_path), text_encoder("minilm"))
    half = cast(model, torch.float16, CPU).image_encoder
    assert half.normalise.mean.dtype == half.fill_pixel.dtype == torch.float32
    assert torch.equal(half.normalise.mean, model.image_encoder.normalise.mean)


def test_counts_of_cells_do_not_overflow() -> None:
    """A thing all over a canvas of 1,056 pixels covers more cells than half precision counts to."""
    half = cast(build("lda"), torch.float16, CPU)
    frame = torch.ones(1, 1, 1056, 1056)
    with torch.inference_mode():
        levels = half.encode_image(frame.expand(1, 3, -1, -1) * 99, frame)
        torch.nn.init.constant_(half.to_mask.bias, 20.0)
        output = half(levels, half.encode_text(["the wall"]), torch.zeros(1, dtype=torch.long))
    assert output.mask.numel() > 65504
    assert output.presence.isfinite().all() and output.quality.isfinite().all()
