"""The way to the device that a model lies on, without waiting for what it still works on."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, or a copy on `device`. The source must not change while the copy is under way, if it is pinned."""
    # From memory that isn't pinned the driver takes its own copy before it returns: nobody waits, and nothing is torn.
    return tensor.to(device, non_blocking=True)


def staging(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor on the CPU from which `send` copies to `device` while the CPU goes on."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
