"""One training loop, for a model from scratch and for one that learns from corrections. Only torch is needed.

Started by `torchrun` or `accelerate launch`, processes share each batch's photos and average their gradients.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed

from ris_core.data.folder import Sample
from ris_core.encoders.base import TextFeatures, Trunk
from ris_core.errors import TrainingError
from ris_core.files import atomic_write
from ris_core.losses import total_loss
from ris_core.models import ImageEmbedding, Output, RISModel
from ris_core.models.layers import valid_cells
from ris_core.training.batches import TrainingBatch, count_batches, epoch
from ris_core.training.feature_cache import FeatureCache, join, to
from ris_core.training.recipe import Recipe
from ris_core.training.run_folder import Run, Validation

STATE = "state.pt"
# Seconds of work that a SIGKILL may cost at most.
SAVE_EVERY = 30.0
T = TypeVar("T")


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
    report: Callable[[TrainingProgress], None] = lambda progress: None,
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
        report: hears of every step.
        features: where the frozen stages' output of repeated views is kept; runs may share it. [folder/features]
        weights: how often each sample is drawn, see `batches.epoch`.
        teacher: answers samples of the kind `RECALLED`; `model` is taught to answer like it (learning without
            forgetting, Li and Hoiem 2016). Its image encoder's frozen stages have to be the model's.
        validate: called after each pass, by the first process alone, while the model holds the running mean.
        stop: asked after every step but the last; once it is true, that step's state is saved and the run ends.
        save_every: seconds from one state to the next within a pass.

    Raises:
        Interrupted: `stop` was true.
        TrainingError: there is nothing to train on, `folder` is of another recipe, or the loss is no number.
    """
    processes = _processes()
    for each in (model, teacher):
        if each:
            each.place()
    batches = count_batches(samples, recipe.photos, processes.count)
    if not batches:
        raise TrainingError("There is nothing to train on: no sample is in the training split.")
    cache = None
    if recipe.views and not model.early_fusion:
        features = features or folder / "features"
        cache = FeatureCache(features, model.image_encoder) if isinstance(features, Path) else features
    per_pass = -(-batches // recipe.accumulate)
    state = _State(model, recipe, per_pass * recipe.epochs, folder, processes)
    run = Run(folder, asdict(recipe) | model.config(), active=processes.rank == 0)
    state.resume()
    run.forget(after=state.step)
    started, resumed_at = time.monotonic(), state.step
    model.train()
    for number, group in _steps(samples, weights, recipe, state.step, per_pass, processes, cache):
        state.seed()
        losses = [_backward(model, teacher, batch, cache, state, len(group)) for batch in group]
        state.descend()
        pace = (time.monotonic() - started) / (state.step - resumed_at)
        loss = sum(losses) / len(losses)
        run.log(step=state.step, epoch=number, loss=loss, rate=state.rate(), seconds=pace)
        report(TrainingProgress(state.step, state.steps, loss, pace * (state.steps - state.step)))
        ended = state.step % per_pass == 0
        if ended and validate and is_first():
            with state.averaged():
                seen = validate()
            model.train()
            run.log(step=state.step, epoch=number, **seen.figures)
            run.show(number, seen.sheet)
        if ended:
            run.draw()
        stopped = state.step < state.steps and processes.any(stop())
        if stopped or ended or state.age() > save_every:
            state.save()
        if stopped:
            raise Interrupted
    state.finish()


def agreed(value: T) -> T:
    """What the first of the processes that train together says: a measurement is another in each of them."""
    if _processes().count > 1:
        said = [value]
        distributed.broadcast_object_list(said)
        value = said[0]
    return value


def is_first() -> bool:
    """Whether this process is a run's only one, or the one that speaks for the others."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _backward(
    model: RISModel,
    teacher: RISModel | None,
    batch: TrainingBatch,
    cache: FeatureCache | None,
    state: _State,
    together: int,
) -> float:
    """Add a batch's gradient -> its loss."""
    batch = batch.to(model.device)
    # A process counts by its expressions, so that several together do what one would do alone.
    share = state.processes.share(len(batch.sentences), model.device)
    if not batch.sentences:
        return 0.0
    with torch.autocast(model.device.type, getattr(torch, state.recipe.precision), state.recipe.precision != "float32"):
        trunk = None if model.early_fusion else _trunk(model, batch, cache)
        text = model.encode_text(batch.sentences)
        output = _in_float(model(_photos(model, batch, trunk), text, batch.index))
        if teacher and batch.recalled.any():
            batch = _recall(teacher, batch, trunk, text)
    valid = valid_cells(batch.valid, output.mask)[batch.index]
    loss = total_loss(output, batch.targets, valid, batch.present, model.loss)
    if not math.isfinite(loss.item()):
        raise TrainingError(f"The loss is {loss.item()} at step {state.step}: {', '.join(batch.sentences)}.")
    state.scaler.scale(loss * share / together).backward()  # type: ignore[no-untyped-call]
    return loss.item()


@torch.no_grad()
def _recall(teacher: RISModel, batch: TrainingBatch, trunk: Trunk | None, text: TextFeatures) -> TrainingBatch:
    """The batch with the teacher's answers as targets, where they are to be."""
    which = batch.recalled
    known = _in_float(teacher(_photos(teacher, batch, trunk), text[which], batch.index[which]))
    targets, present = batch.targets.clone(), batch.present.clone()
    targets[which], present[which] = known.mask.sigmoid(), known.presence.sigmoid()
    return replace(batch, targets=targets, present=present)


def _in_float(output: Output) -> Output:
    """The parts of an output that the loss reads, in float32."""
    return output._replace(**{name: getattr(output, name).float() for name in ("mask", "presence", "quality")})


def _photos(model: RISModel, batch: TrainingBatch, trunk: Trunk | None) -> ImageEmbedding:
    return model.read_trunk(trunk, batch.valid) if trunk else model.encode_image(batch.pixels, batch.valid)


def _trunk(model: RISModel, batch: TrainingBatch, cache: FeatureCache | None) -> Trunk:
    """What the frozen stages make of a batch: from the cache, and into it."""
    with torch.no_grad():
        if cache is None:
            return model.trunk(batch.pixels, batch.valid)
        unknown, trunks = iter(batch.pixels), list[Trunk]()
        for key, known, valid in zip(batch.keys, batch.trunks, batch.valid, strict=True):
            # One by one, and as it will be read: what others hold makes no difference to what is learnt.
            trunk = known or cache.write(key, model.trunk(next(unknown)[None], valid[None]))
            trunks.append(to(trunk, model.device))
    return join(trunks)


def _steps(
    samples: Sequence[Sample],
    weights: Sequence[float] | None,
    recipe: Recipe,
    done: int,
    per_pass: int,
    processes: _Processes,
    cache: FeatureCache | None,
) -> Iterator[tuple[int, list[TrainingBatch]]]:
    """The batches of each step that is still to be made after `done` of them, and the number of its pass."""
    for number in range(done // per_pass, recipe.epochs):
        made = done % per_pass if number == done // per_pass else 0
        batches = epoch(
            samples,
            recipe.draw,
            number=number,
            seed=recipe.seed,
            part=(processes.rank, processes.count),
            cache=cache,
            workers=recipe.workers,
            skip=made * recipe.accumulate,
            weights=weights,
        )
        for group in _grouped(batches, recipe.accumulate):
            yield number, group


def _grouped(batches: Iterable[TrainingBatch], size: int) -> Iterator[list[TrainingBatch]]:
    group: list[TrainingBatch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


@dataclass(frozen=True)
class _Processes:
    rank: int
    count: int

    def share(self, expressions: int, device: torch.device) -> float:
        """This process' share of all expressions, times the number of processes: gradients are averaged later."""
        if self.count == 1:
            return 1.0
        total = torch.tensor(float(expressions), device=device)
        distributed.all_reduce(total)
        return self.count * expressions / max(1.0, total.item())

    def any(self, flag: bool) -> bool:
        """Whether it is true in any of them: they have to stop together."""
        if self.count == 1:
            return flag
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        flags = torch.tensor(float(flag), device=device)
        distributed.all_reduce(flags)
        return flags.item() > 0

    def average(self, weights: Iterable[Tensor]) -> None:
        """Give all processes the mean of their gradients; of a batch in which nothing is said it is zero."""
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            if self.count > 1:
                distributed.all_reduce(weight.grad)
                weight.grad.div_(self.count)


def _processes() -> _Processes:
    count = process_count()
    if count == 1:
        return _Processes(0, 1)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        distributed.init_process_group()
    return _Processes(distributed.get_rank(), count)


class _State:
    """Optimiser, schedule and the weights' running mean: what has to survive a kill."""

    def __init__(self, model: RISModel, recipe: Recipe, steps: int, run: Path, processes: _Processes) -> None:
        self.model, self.recipe, self.run, self.processes = model, recipe, run, processes
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.mean = {name: weight.detach().clone() for name, weight in self.weights.items()}
        # Gains, biases and temperatures aren't pulled to zero.
        decayed = [weight for weight in self.weights.values() if weight.ndim > 1]
        others = [weight for weight in self.weights.values() if weight.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.rate,
        )
        # Only float16 needs its loss scaled up, or small gradients would vanish.
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=recipe.precision == "float16")
        self.steps, self.step = steps, 0
        self._saved = time.monotonic()

    def seed(self) -> None:
        """Chance depends on the step alone, on every device: no generator's state has to be kept."""
        torch.manual_seed(random.Random(f"{self.recipe.seed} {self.step} {self.processes.rank}").getrandbits(63))

    def age(self) -> float:
        """Seconds since the last state was saved."""
        return time.monotonic() - self._saved

    def descend(self) -> None:
        """One step: rate by warm-up then half a cosine, gradients clipped, the mean moved."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.scaler.unscale_(self.optimizer)
        self.processes.average(self.weights.values())
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.mean[name].lerp_(weight, 1 - decay)

    def rate(self) -> float:
        """The learning rate of the next step."""
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up))
        return self.recipe.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * self.step / self.steps)) / 2)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the running mean of its weights."""
        held = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._hold(self.mean)
        self.model.eval()
        try:
            yield
        finally:
            self._hold(held)

    def save(self) -> None:
        self._saved = time.monotonic()
        if self.processes.rank:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "recipe": json.dumps(asdict(self.recipe)),
                "step": self.step,
                "weights": self.weights,
                "mean": self.mean,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
            buffer,
        )
        atomic_write(self.run / STATE, buffer.getvalue())

    def resume(self) -> None:
        """Go on from the state in the run folder, if there is one."""
        path = self.run / STATE
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        # What a recipe didn't say when the run began is as usual.
        if asdict(Recipe()) | json.loads(state["recipe"]) != asdict(self.recipe):
            raise TrainingError(f"{self.run} holds a run of another recipe. Choose another folder, or delete it.")
        self._hold(state["weights"])
        self.mean = state["mean"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def finish(self) -> None:
        self._hold(self.mean)
        self.model.eval()

    def _hold(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(values[name])
