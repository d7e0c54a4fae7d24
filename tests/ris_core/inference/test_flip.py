"""A mirrored reading is turned back, is asked with mirrored words, and the two count alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.inference.flip import FlipPredictor
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA, LDAOptions

PROMPTS = ["the left cup", "the cup", "the dog on the right"]
MIRRORED = ["the right cup", "the cup", "the dog on the left"]


@pytest.fixture(scope="module")
def model() -> LDA:
    torch.manual_seed(0)
    return LDA(image_encoder("efficientnet-lite0"), text_encoder("minilm"), LDAOptions(width=16))


@pytest.fixture
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((60, 90), (90, 60), (64, 96))]


def ask(predictor: Predictor, images: list[np.ndarray], prompts: list[str]) -> list[RawPrediction]:
    return predictor.predict_raw([(embedding, prompts) for embedding in predictor.embed_all(images)])


def test_the_answer_is_the_mean_of_two(model: LDA, images: list[np.ndarray]) -> None:
    point = OperatingPoint(side=96)
    plain, flipped = Predictor(model, point, "test"), FlipPredictor(model, point, "test")
    straight, mirrored = ask(plain, images, PROMPTS), ask(plain, [image[:, ::-1] for image in images], MIRRORED)
    means = ask(flipped, images, PROMPTS)
    assert len(means) == 9
    for answer, one, other in zip(means, straight, mirrored, strict=True):
        assert np.allclose(answer.probability, (one.probability + other.probability[:, ::-1]) / 2, atol=1e-5)
        assert answer.presence == pytest.approx((one.presence + other.presence) / 2, abs=1e-5)
        assert answer.quality == pytest.approx((one.quality + other.quality) / 2, abs=1e-5)
        assert not np.allclose(answer.probability, one.probability, atol=1e-3)


def test_a_mirrored_photo_gets_the_mirrored_answer(model: LDA, images: list[np.ndarray]) -> None:
    predictor = FlipPredictor(model, OperatingPoint(side=96), "test")
    there = ask(predictor, images, PROMPTS)
    back = ask(predictor, [image[:, ::-1] for image in images], MIRRORED)
    for one, other in zip(there, back, strict=True):
        assert np.allclose(one.probability, other.probability[:, ::-1], atol=1e-5)
        assert one[1:4] == pytest.approx(other[1:4], abs=1e-5)


def test_it_segments_as_any_predictor(model: LDA, images: list[np.ndarray]) -> None:
    predictor = FlipPredictor(model, OperatingPoint(side=96, mask=0.0, presence=0.0), "test")
    (answer,) = predictor.segment(predictor.embed(images[0]), ["the cup"])
    assert answer.present
    assert answer.mask.shape == (60, 90)
    other = Predictor(model, predictor.point, "test").embed(images[0])
    with pytest.raises(TypeError, match="embedded itself"):
        predictor.predict_raw([(other, ["the cup"])])
