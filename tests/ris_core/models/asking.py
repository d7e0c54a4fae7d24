"""What the tests of every design ask, and how they compare answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ris_core.models.base import RISModel
from ris_core.models.output import Output

SENTENCES = ["the cat", "a red cup on the table", "the woman on the left"]


def decode(model: RISModel, photo: tuple[Tensor, Tensor], index: list[int]) -> Output:
    """The first sentences, about the photos of those numbers."""
    with torch.inference_mode():
        return model(model.encode_image(*photo), model.encode_text(SENTENCES[: len(index)]), torch.tensor(index))


def same(one: Output, other: Output, atol: float = 1e-5) -> bool:
    """Whether masks, presences and qualities are alike; with `atol` 0, to the last bit."""
    pairs = zip(one[:3], other[:3], strict=True)
    return all(torch.allclose(*pair, atol=atol) if atol else torch.equal(*pair) for pair in pairs)


def scramble(*modules: nn.Module) -> None:
    """Other weights, whatever they were."""
    with torch.no_grad():
        for module in modules:
            for weight in module.parameters():
                weight.normal_()
