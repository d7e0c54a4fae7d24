"""A detector and a mask decoder as one, on tiny published models and on ones that find and draw what they are told."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from zero_shot import tiny
from zero_shot.photos import photo

from ris_core import segmenters
from ris_core.checkpoint_files import OperatingPoint
from ris_core.errors import OutOfMemory
from ris_core.inference.frame import Frame, Image
from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.zero_shot.detector import Boxes, Detector
from ris_core.zero_shot.grounded import Grounded
from ris_core.zero_shot.mask_decoder import MaskDecoder
from ris_core.zero_shot.pixels import fitted_frame, stretched_frame
from ris_core.zero_shot.segmenter import ZeroShotSegmenter

NAMES = [name for name in tiny.names() if "+" in name]
every = pytest.mark.parametrize("name", NAMES)
Load = Callable[[str], ZeroShotSegmenter]


class Told(Detector):
    """Finds the boxes that it is told, whatever is asked."""

    def __init__(self, boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> None:
        super().__init__()
        self.boxes = nn.Parameter(torch.tensor(boxes).reshape(-1, 4))
        self.scores = torch.tensor(scores)
        self.asked: list[str] = []

    def encode(self, images: Sequence[Image]) -> list[tuple[torch.Tensor, ...]]:
        return [(torch.zeros(1),) for _ in images]

    def detect(self, kept: tuple[torch.Tensor, ...], sentences: Sequence[str]) -> list[Boxes]:
        self.asked += sentences
        return [Boxes(self.boxes.detach(), self.scores) for _ in sentences]


class Filling(MaskDecoder):
    """Draws what is inside a box, and a disc around a click."""

    side = 256

    def __init__(self, frame: Callable[[Image, int], Frame]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self._frame, self.drawn = frame, 0

    def frame(self, image: Image) -> Frame:
        return self._frame(image, self.side)

    def embed(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return [pixels[:, :, ::16, ::16]]

    def decode(self, embedding: Any, **prompts: Any) -> tuple[torch.Tensor, torch.Tensor]:
        across = torch.arange(64) * 4 + 2
        masks = []
        self.drawn += len(embedding[0])
        for number in range(len(embedding[0])):
            left, top, right, bottom = prompts["input_boxes"][number, 0]
            inside = ((across >= left) & (across < right))[None] & ((across >= top) & (across < bottom))[:, None]
            masks.append(inside.float() * 20 - 10)
        return torch.stack(masks)[:, None], torch.full((len(masks), 1), 0.8)


def told(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    frame: Callable[[Image, int], Frame] = stretched_frame,
    point: OperatingPoint | None = None,
) -> ZeroShotSegmenter:
    return ZeroShotSegmenter(Grounded(Told(boxes, scores), Filling(frame)), point or OperatingPoint(), "told-1")


def ask(segmenter: ZeroShotSegmenter, prompt: str | Prompt, size: tuple[int, int] = (60, 120)) -> Prediction:
    return segmenter.segment(segmenter.embed(photo(*size)), [prompt])[0]


@pytest.mark.parametrize("frame", [stretched_frame, fitted_frame])
@pytest.mark.parametrize("size", [(60, 120), (240, 80)])
def test_a_box_lands_where_it_is_in_the_photo(frame: Callable[[Image, int], Frame], size: tuple[int, int]) -> None:
    answer = ask(told([[0.5, 0.25, 1.0, 0.75]], [0.9], frame), "dog", size)
    height, width = size
    expected = np.zeros(size, bool)
    expected[height // 4 : height * 3 // 4, width // 2 :] = True
    assert answer.present and (answer.mask & expected).sum() / (answer.mask | expected).sum() > 0.93


def test_a_thing_in_several_boxes_is_one_thing() -> None:
    boxes = [[0.1, 0.1, 0.4, 0.9], [0.1, 0.1, 0.41, 0.9], [0.12, 0.1, 0.4, 0.88], [0.6, 0.1, 0.9, 0.9]]
    segmenter = told(boxes, [0.6, 0.9, 0.5, 0.7])
    answer = ask(segmenter, "dog")
    assert len(answer.things) == 2 and answer.presence == pytest.approx(0.9)
    assert segmenter.network.mask_decoder.drawn == 2
    assert np.array_equal(np.any(list(answer.things), axis=0), answer.mask)


def test_only_what_is_sure_enough_is_drawn_but_all_of_it_counts_for_presence() -> None:
    point = OperatingPoint(instance=0.5, presence=0.3)
    segmenter = told([[0.1, 0.1, 0.4, 0.9], [0.6, 0.1, 0.9, 0.9]], [0.7, 0.4], point=point)
    assert len(ask(segmenter, "dog").things) == 1
    unsure = told([[0.1, 0.1, 0.4, 0.9]], [0.4], point=point)
    answer = ask(unsure, "dog")
    assert answer.presence == pytest.approx(0.4) and not answer.present and not answer.mask.any()
    assert unsure.network.mask_decoder.drawn == 0


@pytest.mark.parametrize("boxes", [[], [[0.5, 0.5, 0.5, 0.9]], [[1.0, 0.2, 1.0, 0.4]]])
def test_nothing_is_absent(boxes: list[list[float]]) -> None:
    answer = ask(told(boxes, [0.9] * len(boxes)), "dog")
    assert not answer.present and not answer.mask.any() and len(answer.things) == 0 and answer.guess == 0.0


def test_of_many_things_the_surest_are_drawn() -> None:
    boxes = [[x / 20, y / 10, (x + 0.9) / 20, (y + 0.9) / 10] for y in range(10) for x in range(20)]
    segmenter = told(boxes, np.linspace(0.4, 0.9, 200).tolist())
    answer = ask(segmenter, "dog", (200, 400))
    assert segmenter.network.mask_decoder.drawn == 64 == len(answer.things)
    assert not answer.mask[:60].any() and answer.mask[150:].mean() > 0.5


def test_sentences_about_one_photo_are_asked_together_and_once() -> None:
    segmenter = told([[0.1, 0.1, 0.4, 0.9]], [0.9])
    image, other = segmenter.embed_all([photo(60, 90), photo(90, 60)])
    raw = segmenter.predict_raw([(image, ["dog"]), (other, ["cat"]), (image, [" dog ", "bird"])])
    assert [one.probability.shape for one in raw] == [(60, 90), (90, 60), (60, 90), (60, 90)]
    assert segmenter.network.detector.asked == ["dog", "bird", "cat"]


def numbers(answer: Prediction) -> list[float]:
    return [answer.presence, answer.quality, answer.score, float(answer.mask.mean()), len(answer.things)]


PLACES = [
    Prompt(points=[Point(0.4, 0.5)]),
    Prompt("the dog", points=[Point(0.4, 0.5), Point(0.9, 0.1, positive=False)]),
    Prompt(box=Box(0.2, 0.1, 0.7, 0.9)),
    Prompt("a cat", box=Box(0.2, 0.1, 0.7, 0.9), points=[Point(0.5, 0.5)]),
    Prompt(mask=np.tri(60, 90, dtype=bool)),
    Prompt(mask=np.tri(60, 90, dtype=bool), points=[Point(0.7, 0.2)]),
]


@every
def test_words_and_places_together_as_alone(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    images = own.embed_all([photo(60, 90, seed=1), photo(60, 90, seed=2)])
    prompts: list[str | Prompt] = ["the dog", "two cats on the left", *PLACES]
    together = own.segment_all([(image, prompts) for image in images])
    for image, answers in zip(images, together, strict=True):
        for prompt, answer in zip(prompts, answers, strict=True):
            [alone] = own.segment(image, [prompt])
            assert numbers(answer) == pytest.approx(numbers(alone), abs=1e-4)
            assert answer.mask.shape == (60, 90) and 0 <= answer.quality <= 1
            assert isinstance(prompt, str) or answer.mask.any()
    assert any(answer.things for answers in together for answer in answers)


@every
def test_words_guide_a_click_on_what_they_found(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    image = own.embed(photo(60, 90))
    [said] = own.segment(image, ["the dog"])
    largest = max(said.things, key=np.count_nonzero)
    row, column = np.argwhere(largest)[np.count_nonzero(largest) // 2]
    click = [Point((column + 0.5) / 90, (row + 0.5) / 60)]
    drawn: list[Any] = []
    draw = own.network.draw
    with mock.patch.object(own.network, "draw", lambda image, pointed: drawn.extend(pointed) or draw(image, pointed)):
        own.segment(image, [Prompt("the dog", points=click), Prompt(points=click)])
    with_words, without = drawn[-2:]
    assert with_words.mask is not None and float(with_words.mask.max()) > -6 and without.mask is None


@every
def test_any_photo(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    for size in [(1, 1), (2, 300), (300, 2)]:
        prompts = ["the dog", Prompt(points=[Point(1, 1)]), Prompt("cat", box=Box(0, 0, 1, 1))]
        answers = own.segment(own.embed(photo(*size)), prompts)
        assert [answer.mask.shape for answer in answers] == [size] * 3 and answers[1].mask.any()


@every
def test_threads_share_it(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    images = [photo(60, 90, seed=seed) for seed in range(4)]

    def answer(number: int) -> list[list[float]]:
        prompts = [f"dog {number}", Prompt(points=[Point(0.1 * number, 0.5)])]
        return [numbers(one) for one in own.segment(own.embed(images[number]), prompts)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(answer, [*range(4)] * 3))
    assert together == [answer(number) for number in range(4)] * 3


@every
def test_features_and_vectors(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    features = own.deepest_features(own.embed(photo(60, 120)))
    assert features.shape == (32, 16, 16) and features.dtype == torch.float32
    assert (features[:, 8:] == 0).all() == name.endswith("+sam")
    assert own.vectors(["a dog", "a cat"]).shape[0] == 2
    assert own.distances(["a dog"], ["a dog", "a car"])[0] == pytest.approx(0, abs=1e-5)


@every
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_says_nearly_the_same(tiny_cache: Path, segmenter: Load, name: str, precision: str) -> None:
    half, full = tiny.load(name, tiny_cache, precision), segmenter(name)
    assert half.network.dtype == getattr(torch, precision) and half.fingerprint != full.fingerprint
    prompts: list[str | Prompt] = ["the dog", *PLACES]
    answers = [own.segment(own.embed(photo(60, 90)), prompts) for own in (half, full)]
    for one, other in zip(*answers, strict=True):
        assert one.presence == pytest.approx(other.presence, abs=0.05)
        # Of random weights the three proposals for a click are about as good as each other.
        assert one.mask.any() == other.mask.any() and np.mean(one.mask ^ other.mask) < (
            0.1 if precision == "float16" else 0.5
        )


@every
def test_loaded_by_its_folder_and_by_its_name(tiny_cache: Path, name: str) -> None:
    folder = tiny.pointer(name, tiny_cache)
    with mock.patch.dict(os.environ, RIS_CACHE=str(tiny_cache)):
        own, same = segmenters.load(folder), segmenters.load(name)
    assert isinstance(own, ZeroShotSegmenter) and own.version == same.version and own.version.startswith(f"{name}-")
    assert own.network.clickable


@every
def test_a_smaller_step_where_memory_runs_out(segmenter: Load, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = segmenter(name)
    image = own.embed(photo(60, 90))
    detect, failed = own.network.detector.detect, []

    def once(kept: Any, sentences: Sequence[str]) -> list[Boxes]:
        if len(sentences) > 1:
            failed.append(len(sentences))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return detect(kept, sentences)

    expected = own.segment(image, ["the dog", "a cat", "a bird"])
    monkeypatch.setattr(own.network.detector, "detect", once)
    answers = own.segment(image, ["the dog", "a cat", "a bird"])
    assert failed and [numbers(one) for one in answers] == [numbers(one) for one in expected]

    def never(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(own.network.detector, "detect", never)
    with pytest.raises(OutOfMemory, match="smaller model"):
        own.segment(image, ["the dog"])
    monkeypatch.setattr(own.network.mask_decoder, "decode", never)
    with pytest.raises(OutOfMemory, match="smaller model"):
        own.segment(image, [Prompt(points=[Point(0.5, 0.5)])])
    monkeypatch.setattr(own.network.mask_decoder, "embed", never)
    with pytest.raises(OutOfMemory, match="smaller model"):
        own.embed(photo(60, 90))
