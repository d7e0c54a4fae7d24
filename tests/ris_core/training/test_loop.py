"""Training learns, is repeatable, writes down how it goes, and stops at nonsense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training.runs import CACHED, RECIPE, Died, are_equal, die_at, weights_of

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import read_folder
from ris_core.errors import TrainingError
from ris_core.evaluation.evaluate import calibrate, evaluate
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA
from ris_core.training.loop import TrainingProgress, train
from ris_core.training.run_folder import CONFIG, CURVES, OVERLAYS, Validation, read_metrics


def test_it_learns_to_find_shapes(untrained: LDA, folder: Path, features: Path, tmp_path: Path) -> None:
    samples = read_folder(folder)
    recipe = replace(RECIPE, epochs=30, photos=6, average=0.9, views=4)
    predictor = Predictor(untrained, OperatingPoint(side=96, presence=0.0), "test")
    before = evaluate(predictor, samples).figures["mIoU"]
    train(untrained, samples, recipe, tmp_path, features=features)
    predictor.point = calibrate(predictor, samples)
    figures = evaluate(predictor, samples).figures
    assert figures["mIoU"] > 0.6 > before + 0.2
    assert figures["N-acc"] > 0.6
    assert figures["T-acc"] > 0.6


def test_same_seed_same_weights(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start = read_folder(folder), weights_of(untrained)
    results = []
    for run in ("first", "second"):
        untrained.load_state_dict(start)
        train(untrained, samples, RECIPE, tmp_path / run)
        results.append(weights_of(untrained))
    assert are_equal(*results)
    assert not are_equal(results[0], start)


def test_frozen_weights_do_not_move(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    before = weights_of(untrained)
    train(untrained, read_folder(folder), replace(RECIPE, epochs=1), tmp_path)
    for name in ("key.4.weight", "attend.4.spatial_query.weight"):
        assert torch.equal(before[name], untrained.state_dict()[name])


def test_accumulated_batches_make_one_step(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    steps: list[TrainingProgress] = []
    train(untrained, read_folder(folder), replace(RECIPE, epochs=1, photos=1, accumulate=4), tmp_path, steps.append)
    assert [at.step for at in steps] == [1, 2]
    assert steps[0].steps == 2


def validation(figure: float) -> Validation:
    return Validation({"mIoU": figure}, np.zeros((8, 8, 3), np.uint8))


def test_the_run_is_written_down(untrained: LDA, folder: Path, features: Path, tmp_path: Path) -> None:
    samples = read_folder(folder)
    with pytest.raises(Died):
        train(untrained, samples, CACHED, tmp_path, die_at(5), lambda: validation(0.25), features)
    train(untrained, samples, CACHED, tmp_path, validate=lambda: validation(0.5), features=features)
    metrics = read_metrics(tmp_path)
    # Steps that a stopped run lost are logged once.
    assert [line["step"] for line in metrics if "loss" in line] == list(range(1, 7))
    assert [line["mIoU"] for line in metrics if "mIoU" in line] == [0.25, 0.25, 0.5]
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["model"], config["seed"], config["side"]) == ("lda", 0, 96)
    with Image.open(tmp_path / CURVES) as picture:
        assert picture.size == (900, 2 * 260)
    assert {path.name for path in (tmp_path / OVERLAYS).iterdir()} == {f"pass-00{number}.jpg" for number in (1, 2, 3)}


def test_validation_sees_the_mean_and_leaves_the_weights(
    untrained: LDA, folder: Path, features: Path, tmp_path: Path
) -> None:
    samples, start, validated = read_folder(folder), weights_of(untrained), []
    train(untrained, samples, CACHED, tmp_path / "plain", features=features)
    plain = weights_of(untrained)
    untrained.load_state_dict(start)

    def validate() -> Validation:
        assert not untrained.training
        validated.append(weights_of(untrained))
        return validation(0.5)

    train(untrained, samples, CACHED, tmp_path / "watched", validate=validate, features=features)
    assert are_equal(weights_of(untrained), plain)
    assert are_equal(validated[-1], plain)


def test_pasted_things_are_learnt_from(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start, results = read_folder(folder), weights_of(untrained), []
    for run, paste in (("plain", 0.0), ("pasted", 0.9), ("again", 0.9)):
        untrained.load_state_dict(start)
        train(untrained, samples, replace(RECIPE, epochs=2, paste=paste), tmp_path / run)
        results.append(weights_of(untrained))
    plain, pasted, again = results
    assert are_equal(pasted, again)
    assert not are_equal(pasted, plain)


def test_nonsense_stops_the_run_and_names_the_batch(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        untrained.to_mask.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss is nan at step 0: "):
        train(untrained, read_folder(folder), RECIPE, tmp_path)


def test_nothing_to_train_on(untrained: LDA, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(untrained, [], RECIPE, tmp_path)
