"""Touching things come apart, the likeliest subset is chosen, and a predictor answers the one that is meant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders.base import TextFeatures
from ris_core.inference.choosing import Chooser, appearance, expect, pieces
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA
from ris_core.models.listener import Choice, Listener
from ris_core.models.output import Output


def blobs(*centres: tuple[float, float], size: tuple[int, int] = (120, 160), radius: float = 22) -> np.ndarray:
    """Probabilities that fall from each centre (column, row)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distances = [np.hypot(columns - x, rows - y) for x, y in centres]
    return (1 / (1 + np.exp((np.min(distances, axis=0) - radius) / 4))).astype(np.float32)


def raw(probability: np.ndarray, presence: float = 0.8) -> RawPrediction:
    return RawPrediction(probability, presence, 0.5)


class Leftmost(Listener):
    """Means the candidate that begins furthest to the left, whatever is said."""

    def forward(self, boxes: torch.Tensor, absent: torch.Tensor, text: TextFeatures) -> Choice:
        return Choice(-50 * boxes[..., 0], torch.full((len(boxes),), -9.0))


@pytest.fixture(scope="module")
def chooser() -> Chooser:
    return Chooser(Leftmost())


def ask(chooser: Chooser, sentence: str, said: RawPrediction, named: RawPrediction | None = None) -> RawPrediction:
    with torch.inference_mode():
        return chooser.choose(sentence, chooser.text_encoder([sentence]), said, named, 0.5)


@pytest.mark.parametrize("apart", [60, 40])
def test_things_come_apart_where_they_touch_too(apart: int) -> None:
    left, right = sorted(
        pieces(blobs((50, 60), (50 + apart, 60)), 0.5), key=lambda mask: np.flatnonzero(mask.any(0))[0]
    )
    assert not (left & right).any()
    assert np.array_equal(left | right, blobs((50, 60), (50 + apart, 60)) >= 0.5)
    assert left[60, 40]
    assert right[60, 60 + apart]


def test_one_thing_stays_whole_and_nothing_is_nothing() -> None:
    assert len(pieces(blobs((60, 60)), 0.5)) == 1
    assert pieces(np.zeros((40, 50), np.float32), 0.5) == []
    assert pieces(np.full((1, 3), 0.9, np.float32), 0.5)[0].all()


def test_specks_are_no_candidates() -> None:
    probability = blobs((60, 60))
    probability[5:7, 5:7] = 0.9
    assert len(pieces(probability, 0.5)) == 1


def test_the_surer_the_listener_the_fewer_are_answered() -> None:
    areas = np.array([4.0, 4.0, 4.0])
    assert expect(np.array([0.8, 0.1, 0.1]), 0.0, areas).chosen == (0,)
    assert set(expect(np.array([0.8, 0.1, 0.1]), 0.9, areas).chosen) == {0, 1, 2}
    sure, unsure = expect(np.array([0.9, 0.1]), 0.0, areas[:2]), expect(np.array([0.6, 0.4]), 0.0, areas[:2])
    assert sure.expected == pytest.approx(0.9)
    assert unsure.expected == pytest.approx(0.6)


def test_appearance_is_the_mean_logit_of_what_is_covered() -> None:
    probability = np.array([[0.9, 0.5, 0.1]], np.float32)
    assert appearance(probability, np.array([[True, True, False]])) == pytest.approx(np.log(9) / 2, abs=1e-4)


def test_a_sentence_of_a_place_means_one(chooser: Chooser) -> None:
    both = blobs((40, 60), (120, 60))
    answer = ask(chooser, "left dog", raw(both), raw(both))
    assert np.array_equal(answer.probability >= 0.5, blobs((40, 60)) >= 0.5)
    assert answer.quality < 0.5


@pytest.mark.parametrize("sentence", ["dog", "the red dog", "dog with a collar"])
def test_without_a_place_all_stay(sentence: str, chooser: Chooser) -> None:
    both = raw(blobs((40, 60), (120, 60)))
    assert ask(chooser, sentence, both) is both


def test_the_surer_of_two_names_is_answered(chooser: Chooser) -> None:
    said, named = raw(blobs((40, 60)), presence=0.2), raw(blobs((120, 60)), presence=0.7)
    assert ask(chooser, "bloke", said, named) is named
    assert ask(chooser, "bloke", raw(said.probability, presence=0.9), named).presence == 0.9


@pytest.mark.parametrize("masks_on_device", [False, True])
def test_a_predictor_asks_for_the_kind_and_answers_one(
    untrained: LDA, chooser: Chooser, masks_on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def known(_photos: object, text: TextFeatures, _index: torch.Tensor) -> Output:
        asked.append(len(text))
        probability = torch.from_numpy(blobs((10, 15), (30, 15), size=(32, 40), radius=5.5))
        logits = torch.logit(probability, 1e-6).expand(len(text), 1, -1, -1)
        return Output(logits, torch.full((len(text),), 2.0), torch.zeros(len(text)))

    predictor = Predictor(untrained, OperatingPoint(side=160, mask=0.5, presence=0.1), "test", "float32", chooser)
    predictor.masks_on_device = masks_on_device
    monkeypatch.setattr(predictor.model, "forward", known)
    image = predictor.embed(np.zeros((128, 160, 3), np.uint8))
    one, both = predictor.segment(image, ["the dog on the left", "dogs"])
    # The two, and "dog": what is on the left is one of all dogs.
    assert asked == [3]
    assert one.mask[:, :80].any() and not one.mask[:, 80:].any()
    assert both.mask[:, 80:].any()
    assert np.array_equal(one.mask[:, :80], both.mask[:, :80])


@pytest.mark.parametrize(
    ("sentence", "place"),
    [
        ("left dog", 0),
        ("dog on the right", 2),
        ("the middle dog", 1),
        ("second dog from the left", 1),
        ("guy furthest to the right", 2),
    ],
)
def test_the_shipped_listener_knows_left_from_right(sentence: str, place: int) -> None:
    shipped = Chooser.shipped()
    if shipped is None:
        pytest.skip("The shipped weights hold no listener.")
    centres = [(30.0, 60.0), (80.0, 62.0), (130.0, 58.0)]
    answer = ask(shipped, sentence, raw(blobs(*centres, radius=18)), raw(blobs(*centres, radius=18)))
    assert np.array_equal(answer.probability >= 0.5, blobs(centres[place], radius=18) >= 0.5)
