"""A model in another precision, for prediction: copied once, where autocast would convert weights at each call.

The model itself stays as it is: training goes on in float32, and models of a process share their frozen encoders. Of
those a copy in each precision is shared as well.
"""

from __future__ import annotations

import copy
import threading
from itertools import chain
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ris_core.encoders.transformer_text import TransformerText
from ris_core.models.base import RISModel

Module = TypeVar("Module", bound=nn.Module)
_Precision: TypeAlias = tuple[torch.dtype, torch.device]

_casting = threading.Lock()
_shared: WeakKeyDictionary[nn.Module, dict[_Precision, nn.Module]] = WeakKeyDictionary()


def cast(model: RISModel, dtype: torch.dtype, device: torch.device) -> RISModel:
    """A copy of the model and its encoders, to predict with: parameters in `dtype`, all of it on `device`.

    Buffers keep their precision: what pixels are normalised with has more digits than half precision.
    """
    encoders = (model.image_encoder, model.text_encoder)
    memo: dict[int, object] = {id(part): _frozen(part, dtype, device) for part in encoders if _is_frozen(part)}
    return _copy(model, [part for part in encoders if not _is_frozen(part)], memo, dtype, device).eval()


def _frozen(encoder: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The copy of an encoder that nothing trains, made once."""
    with _casting, torch.inference_mode(False):
        copies = _shared.setdefault(encoder, {})
        if (dtype, device) not in copies:
            copies[dtype, device] = _copy(encoder, [encoder], {}, dtype, device)
        return copies[dtype, device]


def _copy(
    module: Module, encoders: list[nn.Module], memo: dict[int, object], dtype: torch.dtype, device: torch.device
) -> Module:
    """A copy of the module, and with it of `encoders`, which may lie outside its tree."""
    parts: list[nn.Module] = [module, *encoders]
    for tensor in chain.from_iterable(chain(part.parameters(), part.buffers()) for part in parts):
        # Known to the copier already: never is there a second copy in float32.
        memo[id(tensor)] = _cast_tensor(tensor, dtype, device)
    for encoder in encoders:
        if isinstance(encoder, TransformerText):
            memo[id(encoder.tokenizer)] = encoder.tokenizer
    return copy.deepcopy(module, memo)


def _cast_tensor(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return tensor.detach().to(device)
    value = tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
    if device.type == "cuda" and value.dim() == 4:
        # Half the time of a convolution on a GPU goes into another layout otherwise.
        value = value.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(value, requires_grad=False)


def _is_frozen(encoder: nn.Module) -> bool:
    return not any(weight.requires_grad for weight in encoder.parameters())
