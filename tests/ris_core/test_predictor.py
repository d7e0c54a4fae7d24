"""Photos of any shape, prompts of any kind, many threads: one answer a prompt, at the photo's size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ris_core.checkpoint import OperatingPoint
from ris_core.errors import PromptError
from ris_core.models import LDA
from ris_core.predictor import Predictor, _to_photo


@pytest.fixture
def predictor(untrained: LDA) -> Predictor:
    return Predictor(untrained, OperatingPoint(side=96, mask=0.5, presence=0.0), "test")


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(96, 96), (480, 640), (640, 481), (30, 7), (1, 1), (50, 900)])
def test_masks_have_the_photos_size(predictor: Predictor, size: tuple[int, int]) -> None:
    embedding = predictor.embed(photo(*size))
    found = predictor.segment(embedding, ["the cat", "the cup"])
    assert [each.prompt for each in found] == ["the cat", "the cup"]
    for each in found:
        assert each.mask.shape == size
        assert each.mask.dtype == bool
        assert 0 <= each.score <= 1


def test_no_prompt_no_answer(predictor: Predictor) -> None:
    assert predictor.segment(predictor.embed(photo(20, 20)), []) == []


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(predictor: Predictor, prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        predictor.segment(predictor.embed(photo(20, 20)), ["the cat", prompt])


def test_more_prompts_than_fit_one_batch(predictor: Predictor) -> None:
    embedding = predictor.embed(photo(64, 96))
    prompts = [f"thing number {number}" for number in range(35)]
    together = predictor.probabilities(embedding, prompts)
    alone = predictor.probabilities(embedding, prompts[33:34])
    assert len(together) == 35
    assert np.allclose(together[33][0], alone[0][0], atol=1e-4)


def test_white_space_does_not_matter(predictor: Predictor) -> None:
    embedding = predictor.embed(photo(64, 96))
    first, second = predictor.probabilities(embedding, ["the  cat ", "the cat"])
    assert np.array_equal(first[0], second[0])


def test_what_is_not_there_gets_no_mask(untrained: LDA) -> None:
    predictor = Predictor(untrained, OperatingPoint(side=96, mask=0.0, presence=1.1), "test")
    (found,) = predictor.segment(predictor.embed(photo(40, 40)), ["the cat"])
    assert not found.present
    assert not found.mask.any()


def test_threads_give_the_serial_answers(predictor: Predictor) -> None:
    work = [(photo(40 + 8 * number, 64, number), f"thing {number}") for number in range(8)]

    def answer(item: tuple[np.ndarray, str]) -> np.ndarray:
        return predictor.probabilities(predictor.embed(item[0]), [item[1]])[0][0]

    serial = [answer(item) for item in work]
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(serial, pool.map(answer, work), strict=True):
            assert np.allclose(expected, found, atol=1e-4)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 500)])
def test_masks_lie_where_the_logits_are(predictor: Predictor, size: tuple[int, int]) -> None:
    """A blob painted into the logits comes out at the same relative place, padding left out."""
    embedding = predictor.embed(photo(*size))
    logits = torch.full((1, 1, embedding.canvas[0] // 4, embedding.canvas[1] // 4), -20.0)
    rows, columns = embedding.inner[0] // 4, embedding.inner[1] // 4
    logits[..., rows // 4 : rows // 2, columns // 2 :] = 20.0
    (probability,) = _to_photo(logits, embedding)
    expected = np.zeros(size, dtype=bool)
    expected[size[0] // 4 : size[0] // 2, size[1] // 2 :] = True
    found = probability > 0.5
    assert (found & expected).sum() / (found | expected).sum() > 0.85
