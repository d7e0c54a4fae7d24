"""What of a training run has to survive a kill: optimiser, schedule, weights and their running mean, in one file."""

import io
import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ris_core.errors import TrainingError
from ris_core.files import atomic_write
from ris_core.models.base import RISModel
from ris_core.training.processes import Processes
from ris_core.training.recipe import Recipe

STATE = "state.pt"


class TrainingState:
    """Where a run stands: `step` of `steps` are made. Goes on from the state in the run's folder, if there is one."""

    def __init__(self, model: RISModel, recipe: Recipe, steps: int, folder: Path, processes: Processes) -> None:
        """Raises TrainingError if `folder` holds a run of another recipe."""
        self.model, self.recipe, self.processes = model, recipe, processes
        self.steps, self.step = steps, 0
        self._path = folder / STATE
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._mean = {name: weight.detach().clone() for name, weight in self._weights.items()}
        # Gains, biases and temperatures aren't pulled to zero.
        decayed = [weight for weight in self._weights.values() if weight.ndim > 1]
        others = [weight for weight in self._weights.values() if weight.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.rate,
        )
        # Only float16 needs its loss scaled up, or small gradients would vanish.
        self._scaler = torch.amp.GradScaler(model.device.type, enabled=recipe.precision == "float16")
        if self._path.is_file():
            self._resume()
        self._started = self._saved = time.monotonic()
        self._first = self.step

    @property
    def age(self) -> float:
        """Seconds since the last state was saved."""
        return time.monotonic() - self._saved

    @property
    def pace(self) -> float:
        """Seconds that this process took for a step so far."""
        return (time.monotonic() - self._started) / max(1, self.step - self._first)

    @property
    def rate(self) -> float:
        """The learning rate of the next step: warm-up, then half a cosine."""
        warm = min(1.0, (self.step + 1) / max(1, self.recipe.warm_up))
        return self.recipe.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * self.step / self.steps)) / 2)

    def seed(self) -> None:
        """Chance depends on the step alone, on every device: no generator's state has to be kept."""
        torch.manual_seed(random.Random(f"{self.recipe.seed} {self.step} {self.processes.rank}").getrandbits(63))

    def backward(self, loss: Tensor) -> None:
        """Add a loss' gradient to those that the next step goes by."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def descend(self) -> None:
        """One step: gradients averaged over processes and clipped, weights changed, the mean moved."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._scaler.unscale_(self._optimizer)
        self.processes.average_gradients(self._weights.values())
        torch.nn.utils.clip_grad_norm_(self._weights.values(), self.recipe.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # Early on the mean is of few steps.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._mean[name].lerp_(weight, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model answers with the running mean of its weights; afterwards it trains on with its own."""
        held = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.finish()
        try:
            yield
        finally:
            self._hold(held)
            self.model.train()

    def finish(self) -> None:
        """Leave the model with the running mean of its weights, ready to answer."""
        self._hold(self._mean)
        self.model.eval()

    def save(self) -> None:
        """Write the state to the run's folder; the first process does."""
        self._saved = time.monotonic()
        if self.processes.rank:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "recipe": json.dumps(asdict(self.recipe)),
                "step": self.step,
                "weights": self._weights,
                "mean": self._mean,
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
            },
            buffer,
        )
        atomic_write(self._path, buffer.getvalue())

    def _resume(self) -> None:
        state = torch.load(self._path, map_location=self.model.device, weights_only=True)
        # What a recipe didn't say when the run began is as usual.
        if asdict(Recipe()) | json.loads(state["recipe"]) != asdict(self.recipe):
            raise TrainingError(
                f"{self._path.parent} holds a run of another recipe. Choose another folder, or delete it."
            )
        self._hold(state["weights"])
        self._mean = state["mean"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def _hold(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(values[name])
