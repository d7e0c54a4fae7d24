"""Pictures show what was found, what was meant, and how far a score can be believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known import KnownPredictor, columns, left, sample
from PIL import Image

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample
from ris_core.evaluation.contact_sheet import (
    MASK,
    TARGET,
    choose_samples,
    contact_sheet,
    reliability_diagram,
    write_pictures,
)
from ris_core.evaluation.evaluate import EvaluatedSample, Report, evaluate, evaluate_each
from ris_core.evaluation.metrics import Score
from ris_core.inference.calibration import Bin

KNOWN = {
    "the left half": (columns(0, 1), 0.9, 0.8),
    "the left quarter": (columns(0, 1), 0.9, 0.9),
    "the unicorn": (columns(2), 0.2, 0.9),
}


@pytest.fixture
def known() -> KnownPredictor:
    return KnownPredictor(OperatingPoint(side=8), dict(KNOWN))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    targets = (left(10), left(5), None)
    return [sample(tmp_path, sentence, target) for sentence, target in zip(KNOWN, targets, strict=True)]


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (pixels == np.array(colour)).all(axis=-1)


def test_best_worst_and_any() -> None:
    def scored(intersection: int, has_target: bool, refused: bool, expected: float) -> Score:
        return Score(intersection, 10, has_target, refused, expected)

    scores = {
        "good": scored(9, True, False, 0.2),
        "fair": scored(5, True, False, 0.9),
        "refused": scored(0, True, True, 0.6),
        "imagined": scored(0, False, False, 0.8),
        "rejected": scored(0, False, True, 0.9),
    }
    samples = [Sample(Path(), 1, 1, "val", sentence, 1, 1, ()) for sentence in scores]
    report = Report(samples, list(scores.values()))
    chosen = {name: [sample.sentence for sample in picked] for name, picked in choose_samples(report, 3).items()}
    assert chosen["best"] == ["good", "fair", "refused"]
    assert chosen["worst"] == ["imagined", "refused", "fair"]
    assert len(set(chosen["random"])) == 3
    assert choose_samples(report, 3) == choose_samples(report, 3)
    assert sorted(sample.sentence for sample in choose_samples(report, 99)["random"]) == sorted(scores)


def test_a_sheet_shows_masks_targets_and_words(known: KnownPredictor, samples: list[Sample]) -> None:
    quarter, exact, absent = evaluate_each(known, [samples[1], samples[0], samples[2]])
    nothing = contact_sheet([], "none")
    one = contact_sheet([quarter], "one")
    assert one.shape[1] == nothing.shape[1]
    # The photo is grey: half of it is tinted, and the target's edge runs inside that half.
    cell = one[36:296, 8:328]
    tinted = has(cell, tuple((128 + channel) // 2 for channel in MASK))
    assert tinted[:, :140].sum() > 0.8 * 140 * 160
    assert not tinted[:, 162:].any()
    assert has(cell, TARGET)[:, 76:84].any()
    assert not has(cell, TARGET)[:, 90:].any()
    # What isn't there has no target to outline; what it is refused with is no mask.
    refused = contact_sheet([absent], "one")[36:296, 8:328]
    assert not has(refused, TARGET).any()
    assert not has(refused, MASK).any()
    written = contact_sheet([replace_sentence(exact, "another")], "one") != contact_sheet([exact], "one")
    assert written[296:].any()
    assert not written[:296].any()


def replace_sentence(evaluated: EvaluatedSample, sentence: str) -> EvaluatedSample:
    return evaluated._replace(sample=replace(evaluated.sample, sentence=sentence))


def test_a_sheet_of_many_and_of_odd_shapes(tmp_path: Path) -> None:
    known = KnownPredictor(OperatingPoint(side=8), {"word " * 40: (np.ones((1, 1)), 0.9, 0.9)})
    (sentence,) = known.answers
    slim = [sample(tmp_path, sentence, None, size) for size in ((1, 900), (900, 1), (3, 3), (40, 50), (50, 40))]
    sheet = contact_sheet([evaluated for thin in slim for evaluated in evaluate_each(known, [thin])], "odd")
    one = contact_sheet([], "none")
    assert sheet.shape[0] - one.shape[0] == one.shape[0] - 36


def test_the_diagram_shows_bins_where_they_are() -> None:
    empty = reliability_diagram([])
    drawn = reliability_diagram([Bin(0.25, 0.75, 30), Bin(0.95, 0.5, 10)])
    side, margin = 480, 70
    bar = drawn[margin + side // 2, margin + round(0.22 * side)]
    assert bar.tolist() == list(MASK)
    # A third of the answers: paler. Above a bar there is none.
    pale = drawn[margin + round(0.8 * side), margin + round(0.93 * side)]
    assert (pale != bar).any() and (pale != 255).any()
    assert (drawn[margin + round(0.1 * side), margin + round(0.22 * side)] == 255).all()
    dots = has(drawn, TARGET)
    assert dots[margin + side // 4, margin + side // 4]
    assert dots[margin + side // 2, margin + round(0.95 * side)]
    assert not has(empty, TARGET).any()


@pytest.mark.parametrize("convention", ["original", "lavt"])
def test_four_files_are_written(known: KnownPredictor, samples: list[Sample], tmp_path: Path, convention: str) -> None:
    folder = tmp_path / "new" / "pictures"
    report = evaluate(known, samples, convention=convention)
    for _ in range(2):
        write_pictures(folder, known, report, convention)
    assert {path.name for path in folder.iterdir()} == {"reliability.png", "best.jpg", "worst.jpg", "random.jpg"}
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert image.format == ("PNG" if path.suffix == ".png" else "JPEG")
            assert min(image.size) > 300
