"""Masks made where the logits are, against those that OpenCV makes of fetched probabilities."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ris_core.checkpoint_files import OperatingPoint
from ris_core.inference import readout
from ris_core.inference.frame import Frame
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.inference.readout import Heard
from ris_core.models.lda import LDA

# Of all pixels of a mask, so many may lie on the other side of the threshold: those that are on it but for rounding.
_ON_THE_EDGE = 1e-5
SIZES = [(480, 640), (640, 480), (333, 501), (96, 96), (37, 53), (30, 7), (1, 1), (3, 900), (1200, 1600)]


def frame(size: tuple[int, int], side: int = 384) -> Frame:
    return Frame.of(np.zeros((*size, 3), np.uint8), side, False)


def smooth(where: Frame, seed: int = 0) -> Tensor:
    """Logits as decoders give them: hills and valleys, many edges."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = where.canvas[0] // 4, where.canvas[1] // 4
    noise = torch.randn(1, 1, max(2, rows // 6), max(2, columns // 6), generator=generator)
    return 6 * F.interpolate(noise, size=(rows, columns), mode="bicubic", align_corners=False)[0]


def heard(size: tuple[int, int], seed: int = 0) -> Heard:
    where = frame(size)
    return Heard(smooth(where, seed), torch.zeros(2), where)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.83])
@pytest.mark.parametrize("size", SIZES)
def test_masks_are_those_of_opencv(size: tuple[int, int], threshold: float) -> None:
    answers = [heard(size, seed) for seed in range(3)]
    for mask, probability in zip(readout.masks(answers, threshold), readout.probabilities(answers), strict=True):
        assert mask.dtype == np.bool_
        assert mask.shape == probability.shape == size
        assert (mask != (probability >= threshold)).mean() <= _ON_THE_EDGE


def test_photos_of_many_sizes_come_back_in_order() -> None:
    answers = [heard(size, seed) for seed in range(3) for size in SIZES[:6]]
    for mask, one in zip(readout.masks(answers, 0.5), answers, strict=True):
        [alone] = readout.masks([one], 0.5)
        assert np.array_equal(mask, alone)
    assert len({mask.tobytes() for mask in readout.masks(answers, 0.5)}) > 10


def test_huge_photos_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [heard((96, 96), seed) for seed in range(5)]
    together = readout.masks(answers, 0.5)
    monkeypatch.setattr(readout, "_PIXELS", 2 * 96 * 96)
    for one, other in zip(together, readout.masks(answers, 0.5), strict=True):
        assert np.array_equal(one, other)


def test_of_nothing_comes_nothing() -> None:
    assert readout.masks([], 0.5) == readout.probabilities([]) == []


def test_half_precision_logits_are_read_in_float32() -> None:
    one = heard((480, 640))
    [full], [half] = readout.masks([one], 0.5), readout.masks([one._replace(logits=one.logits.half())], 0.5)
    assert (full != half).mean() < 1e-3
    [same] = readout.masks([one._replace(logits=one.logits.half().float())], 0.5)
    assert np.array_equal(half, same)


@pytest.fixture
def pair(untrained: LDA) -> tuple[Predictor, Predictor]:
    """One that makes masks by OpenCV, and one that makes them where the model is."""
    untrained.add_interactive()
    point = OperatingPoint(side=96, mask=0.45, presence=0.3)
    usual, other = (Predictor(untrained, point, "test", "float32") for _ in range(2))
    usual.masks_on_device, other.masks_on_device = False, True
    return usual, other


def test_a_predictor_gives_the_same_answers_either_way(pair: tuple[Predictor, Predictor]) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((48, 64), (64, 48), (48, 64), (200, 90))]
    box, click = Box(0.2, 0.2, 0.6, 0.7), Point(0.4, 0.4)
    prompts = ["the cat", "the cup", Prompt(points=[click]), Prompt(box=box), Prompt("the cat", [click])]
    usual, other = (by.segment_all([(image, prompts) for image in by.embed_all(images)], ["the cup"]) for by in pair)
    for one, same in zip(chain.from_iterable(usual), chain.from_iterable(other), strict=True):
        assert replace(one, mask=None) == replace(same, mask=None)  # type: ignore[arg-type]
        assert (one.mask != same.mask).mean() <= 1e-3


def test_where_nothing_is_likely_a_click_still_has_its_mask(pair: tuple[Predictor, Predictor]) -> None:
    masks = []
    for by in pair:
        torch.nn.init.constant_(by.model.interactive.to_mask.bias, -9.0)
        [answer] = by.segment(by.embed(np.full((40, 50, 3), 99, np.uint8)), [Prompt(points=[Point(0.5, 0.5)])])
        masks.append(answer.mask)
    assert masks[0].any()
    assert np.array_equal(*masks)


def test_probabilities_stay_whole_for_who_asks_for_them(pair: tuple[Predictor, Predictor]) -> None:
    raws = [by.predict_raw([(by.embed(np.full((40, 50, 3), 99, np.uint8)), ["the cat"])])[0] for by in pair]
    assert raws[1].mask is None
    assert np.array_equal(raws[0].probability, raws[1].probability)
    assert raws[0][1:] == raws[1][1:]
