"""Photos of any shape, prompts of any kind, many threads: one answer a prompt, at the photo's size."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.projects.samples import corrections, photos
from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint, shipped
from ris_core.encoders.base import TextFeatures
from ris_core.errors import OutOfMemory, PromptError
from ris_core.images import read_image
from ris_core.inference.calibration import belief, corrected
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.predictor import Precision, Predictor
from ris_core.inference.segmenter import decide
from ris_core.models.base import ImageEmbedding
from ris_core.models.lda import LDA
from ris_core.models.output import Output
from ris_core.tuning import Tuning


@pytest.fixture
def predictor(untrained: LDA) -> Predictor:
    return Predictor(untrained, OperatingPoint(side=96, mask=0.5, presence=0.0), "test")


def assert_alike(one: RawPrediction, other: RawPrediction) -> None:
    assert np.allclose(one.probability, other.probability, atol=1e-4)
    assert (one.presence, one.quality) == pytest.approx((other.presence, other.quality), abs=1e-4)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(96, 96), (480, 640), (640, 481), (30, 7), (1, 1), (50, 900)])
def test_masks_have_the_photos_size(predictor: Predictor, size: tuple[int, int]) -> None:
    embedding = predictor.embed(photo(*size))
    predictions = predictor.segment(embedding, ["the cat", "the cup"])
    assert [prediction.prompt for prediction in predictions] == ["the cat", "the cup"]
    for prediction in predictions:
        assert prediction.mask.shape == size
        assert prediction.mask.dtype == bool
        assert 0 <= prediction.score <= 1


def test_no_prompt_no_answer(predictor: Predictor) -> None:
    assert predictor.segment(predictor.embed(photo(20, 20)), []) == []


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(predictor: Predictor, prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        predictor.segment(predictor.embed(photo(20, 20)), ["the cat", prompt])


def test_more_prompts_than_fit_one_batch(predictor: Predictor) -> None:
    embedding = predictor.embed(photo(64, 96))
    prompts = [f"thing number {number}" for number in range(35)]
    together = predictor.predict_raw([(embedding, prompts)])
    (alone,) = predictor.predict_raw([(embedding, prompts[33:34])])
    assert len(together) == 35
    assert_alike(together[33], alone)


def test_white_space_does_not_matter(predictor: Predictor) -> None:
    embedding = predictor.embed(photo(64, 96))
    first, second = predictor.predict_raw([(embedding, ["the  cat ", "the cat"])])
    assert np.array_equal(first.probability, second.probability)


def test_what_is_not_there_gets_no_mask(untrained: LDA) -> None:
    predictor = Predictor(untrained, OperatingPoint(side=96, mask=0.0, presence=1.1), "test")
    (prediction,) = predictor.segment(predictor.embed(photo(40, 40)), ["the cat"])
    assert not prediction.present
    assert not prediction.mask.any()


def test_threads_give_the_serial_answers(predictor: Predictor) -> None:
    work = [(photo(40 + 8 * number, 64, number), [f"thing {number}", "the cat"]) for number in range(16)]

    def answer(item: tuple[np.ndarray, list[str]]) -> list[RawPrediction]:
        return predictor.predict_raw([(predictor.embed(item[0]), item[1])])

    with ThreadPoolExecutor(16) as pool:
        threaded = list(pool.map(answer, work))
    # A predictor that remembers no sentence.
    serial = [
        Predictor(predictor.model, predictor.point, "test").predict_raw([(predictor.embed(i), p)]) for i, p in work
    ]
    for expected, results in zip(serial, threaded, strict=True):
        for one, other in zip(expected, results, strict=True):
            assert_alike(one, other)


def test_many_photos_and_prompts_in_one_call(predictor: Predictor) -> None:
    images = [photo(64, 96, 1), photo(96, 64, 2), photo(64, 96, 3), photo(30, 90, 4)]
    prompts = [["the cat"], ["a cup", "the dog on the left"], [], ["the cat", "the cat", "x"]]
    requests = list(zip(predictor.embed_all(images), prompts, strict=True))
    together = predictor.segment_all(requests)
    assert [[prediction.prompt for prediction in predictions] for predictions in together] == prompts
    for image, own, predictions in zip(images, prompts, together, strict=True):
        alone = predictor.predict_raw([(predictor.embed(image), own)])
        for one, other in zip(predictions, alone, strict=True):
            assert one.mask.shape == image.shape[:2]
            assert (one.presence, one.quality) == pytest.approx((other.presence, other.quality), abs=1e-4)
            assert (one.mask != (other.probability >= predictor.point.mask)).mean() < 0.001


def test_the_score_is_the_iou_to_expect() -> None:
    point = OperatingPoint(mask=0.5, presence=0.4)
    raw = RawPrediction(np.ones((2, 2), np.float32), 0.8, 0.5)
    assert decide("x", raw, point).score == pytest.approx(0.8 * 0.5)
    assert decide("x", raw._replace(presence=0.1), point).score == pytest.approx(0.9)
    # A mask without a pixel is a refusal too.
    assert decide("x", raw._replace(probability=0 * raw.probability), point).score == pytest.approx(0.2)


def test_a_guess_is_held_back_but_on_request() -> None:
    point = OperatingPoint(mask=0.5, presence=0.4, answer_shift=-1)
    refused = decide("x", RawPrediction(np.ones((2, 2), np.float32), 0.2, 0.5), point)
    assert (refused.present, refused.mask.any()) == (False, False)
    assert refused.guess == corrected(0.2 * 0.5, 1, -1)
    shown = decide("x", RawPrediction(np.ones((2, 2), np.float32), 0.2, 0.5), point, guessed=True)
    assert (shown.present, shown.mask.all(), shown.score) == (True, True, shown.guess)
    assert shown.guess == refused.guess
    # Where it is there, or where there is no pixel of it, nothing is guessed.
    sure = decide("x", RawPrediction(np.ones((2, 2), np.float32), 0.9, 0.5), point, guessed=True)
    nothing = decide("x", RawPrediction(np.zeros((2, 2), np.float32), 0.2, 0.5), point, guessed=True)
    assert (sure.present, sure.guess, nothing.present, nothing.guess) == (True, 0.0, False, 0.0)


def test_the_operating_point_corrects_masks_and_refusals_apart(predictor: Predictor) -> None:
    raw = RawPrediction(np.ones((2, 2), np.float32), 0.8, 0.5)
    point = OperatingPoint(answer_scale=0.5, answer_shift=-1, refusal_scale=2, refusal_shift=1)
    assert decide("x", raw, point).score == corrected(0.8 * 0.5, 0.5, -1) < 0.3
    assert decide("x", raw._replace(presence=0.25), point).score == corrected(0.75, 2, 1) > 0.9
    # And so it reaches whoever asks a predictor.
    image = predictor.embed(photo(64, 96))
    (plain,) = predictor.segment(image, ["the cat"])
    predictor.point = replace(predictor.point, answer_shift=0.5, refusal_shift=0.5)
    assert predictor.segment(image, ["the cat"])[0].score == pytest.approx(corrected(plain.score, 1, 0.5))


def test_a_sentence_lies_as_far_from_the_names_as_from_the_nearest(predictor: Predictor) -> None:
    asked = ["the cat", "a cat", "the left guy, not the one in red"]
    assert predictor.distances(asked, []) == [0.0, 0.0, 0.0]
    same, near, far = predictor.distances(asked, ["the cat", "the dog"])
    assert same == pytest.approx(0, abs=1e-5)
    assert same < near < 0.2 < far < 2
    assert predictor.distances(asked, ["the dog"])[0] > near
    predictor.point = replace(predictor.point, names=["the cat"], doubt=3.0, presence=1.1)
    image = predictor.embed(photo(64, 96))
    known, unknown = predictor.segment(image, [asked[0], asked[2]])
    raw = [1 - answer.presence for answer in (known, unknown)]
    assert known.score == pytest.approx(raw[0], abs=1e-4)
    assert unknown.score == pytest.approx(raw[1] * belief(predictor.distances(asked, ["the cat"])[2], 3), abs=1e-4)


def test_the_fingerprint_covers_whatever_shapes_an_embedding(untrained: LDA) -> None:
    def fingerprint(point: OperatingPoint, precision: Precision = "float32") -> str:
        return Predictor(untrained, point, "same", precision).fingerprint

    point = OperatingPoint(side=96)
    usual = fingerprint(point)
    fingerprints = {usual, fingerprint(OperatingPoint(side=64)), fingerprint(point, "bfloat16")}
    # An operating point's thresholds shape no embedding.
    assert fingerprint(OperatingPoint(side=96, mask=0.1)) == fingerprint(point) == usual
    for number in range(3):
        with torch.no_grad():
            [*untrained.parameters()][7 * number].view(-1)[0] += 1e-3
        fingerprints.add(fingerprint(point))
    assert len(fingerprints) == 6


def test_the_fingerprint_covers_adapters(untrained: LDA) -> None:
    model = LDA(untrained.image_encoder, untrained.text_encoder, tuning=Tuning("adapters"))
    before = Predictor(model, OperatingPoint(side=96), "same").fingerprint
    with torch.no_grad():
        next(weight for name, weight in model.image_encoder.named_parameters() if "lora_B" in name).fill_(0.5)
    assert Predictor(model, OperatingPoint(side=96), "same").fingerprint != before


def test_half_precision_gives_the_same_masks() -> None:
    """float16 against float32 on real photos with the shipped weights, of what is found: mean IoU 0.98, least 0.9.

    Without the listener: which of several things is meant is yes or no, and may turn on the last digit.
    """
    model, point = checkpoint.load(shipped(), merged=True)
    full, half = (Predictor(model, point, "test", precision) for precision in ("float32", "float16"))
    ious = []
    for name, data in photos():
        prompts = [each.prompts[0] for each in corrections() if each.photo == name]
        answers = [each.predict_raw([(each.embed(read_image(data)), prompts)]) for each in (full, half)]
        for one, other in zip(*answers, strict=True):
            first, second = one.probability >= 0.5, other.probability >= 0.5
            assert abs(one.presence - other.presence) < 0.02
            if first.any() and one.presence >= full.point.presence:
                ious.append((first & second).sum() / (first | second).sum())
    assert len(ious) > 10
    assert np.mean(ious) > 0.98
    assert min(ious) > 0.9


class Hungry:
    """A decoder that fails as torch does when memory runs out, if there are more than `most` prompts at once."""

    def __init__(self, forward: Callable[..., Output], most: int, error: Exception) -> None:
        self.forward, self.most, self.error = forward, most, error
        self.seen: list[int] = []

    def __call__(self, photos: ImageEmbedding, text: TextFeatures, index: torch.Tensor) -> Output:
        self.seen.append(len(index))
        if len(index) > self.most:
            raise self.error
        return self.forward(photos, text, index)


def no_memory() -> Exception:
    """What torch really raises on a CPU."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), no_memory()], ids=["gpu", "cpu"])
def test_out_of_memory_means_a_smaller_batch(
    predictor: Predictor, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, prompts = predictor.embed(photo(64, 96)), [f"thing {number}" for number in range(20)]
    expected = predictor.predict_raw([(image, prompts)])
    hungry = Hungry(predictor.model.forward, 3, error)
    monkeypatch.setattr(predictor.model, "forward", hungry)
    halved = predictor.predict_raw([(image, prompts)])
    assert hungry.seen[:4] == [20, 10, 5, 2]
    for one, other in zip(expected, halved, strict=True):
        assert_alike(one, other)
    hungry.most = 0
    with pytest.raises(OutOfMemory, match="smaller model or side"):
        predictor.predict_raw([(image, prompts)])


def test_another_error_is_not_taken_for_memory(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    hungry = Hungry(predictor.model.forward, 0, RuntimeError("shapes cannot be multiplied"))
    monkeypatch.setattr(predictor.model, "forward", hungry)
    with pytest.raises(RuntimeError, match="multiplied"):
        predictor.predict_raw([(predictor.embed(photo(32, 32)), ["x"])])


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 500)])
def test_masks_lie_where_the_logits_are(
    predictor: Predictor, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob painted into the logits comes out at the same relative place, padding left out."""
    embedding = predictor.embed(photo(*size))
    logits = torch.full((1, 1, embedding.frame.canvas[0] // 4, embedding.frame.canvas[1] // 4), -20.0)
    rows, columns = embedding.frame.inner[0] // 4, embedding.frame.inner[1] // 4
    logits[..., rows // 4 : rows // 2, columns // 2 :] = 20.0
    output = Output(logits, torch.zeros(1), torch.zeros(1))
    monkeypatch.setattr(predictor.model, "forward", lambda *_: output)
    (raw,) = predictor.predict_raw([(embedding, ["the blob"])])
    expected = np.zeros(size, dtype=bool)
    expected[size[0] // 4 : size[0] // 2, size[1] // 2 :] = True
    mask = raw.probability > 0.5
    assert (mask & expected).sum() / (mask | expected).sum() > 0.85
