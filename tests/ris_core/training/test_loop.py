"""Training learns, is repeatable, survives a kill with the same weights, and stops at nonsense."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapes
import torch
from PIL import Image

from ris_core.checkpoint import OperatingPoint
from ris_core.data import Sample, read_folder
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import InputError, TrainingError
from ris_core.evaluation.evaluate import calibrate, evaluate
from ris_core.inference.predictor import Predictor
from ris_core.models import LDA
from ris_core.training.batches import RECALLED
from ris_core.training.loop import STATE, Interrupted, TrainingProgress, train
from ris_core.training.recipe import Recipe
from ris_core.training.run_folder import CONFIG, CURVES, METRICS, OVERLAYS, Validation, read_metrics

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


def stop_at(step: int) -> Callable[[TrainingProgress], None]:
    def report(at: TrainingProgress) -> None:
        if at.step == step:
            raise Stopped

    return report


# Six batches a pass.
LONG = replace(RECIPE, epochs=2, photos=1)


def interrupt(model: LDA, samples: list[Sample], recipe: Recipe, run: Path, after: int) -> list[int]:
    """Train for `after` more steps at most -> the numbers of those that were made."""
    steps: list[int] = []
    with suppress(Interrupted):
        train(model, samples, recipe, run, lambda at: steps.append(at.step), stop=lambda: len(steps) == after)
    return steps


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [(LONG, (1, 8)), (replace(LONG, accumulate=2), (4,)), (replace(LONG, views=1), (6,))],
    ids=["twice", "accumulated", "views"],
)
def test_an_interrupted_run_goes_on_to_the_same_weights(
    recipe: Recipe, parts: tuple[int, ...], untrained: LDA, folder: Path, tmp_path: Path
) -> None:
    samples, start = read_folder(folder), weights(untrained)
    train(untrained, samples, recipe, tmp_path / "whole")
    whole = weights(untrained)
    steps: list[int] = []
    for after in (*parts, 100):
        # As a process that begins anew has it.
        untrained.load_state_dict(start)
        torch.manual_seed(after)
        steps += interrupt(untrained, samples, recipe, tmp_path / "parts", after)
    assert steps == list(range(1, 2 * 6 // recipe.accumulate + 1))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(untrained).items())


def test_a_finished_run_is_not_interrupted(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    recipe = replace(RECIPE, epochs=1)
    train(
        untrained, read_folder(folder), recipe, tmp_path, lambda at: steps.append(at.step), stop=lambda: steps[-1] == 2
    )
    assert steps == [1, 2]


@pytest.mark.parametrize(("save_every", "first"), [(0.0, 6), (60.0, 5)])
def test_a_run_that_died_goes_on_from_its_last_state(
    save_every: float, first: int, untrained: LDA, folder: Path, tmp_path: Path
) -> None:
    """Two steps a pass; it dies in the third."""
    samples, start = read_folder(folder), weights(untrained)
    train(untrained, samples, RECIPE, tmp_path / "whole")
    whole = weights(untrained)
    untrained.load_state_dict(start)
    with pytest.raises(Stopped):
        train(untrained, samples, RECIPE, tmp_path / "died", stop_at(6), save_every=save_every)
    untrained.load_state_dict(start)
    steps: list[int] = []
    train(untrained, samples, RECIPE, tmp_path / "died", lambda at: steps.append(at.step))
    assert steps[0] == first
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(untrained).items())


def test_a_killed_run_leaves_a_state_that_loads(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from ris_core.data import read_folder; from ris_core.encoders import image_encoder, text_encoder\n"
        "from ris_core.models import LDA; from ris_core.training.loop import train\n"
        "from ris_core.training.recipe import Recipe\n"
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
    assert state["step"] >= 2
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        STATE,
        CONFIG,
        METRICS,
        CURVES,
    }


def test_views_taken_from_the_cache_teach_the_same(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start = read_folder(folder), weights(untrained)
    recipe = replace(RECIPE, epochs=4, views=2)
    results = []
    for run in ("cold", "warm"):
        untrained.load_state_dict(start)
        if results:
            shutil.copytree(tmp_path / "cold" / "features", tmp_path / "warm" / "features")
        train(untrained, samples, recipe, tmp_path / run)
        results.append(weights(untrained))
    files = [len(list((tmp_path / run / "features").rglob("*.safetensors"))) for run in ("cold", "warm")]
    assert files == [12, 12]
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_accumulated_batches_make_one_step(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    steps: list[TrainingProgress] = []
    train(untrained, read_folder(folder), replace(RECIPE, epochs=1, photos=1, accumulate=4), tmp_path, steps.append)
    assert [at.step for at in steps] == [1, 2]
    assert steps[0].steps == 2


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_half_precision_learns_alike(precision: str, untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start, losses = read_folder(folder), weights(untrained), []
    for each in ("float32", precision):
        untrained.load_state_dict(start)
        train(untrained, samples, replace(RECIPE, precision=each), tmp_path / each)
        losses.append([line["loss"] for line in read_metrics(tmp_path / each)])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] != losses[1]


def seen(figure: float, shade: int = 0) -> Validation:
    return Validation({"mIoU": figure}, np.full((8, 8, 3), shade, np.uint8))


def test_the_run_is_written_down(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(untrained, read_folder(folder), RECIPE, tmp_path, stop_at(5), lambda: seen(0.25))
    train(untrained, read_folder(folder), RECIPE, tmp_path, validate=lambda: seen(0.5))
    metrics = read_metrics(tmp_path)
    # Steps that a stopped run lost are logged once.
    assert [line["step"] for line in metrics if "loss" in line] == list(range(1, 7))
    assert [line["mIoU"] for line in metrics if "mIoU" in line] == [0.25, 0.25, 0.5]
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["model"], config["seed"], config["side"]) == ("lda", 0, 96)
    with Image.open(tmp_path / CURVES) as picture:
        assert picture.size == (900, 2 * 260)
    assert {path.name for path in (tmp_path / OVERLAYS).iterdir()} == {f"pass-00{number}.jpg" for number in (1, 2, 3)}


def test_validation_sees_the_mean_and_leaves_the_weights(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start, looked = read_folder(folder), weights(untrained), []
    train(untrained, samples, RECIPE, tmp_path / "plain")
    plain = weights(untrained)
    untrained.load_state_dict(start)

    def look() -> Validation:
        assert not untrained.training
        looked.append(weights(untrained))
        return seen(0.5)

    train(untrained, samples, RECIPE, tmp_path / "watched", validate=look)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in weights(untrained).items())
    assert all(torch.equal(tensor, plain[name]) for name, tensor in looked[-1].items())


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """A photo each: of half of them a cropped view says nothing, so that a process, or both, have no gradient."""
    folder = shapes.make(tmp_path / "shapes", photos=8)
    code = (
        "import sys, torch; from dataclasses import replace; from pathlib import Path\n"
        "torch.set_num_threads(1); torch.manual_seed(0)\n"
        "from ris_core.data import read_folder; from ris_core.encoders import image_encoder, text_encoder\n"
        "from ris_core.models import LDA; from ris_core.training.loop import train\n"
        "from ris_core.training.recipe import Recipe\n"
        "model = LDA(image_encoder('efficientnet-lite0'), text_encoder('minilm'))\n"
        "for part in model.modules():\n"
        "    if isinstance(part, torch.nn.Dropout): part.p = 0.0\n"
        "samples = [s for s in read_folder(Path(sys.argv[1])) if s.has_target]\n"
        "samples = [replace(s, kind='derived') if s.image_id % 4 < 2 else s for s in samples]\n"
        "recipe = Recipe(epochs=3, photos=2, side=96, warm_up=4, average=0.5)\n"
        "train(model, samples, recipe, Path(sys.argv[2]))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d"]
    for name, launcher in (("one", []), ("two", [*launch, "--rdzv-endpoint", "localhost:0"])):
        command = [sys.executable, *launcher, str(script), str(folder), str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=200)
    one, two = (torch.load(tmp_path / name / STATE, weights_only=True)["mean"] for name in ("one", "two"))
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == len(losses[1]) == 12
    assert 0.0 in losses[1]
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=5e-3), name


def test_a_run_of_another_recipe_is_not_continued(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples = read_folder(folder)
    train(untrained, samples, replace(RECIPE, epochs=1), tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        train(untrained, samples, replace(RECIPE, epochs=2), tmp_path)


def test_a_run_from_before_a_knob_was_there_goes_on(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start = read_folder(folder), weights(untrained)
    train(untrained, samples, RECIPE, tmp_path / "whole")
    whole = weights(untrained)
    untrained.load_state_dict(start)
    with pytest.raises(Stopped):
        train(untrained, samples, RECIPE, tmp_path / "older", stop_at(3))
    state = torch.load(tmp_path / "older" / STATE, weights_only=True)
    recipe = json.loads(state["recipe"])
    del recipe["paste"]
    torch.save(state | {"recipe": json.dumps(recipe)}, tmp_path / "older" / STATE)
    steps: list[int] = []
    untrained.load_state_dict(start)
    train(untrained, samples, RECIPE, tmp_path / "older", lambda at: steps.append(at.step))
    assert steps[0] == 3
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(untrained).items())


def test_a_recipe_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="multiple of 96"):
        Recipe(side=400)
    with pytest.raises(InputError, match="pasted onto views"):
        Recipe(paste=0.5, views=2)


def test_pasted_things_are_learnt_from(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start, results = read_folder(folder), weights(untrained), []
    for run, paste in (("plain", 0.0), ("pasted", 0.9), ("again", 0.9)):
        untrained.load_state_dict(start)
        train(untrained, samples, replace(RECIPE, paste=paste), tmp_path / run)
        results.append(weights(untrained))
    plain, pasted, again = results
    assert all(torch.equal(tensor, again[name]) for name, tensor in pasted.items())
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in pasted.items())


def test_a_teacher_is_answered_alike(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    """What a model says to expressions of which nobody said anything comes back to what its teacher says."""
    samples = [replace(each, segmentations=(), kind=RECALLED) for each in read_folder(folder)]
    teacher = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"))
    teacher.load_state_dict(untrained.state_dict())
    with torch.no_grad():
        untrained.to_mask.bias += 2.0
    start = weights(untrained)

    def difference() -> float:
        both = [Predictor(each, OperatingPoint(side=96), "test") for each in (untrained, teacher)]
        image, asked = samples[0].photo(), [samples[0].sentence, samples[1].sentence]
        ours, theirs = (each.maps([(each.embed(image), asked)]) for each in both)
        gaps = [np.abs(one.probability - other.probability).mean() for one, other in zip(ours, theirs, strict=True)]
        return float(np.mean(gaps))

    before = difference()
    train(untrained, samples, replace(RECIPE, epochs=6, rate=1e-2), tmp_path, teacher=teacher)
    assert not torch.equal(untrained.to_mask.bias, start["to_mask.bias"])
    assert difference() < 0.5 * before


def test_nonsense_stops_the_run_and_names_the_batch(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        untrained.to_mask.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss is nan at step 0: "):
        train(untrained, read_folder(folder), RECIPE, tmp_path)


def test_nothing_to_train_on(untrained: LDA, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(untrained, [], RECIPE, tmp_path)
