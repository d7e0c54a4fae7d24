"""Evaluation and calibration around a stand-in for the model, whose answers are known, and once around a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from known import KnownPredictor, columns, left, sample
from PIL import Image

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import DatasetError, ImageError
from ris_core.evaluation.evaluate import (
    Report,
    balanced_presence_threshold,
    calibrate,
    evaluate,
    evaluate_each,
    fit_refinement,
    presence_threshold,
    recalibrate,
)
from ris_core.evaluation.metrics import Score, summarise
from ris_core.inference.calibration import calibration_error, corrected
from ris_core.inference.predictor import Predictor
from ris_core.models.interactive import InteractiveOutput, VisualPrompts
from ris_core.models.lda import LDA, LDAOptions


def test_figures_at_the_photos_own_size(tmp_path: Path) -> None:
    """Columns are 5 pixels wide, 50 pixels each. A target refused keeps the union of its raw mask."""
    known = KnownPredictor(
        OperatingPoint(side=8, mask=0.4, presence=0.5),
        {
            "half": (columns(0, 1), 0.9, 0.8),
            "refused": (columns(1, 2), 0.3, 0.8),
            "faint": (0.39 * columns(0), 0.9, 0.8),
            "absent": (columns(0), 0.1, 0.8),
            "imagined": (0.4 * columns(3), 0.6, 0.5),
        },
    )
    targets = {"half": left(5), "refused": left(10), "faint": left(5), "absent": None, "imagined": None}
    report = evaluate(known, [sample(tmp_path, sentence, target) for sentence, target in targets.items()])
    assert [(result.intersection, result.union, result.refused) for result in report.scores] == [
        (50, 100, False),
        (0, 150, True),
        (0, 50, True),
        (0, 0, True),
        (0, 50, False),
    ]
    assert [result.expected for result in report.scores] == pytest.approx([0.72, 0.7, 0.1, 0.9, 0.3])
    figures = report.figures
    assert figures == summarise(report.scores)
    assert (figures["mIoU"], figures["oIoU"]) == pytest.approx((0.5 / 3, 50 / 300))
    assert (figures["gIoU"], figures["cIoU"]) == pytest.approx((1.5 / 5, 50 / 350))
    assert calibration_error(report.bins) == figures["ECE"]
    assert known.seen == [(10, 20, 3)]
    assert report.interval == pytest.approx((0.5 / 3, 0.5 / 3))


@pytest.mark.parametrize(("sign", "share"), [(1.0, 0.5), (-1.0, 0.0)])
def test_the_interactive_decoder_has_its_share_where_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: float, share: float
) -> None:
    """It says the truth, or the opposite of it."""
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(rates=(1,), width=32))
    model.add_interactive()
    assert model.interactive is not None

    def draw(self: object, embedding: object, prompts: VisualPrompts, index: torch.Tensor) -> InteractiveOutput:
        mask = torch.full_like(prompts.mask, -40.0 * sign)
        mask[..., : mask.shape[-1] // 4] = 40.0 * sign
        return InteractiveOutput(mask, torch.zeros(len(mask)))

    monkeypatch.setattr(type(model.interactive), "forward", draw)
    point = OperatingPoint(side=64, mask=0.5, refinement=0.25)
    predictor = Predictor(model, point, "untrained")
    samples = [sample(tmp_path, "the left", left(5)), sample(tmp_path, "nothing", None)]
    assert fit_refinement(predictor, samples) == share
    assert predictor.point == point
    assert fit_refinement(predictor, samples[1:]) == 0.25


def test_lavts_convention(tmp_path: Path) -> None:
    """10 x 20 pixels become 8 x 8, half a column is lost, P = 0.5 decides, and nothing is refused."""
    known = KnownPredictor(
        OperatingPoint(side=8, mask=0.9, presence=0.5),
        {"half": (0.5 * columns(0, 1), 0.1, 0.8), "faint": (0.49 * columns(0, 1), 0.9, 0.8)},
    )
    samples = [sample(tmp_path, sentence, left(8)) for sentence in known.answers]
    first, second = evaluate_each(known, samples, "lavt")
    assert known.seen == [(8, 8, 3)]
    # Pillow reads columns 1, 3, 6, 8 ... of the 20: three of them lie in the target.
    assert first.target is not None
    assert first.target.tolist() == [[True] * 3 + [False] * 5] * 8
    assert (first.score.intersection, first.score.union, first.score.refused) == (24, 32, False)
    assert first.prediction.present
    assert first.score.expected == pytest.approx(0.1 * 0.8)
    # An empty mask is the only refusal that is left.
    assert (second.score.intersection, second.score.union, second.score.refused) == (0, 24, True)


def test_nearest_is_pillows(tmp_path: Path) -> None:
    """Every second column of 16: OpenCV would keep none of them."""
    target = np.zeros((8, 16), dtype=bool)
    target[:, 1::2] = True
    known = KnownPredictor(OperatingPoint(side=8), {"x": (np.ones((1, 1)), 0.9, 0.9)})
    (answer,) = evaluate_each(known, [sample(tmp_path, "x", target, (8, 16))], "lavt")
    assert answer.score.iou == 1


def test_a_photo_of_another_size_is_refused(tmp_path: Path) -> None:
    known = KnownPredictor(OperatingPoint(), {"x": (np.ones((1, 1)), 0.9, 0.9)})
    good = sample(tmp_path, "x", left(5))
    with pytest.raises(DatasetError, match=r"10x20.png isn't of the size"):
        evaluate(known, [replace(good, height=20, width=10)])
    with pytest.raises(ImageError, match="doesn't exist"):
        evaluate(known, [replace(good, image=tmp_path / "gone.png")])


def test_batches_give_what_single_photos_give(tmp_path: Path) -> None:
    """More photos than one batch holds, upright and not, some of one canvas; their expressions shuffled."""
    draw = np.random.default_rng(0)
    samples = []
    for size in [(60 + number, 96) for number in range(7)] + [(96, 60 + number) for number in range(4)]:
        Image.fromarray(draw.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{size[0]}x{size[1]}.png")
        targets = {"a": left(30, size), "a cat": left(50, size), "no dog": None}
        samples += [sample(tmp_path, sentence, target, size) for sentence, target in targets.items()]
    samples = samples[::2] + samples[1::2]
    encoders = image_encoder("efficientnet-lite0"), text_encoder("minilm")
    # After the encoders are there: loading them draws random numbers.
    torch.manual_seed(0)
    model = LDA(*encoders, LDAOptions(width=16))
    predictor = Predictor(model, OperatingPoint(side=96, presence=0.0, mask=0.5), "test")
    heard: list[int] = []
    report = evaluate(predictor, samples, heard.append)
    assert heard == list(range(1, len(samples) + 1))
    assert sorted(map(repr, report.samples)) == sorted(map(repr, samples))
    assert report.seconds > 0
    alone = [evaluate(predictor, [each]).scores[0] for each in report.samples]
    assert sum(0.05 < each.iou < 0.95 for each in alone) > 10
    for one, other in zip(report.scores, alone, strict=True):
        assert one.expected == pytest.approx(other.expected, abs=1e-4)
        assert (one.has_target, one.refused) == (other.has_target, other.refused)
        assert one.iou == pytest.approx(other.iou, abs=0.01)


def test_no_samples_no_figures() -> None:
    report = evaluate(KnownPredictor(OperatingPoint(), {}), [])
    assert (report.figures, report.bins, report.interval) == ({"expressions": 0}, [], (0, 0))


# Ten targets, found less and less surely; five absent things, refused less and less surely.
TARGETS = {f"there {number}": (columns(0, 1), 0.95 - 0.1 * number, 0.9) for number in range(10)}
ABSENT = {f"absent {number}": (columns(2), 0.12 + 0.1 * number, 0.9) for number in range(5)}


@pytest.fixture
def mixed(tmp_path: Path) -> list[Sample]:
    there = [sample(tmp_path, sentence, left(5)) for sentence in TARGETS]
    return there + [sample(tmp_path, sentence, None) for sentence in ABSENT]


@pytest.mark.parametrize(("accepted", "presence", "refused"), [(1, 0.05, 0), (0.9, 0.15, 0.2), (0.51, 0.45, 0.8)])
def test_the_highest_threshold_that_keeps_enough_targets(
    mixed: list[Sample], accepted: float, presence: float, refused: float
) -> None:
    known = KnownPredictor(OperatingPoint(side=8), TARGETS | ABSENT)
    known.point = calibrate(known, mixed, accepted)
    assert (known.point.side, known.point.presence) == (8, pytest.approx(presence, abs=0.0011))
    figures = evaluate(known, mixed).figures
    assert figures["T-acc"] == pytest.approx(1 - presence + 0.05)
    assert figures["T-acc"] >= accepted
    assert figures["N-acc"] == refused


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_enough_is_kept_and_not_a_thousandth_more(presence: list[float], accepted: float) -> None:
    threshold = presence_threshold(presence, accepted)

    def kept(threshold: float) -> int:
        return sum(value >= threshold for value in presence)

    wanted = max(1, accepted * len(presence) - 1e-6)
    assert kept(threshold) >= wanted
    assert kept(threshold + 0.001) < wanted + 1


def test_faint_masks_are_tried_too(tmp_path: Path) -> None:
    known = KnownPredictor(OperatingPoint(side=8), {"x": (np.array([[0.9, 0.27, 0.22, 0.1]]), 0.9, 0.9)})
    assert calibrate(known, [sample(tmp_path, "x", left(10))]).mask == 0.25
    assert calibrate(known, [sample(tmp_path, "x", left(15))]).mask == 0.2


def test_balanced_shares(mixed: list[Sample]) -> None:
    """Targets at 0.05, 0.15 ... 0.95, absent things at 0.12, 0.22 ... 0.52: of both, seven in ten or more at 0.321."""
    known = KnownPredictor(OperatingPoint(side=8), TARGETS | ABSENT)
    known.point = calibrate(known, mixed, None)
    figures = evaluate(known, mixed).figures
    assert known.point.presence == pytest.approx(0.321)
    assert (figures["T-acc"], figures["N-acc"]) == pytest.approx((0.7, 0.6))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_no_other_threshold_is_more_even(there: list[float], absent: list[float]) -> None:
    def smaller(threshold: float) -> float:
        kept, refused = (np.mean(np.array(values) >= threshold) for values in (there, absent))
        return float(min(kept, 1 - refused))

    best = smaller(balanced_presence_threshold(there, absent))
    assert best >= max(smaller(number / 1000) for number in range(1, 1001)) - 1e-9


def test_without_absent_things_there_is_nothing_to_balance(mixed: list[Sample]) -> None:
    with pytest.raises(DatasetError, match="nothing to balance"):
        calibrate(KnownPredictor(OperatingPoint(side=8), TARGETS), mixed[:10], None)


def test_figures_of_each_kind(tmp_path: Path) -> None:
    known = KnownPredictor(OperatingPoint(side=8, mask=0.4), TARGETS | ABSENT)
    kinds = {"there 0": "derived", "there 1": "name", "there 9": "name", "absent 0": "absent", "there 2": "said"}
    samples = [
        replace(sample(tmp_path, sentence, None if kind == "absent" else left(5)), kind=kind)
        for sentence, kind in kinds.items()
    ]
    report = evaluate(known, samples)
    assert list(report.kinds) == ["name", "derived", "absent", "said"]
    assert [figures["expressions"] for figures in report.kinds.values()] == [2, 1, 1, 1]
    assert report.kinds["name"] == summarise([report.scores[1], report.scores[2]])
    assert report.kinds["name"]["mIoU"] == 0.25
    assert report.kinds["absent"]["N-acc"] == 1


def test_the_pixels_threshold_is_the_best_for_the_mean_iou(tmp_path: Path) -> None:
    """One column at P = 0.9, one at 0.42: the target ends between them, or after the second."""
    steps = np.array([[0.9, 0.42, 0.1, 0.1]])
    known = KnownPredictor(OperatingPoint(side=8), {"x": (steps, 0.9, 0.9)})
    assert calibrate(known, [sample(tmp_path, "x", left(5))]).mask == 0.45
    assert calibrate(known, [sample(tmp_path, "x", left(10))]).mask == 0.2


def test_a_target_without_a_mask_is_not_answered_at_any_threshold(tmp_path: Path) -> None:
    known = KnownPredictor(OperatingPoint(side=8), {"x": (columns(0), 0.6, 0.9), "y": (0 * columns(0), 0.9, 0.9)})
    samples = [sample(tmp_path, sentence, left(5)) for sentence in known.answers]
    assert calibrate(known, samples, 0.5).presence == 0.6
    assert calibrate(known, samples, 1).presence == 0


def test_scores_are_corrected_to_what_they_came_to(mixed: list[Sample]) -> None:
    """Masks are worth 0.5 where the model expects up to 0.86; no refusal of what is there, all of them right."""
    known = KnownPredictor(OperatingPoint(side=8), TARGETS | ABSENT)
    before = evaluate(known, mixed).figures["ECE"]
    known.point = calibrate(known, mixed, 0.6)
    report = evaluate(known, mixed)
    assert report.figures["ECE"] < before - 0.1
    for judged, (_, presence, quality) in zip(report.scores, (TARGETS | ABSENT).values(), strict=True):
        if judged.refused:
            assert judged.expected == corrected(1 - presence, known.point.refusal_scale, known.point.refusal_shift)
        else:
            mine = presence**known.point.answer_presence * quality
            assert judged.expected == corrected(mine, known.point.answer_scale, known.point.answer_shift)
    assert known.point.answer_shift != 0 != known.point.refusal_shift


@pytest.mark.parametrize(("worth", "power"), [(lambda presence: 0.5, 0.0), (lambda presence: presence, 1.0)])
def test_presence_counts_in_a_score_where_it_foretells(
    tmp_path: Path, worth: Callable[[float], float], power: float
) -> None:
    """Of twenty columns found, as many belong to the thing as `worth` says; the quality that is predicted is right."""
    shares = [0.1 * number for number in range(2, 10)]
    answers = {f"{share:.1f}": (np.ones((1, 1)), share, 0.5 if power == 0 else 0.9) for share in shares}
    samples = [sample(tmp_path, name, left(round(20 * worth(float(name))))) for name in answers]
    assert calibrate(KnownPredictor(OperatingPoint(side=8), answers), samples, 1).answer_presence == power


def test_refusals_of_what_was_never_taught_are_doubted(tmp_path: Path) -> None:
    """All that is absent is called by its name; of what is far from any, each refusal is wrong."""
    answers = {f"name {number}": (np.ones((1, 1)), 0.1, 0.5) for number in range(20)}
    answers |= {f"far {number}": (np.ones((1, 1)), 0.1, 0.5) for number in range(20)}
    answers["there"] = (np.ones((1, 1)), 0.9, 0.5)
    known = KnownPredictor(OperatingPoint(side=8), answers, {name: 0.5 for name in answers if name.startswith("far")})
    samples = [sample(tmp_path, name, None if name.startswith("name") else left(10)) for name in answers]
    assert calibrate(known, samples, 0.04).doubt == 0
    known.point = calibrate(known, samples, 0.04, names=["name 1"])
    assert (known.point.names, known.point.doubt > 1) == (("name 1",), True)
    scores = dict(zip(answers, evaluate(known, samples).scores, strict=True))
    assert scores["far 1"].refused and scores["name 1"].refused
    assert scores["far 1"].expected < 0.3 < 0.6 < scores["name 1"].expected
    # Other answers move the line, and leave the doubt and the names alone.
    again = recalibrate(known.point, evaluate(known, samples), known.point)
    assert (again.names, again.doubt) == (known.point.names, known.point.doubt)


def test_scores_are_corrected_to_other_answers_and_masks_stay(mixed: list[Sample]) -> None:
    """The first correction was to other samples. Done again and again, the second stays what it was."""
    first = OperatingPoint(8, 0.4, 0.5, 1.2, 0.3, 0.9, -0.2)
    known = KnownPredictor(first, TARGETS | ABSENT)
    before = evaluate(known, mixed)
    known.point = once = recalibrate(first, before, first)
    after = evaluate(known, mixed)
    assert after.figures["ECE"] < before.figures["ECE"] - 0.1
    assert [result.correct for result in after.scores] == [result.correct for result in before.scores]
    assert replace(once, answer_scale=1.2, answer_shift=0.3, refusal_scale=0.9, refusal_shift=-0.2) == first
    for _ in range(5):
        known.point = recalibrate(known.point, evaluate(known, mixed), first)
    assert vars(known.point) | {"names": None} == pytest.approx(vars(once) | {"names": None}, abs=1e-3)


def test_answers_of_one_kind_say_nothing_of_the_other(mixed: list[Sample]) -> None:
    point = OperatingPoint(8, 0.4, 0.5, 1.2, 0.3, 0.9, -0.2)
    assert recalibrate(point, Report([], [], 0.0), point) == point
    known = KnownPredictor(point, TARGETS | ABSENT)
    there, absent = (
        recalibrate(point, evaluate(known, [each for each in mixed if each.has_target is has_target]), point)
        for has_target in (True, False)
    )
    assert (there.refusal_scale, there.refusal_shift) == (0.9, -0.2)
    assert (absent.answer_scale, absent.answer_shift) == (1.2, 0.3)


def test_without_absent_things_refusals_keep_their_scores(mixed: list[Sample]) -> None:
    point = calibrate(KnownPredictor(OperatingPoint(side=8), TARGETS), mixed[:10], 0.5)
    assert (point.refusal_scale, point.refusal_shift) == (1, 0)
    assert point.answer_scale != 1
    assert OperatingPoint(**json.loads(json.dumps(vars(point)))) == point


def test_without_a_target_nothing_can_be_fixed(mixed: list[Sample]) -> None:
    with pytest.raises(DatasetError, match="No expression of the validation split has a target"):
        calibrate(KnownPredictor(OperatingPoint(side=8), ABSENT), mixed[10:])


def test_scores_join_across_reports(mixed: list[Sample]) -> None:
    """Half of the photos here, half there: plain data that JSON carries."""
    known = KnownPredictor(OperatingPoint(side=8), TARGETS | ABSENT)
    parts = [evaluate(known, mixed[:7]).scores, evaluate(known, mixed[7:]).scores]
    carried = [Score(**each) for part in parts for each in json.loads(json.dumps([vars(score) for score in part]))]
    assert summarise(carried[::-1]) == evaluate(known, mixed).figures
