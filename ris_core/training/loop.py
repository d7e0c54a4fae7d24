"""One training loop, for a model from scratch and for one that learns from corrections. Only torch is needed.

Started by `torchrun` or `accelerate launch`, processes share each batch's photos and average their gradients.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ris_core.data.folder import Sample
from ris_core.errors import TrainingError
from ris_core.models.base import RISModel
from ris_core.training.batches import TrainingBatch, count_batches, epoch_batches
from ris_core.training.feature_cache import FeatureCache
from ris_core.training.objective import Objective
from ris_core.training.processes import Processes, is_first, join_processes
from ris_core.training.recipe import Recipe
from ris_core.training.run_folder import RunFolder, Validation
from ris_core.training.state import TrainingState

# Seconds of work that a SIGKILL may cost at most.
SAVE_EVERY = 30.0


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands. loss: of the last batch. seconds_left: at the pace of this process so far."""

    step: int
    steps: int
    loss: float
    seconds_left: float


class Interrupted(Exception):
    """A run was asked to stop and has saved its state: called again, it goes on from that very step."""


def train(
    model: RISModel,
    samples: Sequence[Sample],
    recipe: Recipe,
    folder: Path,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    validate: Callable[[], Validation] | None = None,
    features: Path | FeatureCache | None = None,
    weights: Sequence[float] | None = None,
    teacher: RISModel | None = None,
    stop: Callable[[], bool] = lambda: False,
    save_every: float = SAVE_EVERY,
) -> None:
    """Train `model` in place; afterwards it holds the running mean of its weights.

    The state is written to `folder` after each pass over the photos and, where passes are long, within them. A run that
    died goes on from there, to the weights that it would have come to.

    Args:
        on_progress: hears of every step.
        validate: called after each pass, by the first process alone, while the model holds the running mean.
        features: where the frozen stages' output of repeated views is kept; runs may share it. [folder/features]
        weights: how often each sample is drawn, see `batches.epoch_batches`.
        teacher: answers samples of the kind `RECALLED`; `model` is taught to answer like it (learning without
            forgetting, Li and Hoiem 2016). Its image encoder's frozen stages have to be the model's.
        stop: asked after every step but the last; once it is true, that step's state is saved and the run ends.
        save_every: seconds from one state to the next within a pass.

    Raises:
        Interrupted: `stop` was true.
        TrainingError: there is nothing to train on, `folder` is of another recipe, or the loss is no number.
    """
    processes = join_processes()
    course = _SentenceCourse(model, samples, recipe, processes, features or folder / "features", weights, teacher)
    train_course(model, course, recipe, folder, processes, on_progress, validate, stop, save_every)


class Course(Protocol):
    """What a run goes through, and what it learns by. Every batch has `sentences`, as many as it has targets."""

    def batches(self, number: int, skip: int) -> Iterable[Any]:
        """This process' share of pass `number`, without the first `skip` batches; as many in every pass."""

    def count(self) -> int:
        """Batches in a pass."""

    def loss(self, batch: Any) -> Tensor:
        """One number, with its gradient, for at least one target."""


def train_course(
    model: RISModel,
    course: Course,
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    validate: Callable[[], Validation] | None = None,
    stop: Callable[[], bool] = lambda: False,
    save_every: float = SAVE_EVERY,
) -> None:
    """Train what of `model` requires a gradient; everything else as for `train`."""
    in_pass = course.count()
    if not in_pass:
        raise TrainingError("There is nothing to train on: no sample is in the training split.")
    per_pass = -(-in_pass // recipe.accumulate)
    state = TrainingState(model, recipe, per_pass * recipe.epochs, folder, processes)
    run = RunFolder(folder, asdict(recipe) | model.config(), state.step, active=is_first())
    model.train()
    for number in range(state.step // per_pass, recipe.epochs):
        batches = iter(course.batches(number, state.step % per_pass * recipe.accumulate))
        while group := list(islice(batches, recipe.accumulate)):
            progress = _step(course, group, state)
            run.log(step=state.step, epoch=number, loss=progress.loss, rate=state.rate, seconds=state.pace)
            on_progress(progress)
            ended = state.step % per_pass == 0
            if ended:
                _end_pass(number, state, run, validate)
            stopped = state.step < state.steps and processes.any(stop())
            if stopped or ended or state.age > save_every:
                state.save()
            if stopped:
                raise Interrupted
    state.finish()


class _SentenceCourse:
    """Photos, each with a few expressions."""

    def __init__(
        self,
        model: RISModel,
        samples: Sequence[Sample],
        recipe: Recipe,
        processes: Processes,
        features: Path | FeatureCache,
        weights: Sequence[float] | None,
        teacher: RISModel | None,
    ) -> None:
        self._samples, self._recipe, self._processes, self._weights = samples, recipe, processes, weights
        self._objective = Objective(model, recipe, features, teacher)
        self.loss = self._objective.loss

    def batches(self, number: int, skip: int) -> Iterable[TrainingBatch]:
        part = self._processes.rank, self._processes.count
        return epoch_batches(self._samples, self._recipe, number, part, self._objective.cache, skip, self._weights)

    def count(self) -> int:
        return count_batches(self._samples, self._recipe.photos, self._processes.count)


def _step(course: Course, group: Sequence[Any], state: TrainingState) -> TrainingProgress:
    """Learn from one step's batches."""
    state.seed()
    losses = [_backward(course, batch, state, len(group)) for batch in group]
    state.descend()
    return TrainingProgress(state.step, state.steps, sum(losses) / len(losses), state.pace * (state.steps - state.step))


def _backward(course: Course, batch: Any, state: TrainingState, batches: int) -> float:
    """Add the gradient of one of a step's `batches` -> its loss."""
    # A process counts by its expressions, so that several together do what one would do alone.
    share = state.processes.share(len(batch.sentences))
    if not batch.sentences:
        return 0.0
    loss = course.loss(batch)
    if not math.isfinite(loss.item()):
        raise TrainingError(f"The loss is {loss.item()} at step {state.step}: {', '.join(batch.sentences)}.")
    state.backward(loss * share / batches)
    return loss.item()


def _end_pass(number: int, state: TrainingState, run: RunFolder, validate: Callable[[], Validation] | None) -> None:
    """Show how the running mean does after pass `number`, and how the run went so far."""
    if validate and is_first():
        with state.averaged():
            validation = validate()
        run.log(step=state.step, epoch=number, **validation.figures)
        run.keep_sheet(number, validation.sheet)
    run.draw_curves()
