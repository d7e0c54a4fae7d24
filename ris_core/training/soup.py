"""The mean of checkpoints, often better than each: "model soups" (Wortsman et al. 2022, arXiv 2203.05482)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.errors import CheckpointError, InputError
from ris_core.models.base import RISModel


def average(folders: Sequence[Path]) -> tuple[RISModel, OperatingPoint]:
    """A model whose every weight is the mean of theirs, adapters' too, with the first one's operating point.

    They should come from one start: the mean of two trained apart from the first step on is good for nothing.

    Raises InputError if there are fewer than two, CheckpointError if one can't be loaded, or is of another design,
    encoders, switches or tuning than the first.
    """
    check_several(folders)
    model, point = checkpoint.load(folders[0])
    states = [model.own_state()]
    for folder in folders[1:]:
        other, _ = checkpoint.load(folder)
        if other.config() != model.config():
            raise CheckpointError(
                f"{folder} isn't made like {folders[0]}: only checkpoints of one design with the same encoders, "
                "switches and tuning have a mean. Their config.json says what differs."
            )
        states.append(other.own_state())
    model.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]}, strict=False)
    return model, point


def check_several(models: Sequence[object]) -> None:
    """Raise an InputError if that is nothing to take a mean of."""
    if len(models) < 2:
        raise InputError("A mean takes two checkpoints or more. Name another.")


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(first.dtype)
