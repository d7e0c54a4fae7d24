"""Prompts that point: there is always a mask, where it was pointed at, in the photo's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ris_core.checkpoint_files import OperatingPoint
from ris_core.errors import PromptError
from ris_core.inference.frame import Frame, to_grid
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.inference.segmenter import PreparedImage
from ris_core.models.interactive import InteractiveOutput, VisualPrompts
from ris_core.models.lda import LDA

CLICK = Point(0.25, 0.75)


@pytest.fixture
def predictor(untrained: LDA) -> Predictor:
    untrained.add_interactive()
    return Predictor(untrained, OperatingPoint(side=96, mask=0.5, presence=0.0), "test")


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(96, 96), (240, 320), (320, 241), (30, 7), (1, 1), (50, 900)])
@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(points=[CLICK]),
        Prompt(points=[CLICK, Point(0.0, 0.0, positive=False), Point(1.0, 1.0)]),
        Prompt(box=Box(0.2, 0.2, 0.8, 0.9)),
        Prompt("the cat", [CLICK]),
        Prompt(points=[Point(0.5, 0.5, positive=False)]),
    ],
    ids=["click", "clicks", "box", "words and click", "beside alone"],
)
def test_there_is_always_a_mask_of_the_photos_size(predictor: Predictor, prompt: Prompt, size: tuple[int, int]) -> None:
    (answer,) = predictor.segment(predictor.embed(photo(*size)), [prompt])
    assert answer.mask.shape == size
    assert answer.present and answer.mask.any()
    assert 0 <= answer.score <= 1
    assert answer.prompt == prompt.sentence


def test_answers_come_in_the_order_of_the_prompts(predictor: Predictor) -> None:
    image = predictor.embed(photo(64, 96))
    prompts = ["the cat", Prompt(points=[CLICK]), "the cup", Prompt("the dog", [CLICK])]
    together = predictor.segment(image, prompts)
    assert [answer.prompt for answer in together] == ["the cat", "", "the cup", "the dog"]
    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = predictor.segment(image, [prompt])
        assert alone.score == pytest.approx(answer.score, abs=1e-4)
        assert (alone.mask != answer.mask).mean() < 1e-3


def test_photos_are_answered_together_and_each_for_itself(predictor: Predictor) -> None:
    images = [predictor.embed(photo(64, 96)), predictor.embed(photo(96, 64)), predictor.embed(photo(48, 96)[:, ::-1])]
    prompt = Prompt(points=[CLICK], mask=None)
    together = predictor.segment_all([(image, [prompt]) for image in images])
    for image, (answer,) in zip(images, together, strict=True):
        (alone,) = predictor.segment(image, [prompt])
        assert (alone.mask != answer.mask).mean() < 1e-3


def test_an_empty_sentence_is_no_mistake_beside_a_click(predictor: Predictor) -> None:
    image = predictor.embed(photo(40, 40))
    predictor.segment(image, [Prompt(" ", [CLICK])])
    with pytest.raises(PromptError, match="empty"):
        predictor.segment(image, [Prompt(" ")])


def test_a_model_that_was_never_trained_with_clicks_says_so(untrained: LDA) -> None:
    predictor = Predictor(untrained, OperatingPoint(side=96), "test")
    with pytest.raises(PromptError, match="train-clicks"):
        predictor.segment(predictor.embed(photo(40, 40)), [Prompt(points=[CLICK])])


class Recorder(torch.nn.Module):
    """Stands in for the decoder, to see what it is asked; answers with one certain cell, or with none."""

    def __init__(self, likely: bool = True) -> None:
        super().__init__()
        self.asked: list[VisualPrompts] = []
        self.likely = likely

    def forward(self, embedding: object, prompts: VisualPrompts, index: torch.Tensor) -> InteractiveOutput:
        self.asked.append(prompts)
        mask = torch.full_like(prompts.mask, -6.0)
        # The cells around the click below, in a photo of 64 x 96 read at 96 pixels.
        mask[:, :, 11:13, 5:7] = 6.0 if self.likely else -5.0
        return InteractiveOutput(mask, torch.zeros(len(prompts)))


def ask(predictor: Predictor, recorder: Recorder, *prompts: Prompt) -> tuple[VisualPrompts, list[np.ndarray]]:
    predictor.model.add_interactive()
    image: PreparedImage = predictor.embed(photo(64, 96))
    predictor.model.interactive = recorder  # type: ignore[assignment]
    answers = predictor.segment(image, prompts)
    return recorder.asked[-1], [answer.mask for answer in answers]


def test_places_reach_the_decoder_in_pixels_of_the_canvas(predictor: Predictor) -> None:
    asked, _ = ask(
        predictor, Recorder(), Prompt(points=[CLICK, Point(1.0, 0.0, positive=False)], box=Box(0, 0.5, 0.5, 1))
    )
    assert asked.points[0].tolist() == [[24.0, 48.0], [96.0, 0.0]]
    assert asked.labels[0].tolist() == [1, 0]
    assert asked.boxes[0].tolist() == [0.0, 32.0, 48.0, 64.0]
    assert not asked.mask.any()


def test_what_the_words_found_is_the_earlier_answer_unless_a_mask_is(predictor: Predictor) -> None:
    mask = np.zeros((64, 96), dtype=bool)
    mask[:32] = True
    asked, _ = ask(
        predictor, Recorder(), Prompt("the cat", [CLICK]), Prompt("the cat", [CLICK], mask=mask), Prompt(points=[CLICK])
    )
    words, unsaid, masked, nothing = asked.mask
    assert words.std() > 0 and words.abs().max() <= 6
    assert masked[0, :8].eq(4).all() and masked[0, 8:].eq(-4).all()
    assert not nothing.any()
    # Words may have found another thing than was clicked on.
    assert not unsaid.any()


def test_the_likelier_of_what_words_and_a_click_alone_give_is_answered(predictor: Predictor) -> None:
    class Torn(Recorder):
        def forward(self, embedding: object, prompts: VisualPrompts, index: torch.Tensor) -> InteractiveOutput:
            self.asked.append(prompts)
            worded = prompts.mask.flatten(1).any(dim=1)
            mask = torch.where(worded[:, None, None, None], 6.0, -6.0).expand_as(prompts.mask).clone()
            mask[:, :, 11:13, 5:7] = 6.0
            return InteractiveOutput(mask, torch.where(worded, 2.0, self.alone))

        alone = 3.0

    torn = Torn()
    _, (alone,) = ask(predictor, torn, Prompt("the cat", [CLICK]))
    torn.alone = 1.0
    _, (words,) = ask(predictor, torn, Prompt("the cat", [CLICK]))
    assert alone.mean() < 0.1 and words.all()


def test_where_nothing_is_likely_the_guess_is_at_the_click(predictor: Predictor) -> None:
    _, (certain,) = ask(predictor, Recorder(), Prompt(points=[CLICK]))
    _, (guess,) = ask(predictor, Recorder(likely=False), Prompt(points=[CLICK]))
    assert certain[48, 24] and guess[48, 24]
    assert guess.mean() < 0.1


def test_a_photos_cells_lie_where_its_pixels_do() -> None:
    frame = Frame((64, 96), (48, 96), (96, 192))
    values = np.zeros((96, 192), np.float32)
    values[:8, :16] = 1
    cells = to_grid(values, frame)
    assert cells.shape == (16, 24)
    assert cells[0, :2].tolist() == [1, 1] and cells.sum() == pytest.approx(2, abs=0.01)
    assert not cells[12:].any()
