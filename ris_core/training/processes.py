"""Processes that train together, as `torchrun` or `accelerate launch` starts them: what they share and agree upon."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process' number, from 0, among `count` that train together."""

    rank: int
    count: int

    def share(self, expressions: int) -> float:
        """This process' share of all expressions, times the number of processes: gradients are averaged later."""
        return self.count * expressions / max(1.0, self._sum(expressions))

    def any(self, flag: bool) -> bool:
        """Whether it is true in any of them: they have to stop together."""
        return self._sum(flag) > 0

    def _sum(self, number: float) -> float:
        if self.count == 1:
            return number
        total = torch.tensor(float(number), device="cuda" if torch.cuda.is_available() else "cpu")
        distributed.all_reduce(total)
        return total.item()

    def average_gradients(self, weights: Iterable[Tensor]) -> None:
        """Give all processes the mean of their gradients; of a batch in which nothing is said it is zero."""
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            if self.count > 1:
                distributed.all_reduce(weight.grad)
                weight.grad.div_(self.count)


def join_processes() -> Processes:
    """Take this process' place among those that train together; alone where nothing launched it."""
    count = process_count()
    if count == 1:
        return Processes(0, 1)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        distributed.init_process_group()
    return Processes(distributed.get_rank(), count)


def broadcast(value: T) -> T:
    """The first process' value, in all that train together: a measurement is another in each of them."""
    if join_processes().count > 1:
        values = [value]
        distributed.broadcast_object_list(values)
        value = values[0]
    return value


def is_first() -> bool:
    """Whether this process is a run's only one, or the one that speaks for the others."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
