"""Short runs of training, and what breaks them off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ris_core.models.lda import LDA
from ris_core.training.loop import TrainingProgress
from ris_core.training.recipe import Recipe

# Two steps a pass over the six photos of `folder`.
RECIPE = Recipe(epochs=3, photos=4, side=96, warm_up=2, average=0.5, rate=2e-3)
# Where a view may come again, so that its encoding can be shared.
CACHED = replace(RECIPE, views=1)


class Died(Exception):
    """A run that ends in mid-air."""


def die_at(step: int) -> Callable[[TrainingProgress], None]:
    """What hears of a run's progress, and lets it die."""

    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise Died

    return on_progress


def weights_of(model: LDA) -> dict[str, torch.Tensor]:
    """A copy of all that a model holds."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two models hold the same to the last bit."""
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
