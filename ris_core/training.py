"""One training loop, for a model from scratch and for one that learns from corrections. Only torch is needed."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ris_core.data.batches import Batch, count_batches, epoch
from ris_core.data.folder import Sample
from ris_core.errors import TrainingError
from ris_core.files import atomic_write
from ris_core.losses import total_loss
from ris_core.models import RISModel
from ris_core.models.parts import valid_cells

STATE = "state.pt"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's outcome besides its data.

    present, absent: expressions drawn a photo and pass, with and without a target. photos: a batch's.
    side: the canvas' longer side in pixels. average: decay of the weights' running mean, which is what is kept.
    """

    epochs: int = 10
    photos: int = 8
    present: int = 2
    absent: int = 1
    side: int = 384
    rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 100
    clip: float = 1.0
    average: float = 0.998
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a run stands. loss: of the last batch. seconds_left: at the pace of this process so far."""

    step: int
    steps: int
    loss: float
    seconds_left: float


def train(
    model: RISModel,
    samples: Sequence[Sample],
    recipe: Recipe,
    run: Path,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train `model` in place; afterwards it holds the running mean of its weights.

    The state is written to `run` after each pass over the photos, and a run that died goes on from there.

    Raises:
        TrainingError: there is nothing to train on, `run` is of another recipe, or the loss is no number.
    """
    model.place()
    per_epoch = count_batches(samples, recipe.photos)
    if not per_epoch:
        raise TrainingError("There is nothing to train on: no sample is in the training split.")
    state = _State(model, recipe, per_epoch * recipe.epochs, run)
    first = state.resume()
    started, steps = time.monotonic(), per_epoch * recipe.epochs
    model.train()
    for number in range(first, recipe.epochs):
        for batch in _batches(samples, recipe, number):
            loss = _loss(model, batch.to(model.device))
            if not math.isfinite(loss.item()):
                raise TrainingError(f"The loss is {loss.item()} at step {state.step}: {', '.join(batch.sentences)}.")
            state.descend(loss)
            pace = (time.monotonic() - started) / (state.step - first * per_epoch)
            report(Progress(state.step, steps, loss.item(), pace * (steps - state.step)))
        state.save(number + 1)
    state.finish()


def _batches(samples: Sequence[Sample], recipe: Recipe, number: int) -> Iterator[Batch]:
    yield from epoch(
        samples,
        side=recipe.side,
        photos=recipe.photos,
        present=recipe.present,
        absent=recipe.absent,
        seed=recipe.seed * 10_000 + number,
        workers=recipe.workers,
    )


def _loss(model: RISModel, batch: Batch) -> Tensor:
    photos = model.encode_image(batch.pixels, batch.valid)
    output = model(photos, model.encode_text(batch.sentences), batch.index)
    valid = valid_cells(batch.valid, output.mask)[batch.index]
    return total_loss(output, batch.targets, valid, batch.present, model.loss)


class _State:
    """Optimiser, schedule and the weights' running mean: what has to survive a kill."""

    def __init__(self, model: RISModel, recipe: Recipe, steps: int, run: Path) -> None:
        self.model, self.recipe, self.run = model, recipe, run
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
        self.steps, self.step = steps, 0

    def descend(self, loss: Tensor) -> None:
        """One step: rate by warm-up then half a cosine, gradients clipped, the mean moved."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.mean[name].lerp_(weight, 1 - decay)

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up))
        return self.recipe.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * self.step / self.steps)) / 2)

    def save(self, epochs: int) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "recipe": json.dumps(asdict(self.recipe)),
                "epochs": epochs,
                "step": self.step,
                "weights": self.weights,
                "mean": self.mean,
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            buffer,
        )
        atomic_write(self.run / STATE, buffer.getvalue())

    def resume(self) -> int:
        """Go on from the state in the run folder, if there is one -> passes already done."""
        path = self.run / STATE
        if not path.is_file():
            torch.manual_seed(self.recipe.seed)
            return 0
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe)):
            raise TrainingError(f"{self.run} holds a run of another recipe. Choose another folder, or delete it.")
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        self.mean = state["mean"]
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        self.step = state["step"]
        return int(state["epochs"])

    def finish(self) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.mean[name])
        self.model.eval()
