"""A run that was interrupted, died or was killed goes on, to the weights that it would have come to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training.runs import CACHED, RECIPE, Died, are_equal, die_at, weights_of

from ris_core.data import Sample, read_folder
from ris_core.errors import TrainingError
from ris_core.models.lda import LDA
from ris_core.training.loop import Interrupted, train
from ris_core.training.recipe import Recipe
from ris_core.training.run_folder import CONFIG, CURVES, METRICS
from ris_core.training.state import STATE

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
    samples, start = read_folder(folder), weights_of(untrained)
    train(untrained, samples, recipe, tmp_path / "whole")
    whole = weights_of(untrained)
    steps: list[int] = []
    for after in (*parts, 100):
        # As a process that begins anew has it.
        untrained.load_state_dict(start)
        torch.manual_seed(after)
        steps += interrupt(untrained, samples, recipe, tmp_path / "parts", after)
    assert steps == list(range(1, 2 * 6 // recipe.accumulate + 1))
    assert are_equal(weights_of(untrained), whole)


def test_a_finished_run_is_not_interrupted(untrained: LDA, folder: Path, features: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    train(
        untrained,
        read_folder(folder),
        replace(CACHED, epochs=1),
        tmp_path,
        lambda at: steps.append(at.step),
        features=features,
        stop=lambda: steps[-1] == 2,
    )
    assert steps == [1, 2]


@pytest.mark.parametrize(("save_every", "first"), [(0.0, 6), (60.0, 5)])
def test_a_run_that_died_goes_on_from_its_last_state(
    save_every: float, first: int, untrained: LDA, folder: Path, features: Path, tmp_path: Path
) -> None:
    """Two steps a pass; it dies in the third."""
    samples, start = read_folder(folder), weights_of(untrained)
    train(untrained, samples, CACHED, tmp_path / "whole", features=features)
    whole = weights_of(untrained)
    untrained.load_state_dict(start)
    died = tmp_path / "died"
    with pytest.raises(Died):
        train(untrained, samples, CACHED, died, die_at(6), features=features, save_every=save_every)
    untrained.load_state_dict(start)
    steps: list[int] = []
    train(untrained, samples, CACHED, died, lambda at: steps.append(at.step), features=features)
    assert steps[0] == first
    assert are_equal(weights_of(untrained), whole)


def test_a_killed_run_leaves_a_state_that_loads(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from ris_core.data import read_folder; from ris_core.encoders import image_encoder, text_encoder\n"
        "from ris_core.models.lda import LDA; from ris_core.training.loop import train\n"
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


def test_a_run_of_another_recipe_is_not_continued(untrained: LDA, folder: Path, features: Path, tmp_path: Path) -> None:
    samples = read_folder(folder)
    train(untrained, samples, replace(CACHED, epochs=1), tmp_path, features=features)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TrainingError, match="another recipe"):
        train(untrained, samples, replace(CACHED, epochs=2), tmp_path, features=features)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_run_from_before_a_knob_was_there_goes_on(
    untrained: LDA, folder: Path, features: Path, tmp_path: Path
) -> None:
    samples, start, older = read_folder(folder), weights_of(untrained), tmp_path / "older"
    train(untrained, samples, CACHED, tmp_path / "whole", features=features)
    whole = weights_of(untrained)
    untrained.load_state_dict(start)
    with pytest.raises(Died):
        train(untrained, samples, CACHED, older, die_at(3), features=features)
    state = torch.load(older / STATE, weights_only=True)
    recipe = json.loads(state["recipe"])
    del recipe["paste"]
    torch.save(state | {"recipe": json.dumps(recipe)}, older / STATE)
    steps: list[int] = []
    untrained.load_state_dict(start)
    train(untrained, samples, CACHED, older, lambda at: steps.append(at.step), features=features)
    assert steps[0] == 3
    assert are_equal(weights_of(untrained), whole)


def test_a_state_holds_what_one_of_an_earlier_release_holds(
    untrained: LDA, folder: Path, features: Path, tmp_path: Path
) -> None:
    """Runs that are under way go on after an upgrade, and back."""
    train(untrained, read_folder(folder), replace(CACHED, epochs=1), tmp_path, features=features)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert list(state) == ["recipe", "step", "weights", "mean", "optimizer", "scaler"]
    trained = [name for name, weight in untrained.named_parameters() if weight.requires_grad]
    assert list(state["weights"]) == list(state["mean"]) == trained
    decayed, others = (len(group["params"]) for group in state["optimizer"]["param_groups"])
    assert decayed + others == len(trained)
    assert set(json.loads(state["recipe"])) >= {"epochs", "photos", "side", "views", "rate", "precision", "seed"}
