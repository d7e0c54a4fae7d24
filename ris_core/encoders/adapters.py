"""How much of the encoders a version of a model changes: nothing, adapters in their last stages, or everything.

Adapters are LoRA (Hu et al. 2021) through `peft`: two thin matrices beside each linear map. A version that was
fine-tuned so is a few MB, and shares all other weights of its encoders with every other version in the process.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeVar

from torch import nn

from ris_core.encoders.base import ImageEncoder, TextEncoder
from ris_core.errors import InputError

Encoder = TypeVar("Encoder", ImageEncoder, TextEncoder)


@dataclass(frozen=True)
class Tuning:
    """What is trained of the encoders.

    encoders: "frozen", "adapters" (parameter-efficient) or "full".
    stages, text_stages: the last stages of the image and of the text encoder that get adapters; more than there are is
        all, and a text encoder may stay frozen with 0. rank: of the adapters' matrices.
    """

    encoders: Literal["frozen", "adapters", "full"] = "frozen"
    stages: int = 1
    text_stages: int = 1
    rank: int = 8

    def __post_init__(self) -> None:
        if self.stages < 1 or self.rank < 1:
            raise InputError(f"Adapters need a stage and a rank of 1 or more, not {self.stages} and {self.rank}.")


def tune(encoder: Encoder, tuning: Tuning) -> Encoder:
    """The encoder itself if it stays frozen; else a copy in which exactly what is to be trained requires gradients.

    Raises:
        InputError: there is nothing in the encoder's last stages that adapters could stand beside.
    """
    stages = tuning.stages if isinstance(encoder, ImageEncoder) else tuning.text_stages
    if tuning.encoders == "frozen" or (tuning.encoders == "adapters" and not stages):
        return encoder
    if tuning.encoders == "full":
        whole = copy.deepcopy(encoder).requires_grad_(True)
        if isinstance(whole, ImageEncoder):
            whole.frozen = 0
        return whole
    # Known to the copier already, the tensors themselves are shared.
    shared = {id(tensor): tensor for tensor in chain(encoder.parameters(), encoder.buffers())}
    adapted = copy.deepcopy(encoder, shared)
    if not _inject(adapted.stages[-stages:], tuning.rank):
        raise InputError(f"The last stages of {encoder.name} hold no linear map to adapt. Take more stages, or none.")
    if isinstance(adapted, ImageEncoder):
        adapted.frozen = max(0, len(adapted.stages) - stages)
    adapted.eval()
    return adapted


def _inject(stages: nn.Module, rank: int) -> int:
    """Put adapters beside the linear maps of `stages` -> how many there are."""
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - takes seconds, and few need it

    maps = [name for name, module in stages.named_modules() if _is_linear(module)]
    if maps:
        # As a pattern for the whole name: names in a list would also match others that end like them.
        pattern = "|".join(map(re.escape, maps))
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=pattern), stages)
    return len(maps)


def _is_linear(module: nn.Module) -> bool:
    # Subclasses are left out: what they add to the map, an adapter beside it would lack.
    if type(module) is nn.Conv2d:
        return module.kernel_size == (1, 1) and module.groups == 1
    return type(module) is nn.Linear
