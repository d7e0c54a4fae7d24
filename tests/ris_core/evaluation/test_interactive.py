"""The figures of clicks and boxes, taken of answers that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapes

from ris_core.data import read_folder
from ris_core.errors import DatasetError
from ris_core.evaluation.interactive import (
    ClickReport,
    Thing,
    ThingFigures,
    evaluate_clicks,
    grabcut,
    measure,
    things_of,
)
from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Box, Prompt, box_of
from ris_core.masks import Mask, iou


class Annotated:
    """Answers a click with a half of the thing, a second with the whole of it; a box with nothing."""

    def __init__(self, truth: Mask) -> None:
        self.truth, self.half = truth, truth.copy()
        self.half[:, truth.shape[1] // 2 :] = False
        self.asked: list[Prompt] = []

    def segment(self, image: object, prompts: list[str | Prompt]) -> list[Prediction]:
        return [self.answer(Prompt(prompt) if isinstance(prompt, str) else prompt) for prompt in prompts]

    def answer(self, prompt: Prompt) -> Prediction:
        self.asked.append(prompt)
        mask = np.zeros_like(self.truth)
        if prompt.points or prompt.sentence:
            mask = self.truth if len(prompt.points) + bool(prompt.sentence) > 1 else self.half
        return Prediction(prompt.sentence, mask, True, 1.0, 0.75, 0.75)


@pytest.fixture
def truth() -> Mask:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:40] = True
    return mask


def test_clicks_go_where_the_answer_was_wrong_until_it_is_right(truth: Mask) -> None:
    annotated = Annotated(truth)
    [figures] = measure(annotated, None, [Thing(truth, "the square")])  # type: ignore[arg-type]
    assert figures.clicks == (0.5, 1.0, 1.0, 1.0, 1.0)
    assert figures.scores == (0.75,) * 5
    assert (figures.box, figures.words, figures.worded_click) == (0.0, 0.5, 1.0)
    first, second, third = [prompt for prompt in annotated.asked if prompt.points and not prompt.sentence][:3]
    assert first.mask is None and len(first.points) == 1
    assert second.points[1].x > 0.5 and second.points[1].positive
    # Nothing is wrong any more: nobody clicks.
    assert len(third.points) == 2


def test_a_report_tells_means_and_leaves_what_has_no_sentence_out_of_words() -> None:
    nan = float("nan")
    spoken = ThingFigures((0.2, 0.4, 0.6, 0.8, 1.0), (0.2, 0.4, 0.6, 0.8, 1.0), 0.5, 0.3, 0.7)
    mute = ThingFigures((0.4, 0.4, 0.8, 0.8, 0.8), (0.4, 0.4, 0.8, 0.8, 0.8), 0.7, nan, nan)
    figures = ClickReport([spoken, mute]).figures
    assert figures["things"] == 2
    expected = {"1 click": 0.3, "3 clicks": 0.7, "5 clicks": 0.9, "box": 0.6, "words": 0.3, "words + click": 0.7}
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert figures["ECE"] == pytest.approx(0)


def test_every_object_once_by_itself(tmp_path: Path) -> None:
    samples = read_folder(shapes.make(tmp_path, photos=2))
    both = replace(samples[0], segmentations=tuple(s for one in samples[:2] for s in one.segmentations))
    photos = list(things_of([both, *samples]))
    assert len(photos) == 2
    for _, things in photos:
        assert len(things) == 2
        assert not (things[0].mask & things[1].mask).any()
    assert not list(things_of(samples, least=0.5))


def test_no_object_no_figures(tmp_path: Path) -> None:
    samples = [sample for sample in read_folder(shapes.make(tmp_path, photos=1)) if not sample.has_target]
    with pytest.raises(DatasetError, match="nothing to click on"):
        evaluate_clicks(None, samples)  # type: ignore[arg-type]


def test_the_box_is_tight(truth: Mask) -> None:
    assert box_of(truth) == Box(20 / 60, 10 / 40, 40 / 60, 30 / 40)


def test_grabcut_finds_what_its_colour_sets_apart(truth: Mask) -> None:
    image = np.full((40, 60, 3), 90, np.uint8) + np.random.default_rng(0).integers(0, 20, (40, 60, 3), dtype=np.uint8)
    image[truth] = (230, 30, 30)
    assert iou(grabcut(image, Box(0.25, 0.15, 0.75, 0.85)), truth) > 0.9
    assert grabcut(image, Box(0, 0, 1, 1)).all()
