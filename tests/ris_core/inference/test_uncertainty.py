"""Where answers lie, and how far a model wavers: for every design, whatever stands beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models.test_models import build

from ris_core.checkpoint_files import OperatingPoint
from ris_core.inference.prediction import PASSES, RawPrediction
from ris_core.inference.predictor import Predictor
from ris_core.inference.uncertainty import assess, disagreement, disagreements, embed
from ris_core.models import MODELS
from ris_core.models.lda import LDA

PROMPTS = ["the cat", "a red cup on the table"]


@pytest.fixture
def predictor(untrained: LDA) -> Predictor:
    return Predictor(untrained, OperatingPoint(side=96, mask=0.5, presence=0.0), "test")


def photo(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_every_design_can_be_assessed(name: str, fusion: str) -> None:
    if fusion == "early" and name != "vipa":
        pytest.skip("Only VIPA can fuse early.")
    options = {"fusion": "early"} if fusion == "early" else {}
    predictor = Predictor(build(name, **options), OperatingPoint(side=64), "test")
    requests = [(predictor.embed(photo(seed=1)), PROMPTS), (predictor.embed(photo(90, 60, seed=2)), PROMPTS[:1])]
    assessed = assess(predictor, requests, passes=2)
    plain = predictor.segment_all(requests)
    assert [[prediction.score for prediction in predictions] for predictions in assessed] == [
        [pytest.approx(prediction.score, abs=1e-5) for prediction in predictions] for predictions in plain
    ]
    for prediction in [answer for predictions in assessed for answer in predictions]:
        # Two directions of length 1.
        assert np.linalg.norm(prediction.embedding) == pytest.approx(2**0.5, abs=1e-3)
        assert prediction.disagreement is not None
        assert 0 <= prediction.disagreement <= 1


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in MODELS), ("haris", {"order": "shallow first"}), ("vipa", {"fusion": "early"})],
)
def test_what_is_embedded_is_the_deepest_level(name: str, options: dict[str, str]) -> None:
    predictor = Predictor(build(name, **options), OperatingPoint(side=96), "test")
    # It fills its canvas, and a third of it is whole cells of any level.
    image = predictor.embed(photo(64, 96))
    [answer] = predictor.segment(image, ["the cat"])
    everything, left = np.ones((64, 96), bool), np.zeros((64, 96), bool)
    left[:, :32] = True
    vectors = embed(predictor, image, [replace(answer, mask=mask) for mask in (everything, left)])
    with torch.inference_mode():
        features = predictor.model.deepest(image.levels)[0]
    width = features.shape[2] // 3
    for vector, inside in zip(vectors, (features, features[:, :, :width]), strict=True):
        expected = torch.nn.functional.normalize(inside.mean(dim=(1, 2)), dim=0)
        assert np.allclose(vector[-len(expected) :], expected.numpy(), atol=1e-5)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)


def test_without_passes_there_is_no_disagreement(predictor: Predictor) -> None:
    [[answer]] = assess(predictor, [(predictor.embed(photo()), ["the cat"])])
    assert answer.disagreement is None


def test_nothing_asked_is_nothing_found(predictor: Predictor) -> None:
    assert assess(predictor, [(predictor.embed(photo()), [])], passes=2) == [[]]


def test_an_embedding_tells_what_was_asked_and_what_was_found(predictor: Predictor) -> None:
    image = predictor.embed(photo())
    answers = predictor.segment(image, ["the cat", "the cat", "a boat"])
    left, right = np.zeros((60, 90), bool), np.zeros((60, 90), bool)
    left[:, :30], right[:, 60:] = True, True
    one, other, third = embed(
        predictor, image, [replace(answers[0], mask=left), replace(answers[1], mask=right), answers[2]]
    )
    half = predictor.vectors(["the cat"]).shape[1]
    assert np.array_equal(one[:half], other[:half])
    assert not np.allclose(one[half:], other[half:], atol=1e-3)
    assert not np.allclose(one[:half], third[:half], atol=1e-3)


def test_of_an_empty_mask_the_whole_photo_counts(predictor: Predictor) -> None:
    image = predictor.embed(photo())
    [answer] = predictor.segment(image, ["the cat"])
    masks = np.zeros((60, 90), bool), np.ones((60, 90), bool)
    none, everything = embed(predictor, image, [replace(answer, mask=mask) for mask in masks])
    assert np.allclose(none, everything, atol=1e-2)


def test_disagreement_depends_on_the_seed_alone(predictor: Predictor) -> None:
    images = [predictor.embed(photo(seed=seed)) for seed in range(3)]
    together = disagreements(predictor, [(image, PROMPTS) for image in images])
    alone = [found for image in images for found in disagreements(predictor, [(image, PROMPTS)])]
    assert together == pytest.approx(alone, abs=1e-4)
    other = disagreements(predictor, [(images[0], PROMPTS)], seed=PASSES)
    assert other != pytest.approx(alone[:2], abs=1e-6)


def test_a_photo_may_be_asked_twice_at_once(predictor: Predictor) -> None:
    image = predictor.embed(photo())
    one, other = disagreements(predictor, [(image, ["the cat"]), (image, ["the cat"])])
    assert one == pytest.approx(other, abs=1e-5)


def test_the_photos_features_are_left_as_they_are(predictor: Predictor) -> None:
    image = predictor.embed(photo())
    before = [part.clone() for level in image.levels for part in level]
    disagreements(predictor, [(image, PROMPTS)])
    after = [part for level in image.levels for part in level]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_answers_apart_are_measured_by_what_they_share() -> None:
    left, right = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    left[:, :2], right[:, 1:3] = 1, 1

    def answer(mask: np.ndarray, presence: float = 1.0) -> RawPrediction:
        return RawPrediction(mask, presence, 1.0)

    assert disagreement([answer(left), answer(left)]) == 0
    assert disagreement([answer(left), answer(right)]) == pytest.approx(1 - 1 / 3)
    # Found by one, absent by the other; and absent by both.
    assert disagreement([answer(left), answer(left, 0.0)]) == 1
    assert disagreement([answer(left, 0.0), answer(right, 0.0)]) == 0
    assert disagreement([answer(left), answer(left), answer(right)]) == pytest.approx(2 / 3 * 2 / 3)
