"""Training learns, is repeatable, survives a kill with the same weights, and stops at nonsense."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import shapes
import torch

from ris_core.checkpoint import OperatingPoint
from ris_core.data import read_folder
from ris_core.errors import TrainingError
from ris_core.evaluation import calibrate, evaluate
from ris_core.models import LDA
from ris_core.predictor import Predictor
from ris_core.training import STATE, Progress, Recipe, train

RECIPE = Recipe(epochs=3, photos=4, side=96, warm_up=2, average=0.5, rate=2e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.make(tmp_path_factory.mktemp("shapes"))


def weights(model: LDA) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_it_learns_to_find_shapes(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples = read_folder(folder)
    recipe = replace(RECIPE, epochs=60, photos=6, average=0.9)
    predictor = Predictor(untrained, OperatingPoint(side=96, presence=0.0), "test")
    before = evaluate(predictor, samples).figures["mIoU"]
    train(untrained, samples, recipe, tmp_path)
    predictor.point = calibrate(predictor, samples)
    figures = evaluate(predictor, samples).figures
    assert figures["mIoU"] > 0.6 > before + 0.2
    assert figures["N-acc"] > 0.6
    assert figures["T-acc"] > 0.6


def test_same_seed_same_weights(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start = read_folder(folder), weights(untrained)
    results = []
    for run in ("first", "second"):
        untrained.load_state_dict(start)
        train(untrained, samples, RECIPE, tmp_path / run)
        results.append(weights(untrained))
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())
    assert any(not torch.equal(tensor, start[name]) for name, tensor in results[0].items())


def test_frozen_weights_do_not_move(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    before = weights(untrained)
    train(untrained, read_folder(folder), replace(RECIPE, epochs=1), tmp_path)
    for name in ("key.4.weight", "attend.4.spatial_query.weight"):
        assert torch.equal(before[name], untrained.state_dict()[name])


class Stopped(Exception):
    pass


def stop_at(step: int) -> Callable[[Progress], None]:
    def report(at: Progress) -> None:
        if at.step == step:
            raise Stopped

    return report


def test_a_stopped_run_goes_on_to_the_same_weights(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start = read_folder(folder), weights(untrained)
    train(untrained, samples, RECIPE, tmp_path / "whole")
    whole = weights(untrained)
    untrained.load_state_dict(start)
    with pytest.raises(Stopped):
        train(untrained, samples, RECIPE, tmp_path / "stopped", stop_at(5))
    untrained.load_state_dict(start)
    steps: list[int] = []
    train(untrained, samples, RECIPE, tmp_path / "stopped", lambda at: steps.append(at.step))
    assert steps[0] > 1
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(untrained).items())


def test_a_killed_run_leaves_a_state_that_loads(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from ris_core.data import read_folder; from ris_core.encoders import image_encoder, text_encoder\n"
        "from ris_core.models import LDA; from ris_core.training import Recipe, train\n"
        "model = LDA(image_encoder('efficientnet-lite2'), text_encoder('minilm'))\n"
        "recipe = Recipe(epochs=100, photos=4, side=96)\n"
        "samples, run = read_folder(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "train(model, samples, recipe, run, lambda at: print(at.step, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder), str(tmp_path)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        deadline = time.monotonic() + 200
        while not (tmp_path / STATE).exists():
            assert run.stdout.readline()
            assert time.monotonic() < deadline
        run.send_signal(signal.SIGKILL)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["epochs"] >= 1
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [STATE]


def test_a_run_of_another_recipe_is_not_continued(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples = read_folder(folder)
    train(untrained, samples, replace(RECIPE, epochs=1), tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        train(untrained, samples, replace(RECIPE, epochs=2), tmp_path)


def test_nonsense_stops_the_run_and_names_the_batch(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        untrained.to_mask.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss is nan at step 0: "):
        train(untrained, read_folder(folder), RECIPE, tmp_path)


def test_nothing_to_train_on(untrained: LDA, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(untrained, [], RECIPE, tmp_path)
