"""How much of the encoders a version of a model changes: nothing, adapters in their last stages, or everything.

Adapters are LoRA (Hu et al. 2021): two thin matrices beside each linear map, trained through `peft`. A version that was
fine-tuned so is a few MB, and shares all other weights of its encoders with every other version in the process. To
predict, they are merged into copies of the maps that they stand beside: the same function at the plain encoder's speed.
"""

import copy
import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ris_core.encoders.base import Encoder, ImageEncoder
from ris_core.errors import InputError
from ris_core.tuning import Tuning

# What adapters add counts so much: LoRA's alpha over its rank.
_SCALE = 2
# Under this name peft keeps the only adapter of a map.
_NAME = "default"
_Adapt: TypeAlias = Callable[[Mapping[str, nn.Module], nn.Module, int], None]
"""Linear maps by name, the module that holds them, and the adapters' rank."""


def tune(encoder: Encoder, tuning: Tuning) -> Encoder:
    """The encoder itself if it stays frozen; else a copy in which exactly what is to be trained requires gradients.

    One from `with_room` is left as it is. Raises InputError if the last stages hold nothing that takes adapters.
    """
    if tuning.encoders == "full" and _stages(encoder, tuning):
        return copy.deepcopy(encoder).requires_grad_(True)
    return _adapted(encoder, tuning, _inject)


def with_room(encoder: Encoder, tuning: Tuning) -> Encoder:
    """As `tune`, but for prediction alone and without `peft`: adapters have room in it, and no effect until `merge`."""
    return _adapted(encoder, tuning, _make_room) if tuning.encoders == "adapters" else encoder


@torch.no_grad()
def merge(module: nn.Module) -> None:
    """Let the adapters that were loaded into encoders from `with_room` take effect, once. Shared tensors stay as is."""
    for part in filter(_has_room, module.modules()):
        weight = part.get_parameter("weight")
        down, up = (part.get_parameter(f"{matrix}.{_NAME}.weight").flatten(1) for matrix in ("lora_A", "lora_B"))
        part.weight = nn.Parameter(weight + _SCALE * (up @ down).view_as(weight), requires_grad=False)


def without_room(encoder: Encoder) -> Encoder:
    """A copy of one whose adapters were merged, as if it had never had any; itself if it never had."""
    if not any(map(_has_room, encoder.modules())):
        return encoder
    plain = copy.deepcopy(encoder)
    for part in list(filter(_has_room, plain.modules())):
        del part.lora_A, part.lora_B
    return plain


def _adapted(encoder: Encoder, tuning: Tuning, adapt: _Adapt) -> Encoder:
    """The encoder itself if there is nothing to adapt; else a copy that shares all tensors, after `adapt`."""
    stages = _stages(encoder, tuning)
    if tuning.encoders != "adapters" or not stages or any(map(_has_room, encoder.modules())):
        return encoder
    # Known to the copier already, the tensors themselves are shared.
    shared = {id(tensor): tensor for tensor in chain(encoder.parameters(), encoder.buffers())}
    adapted = copy.deepcopy(encoder, shared)
    last = adapted.stages[-stages:]
    maps = {name: module for name, module in last.named_modules() if _is_linear(module)}
    if not maps:
        raise InputError(f"The last stages of {encoder.name} hold no linear map to adapt. Take more stages, or none.")
    adapt(maps, last, tuning.rank)
    return adapted.eval()


def _stages(encoder: Encoder, tuning: Tuning) -> int:
    return tuning.stages if isinstance(encoder, ImageEncoder) else tuning.text_stages


def _inject(maps: Mapping[str, nn.Module], stages: nn.Module, rank: int) -> None:
    """Put adapters beside the linear maps of `stages`."""
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - takes seconds, and few need it

    # As a pattern for the whole name: names in a list would also match others that end like them.
    pattern = "|".join(map(re.escape, maps))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules=pattern), stages)


def _make_room(maps: Mapping[str, nn.Module], _stages: nn.Module, rank: int) -> None:
    """Give each linear map its adapter's matrices, by the names that peft gives them, for `merge` and for saving."""
    for module in maps.values():
        weight = module.get_parameter("weight")
        # (1, 1) of a convolution, nothing of a linear map.
        rows, columns, *ones = weight.shape
        module.lora_A = nn.ModuleDict({_NAME: _Matrix(weight.new_zeros(rank, columns, *ones))})
        module.lora_B = nn.ModuleDict({_NAME: _Matrix(weight.new_zeros(rows, rank, *ones))})


class _Matrix(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def _has_room(module: nn.Module) -> bool:
    return _is_linear(module) and hasattr(module, "lora_A")


def _is_linear(module: nn.Module) -> bool:
    # Subclasses are left out: what they add to the map, an adapter beside it would lack.
    if type(module) is nn.Conv2d:
        return module.kernel_size == (1, 1) and module.groups == 1
    return type(module) is nn.Linear
