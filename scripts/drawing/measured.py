"""Shapes and parameter counts for the drawings, read off modules that run.

The encoders are the real ones, a design's own layers are at random: that changes no shape. Two photos are asked three
sentences, so that a first dimension says whether something is computed once a photo (B) or once a sentence (N).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.models import MODELS
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.output import Output

# What a photo of 640x480 is read at.
CANVAS = (384, 480)
PHOTOS = 2
SENTENCES = ("the cat", "the small cup on the left side", "the red dress")
# Of these, a photo each.
INDEX = (0, 1, 1)
# Words of the longest with its two special tokens: no other dimension of a drawn tensor is as large.
WORDS = 9


@dataclass(frozen=True)
class Run:
    """A model that has answered.

    levels: of the image encoder. outputs: what each module of the model gave last, by its name.
    """

    model: RISModel
    pixels: Tensor
    levels: list[Tensor]
    text: TextFeatures
    embedding: ImageEmbedding
    answer: Output
    outputs: dict[str, Any]

    def shape(self, name: str) -> str:
        """That of what a module gave; of its first tensor, if there are several."""
        given = self.outputs[name]
        return shape(given if isinstance(given, Tensor) else given[0])

    def size(self, *names: str) -> str:
        """The parameters of these modules of the model together."""
        return size(parameter for name in names for parameter in self.model.get_submodule(name).parameters())


@cache
def run(design: str) -> Run:
    """A design with its default switches over the shipped encoders, untrained, after it has answered."""
    torch.manual_seed(0)
    model = MODELS[design](image_encoder("efficientnet-lite2"), text_encoder("minilm")).eval()
    pixels, valid = torch.full((PHOTOS, 3, *CANVAS), 127.0), torch.ones(PHOTOS, 1, *CANVAS)
    with torch.inference_mode():
        text = model.encode_text(SENTENCES)
        if text.words.shape[1] != WORDS:
            raise AssertionError(f"the longest sentence has {text.words.shape[1]} words, not {WORDS}")
        levels = model.encode_levels(pixels, valid)

        def answer() -> tuple[ImageEmbedding, Output]:
            embedding = model.encode_image(pixels, valid)
            return embedding, model(embedding, text, torch.tensor(INDEX))

        (embedding, output), outputs = watched(model, answer)
    return Run(model, pixels, levels, text, embedding, output, outputs)


def watched(model: nn.Module, call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What a call gives, and what each module of the model gave in it last, by its name."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(keep(name)).remove)
        return call(), outputs


def shape(tensor: Tensor, symbols: Mapping[int, str] | None = None) -> str:
    """As the drawings write it: N sentences or B photos first, L words; the grid of a map last, without spaces.

    symbols: for dimensions after the first, what stands for a length.
    """
    symbols = {WORDS: "L", WORDS + 1: "(1+L)"} | dict(symbols or {})
    first = {PHOTOS: "B", len(SENTENCES): "N"}.get(len(tensor), str(len(tensor)))
    sizes = [first, *(symbols.get(length, str(length)) for length in tensor.shape[1:])]
    if tensor.ndim == 4 and tensor.shape[2] * CANVAS[1] == tensor.shape[3] * CANVAS[0]:
        sizes[2:] = ["×".join(sizes[2:])]
    return " × ".join(sizes)


def size(parameters: Iterable[Tensor]) -> str:
    """How many parameters, in words."""
    count = sum(parameter.numel() for parameter in parameters)
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count / 1e3:.0f} k"
