"""A start for LDA's coarsest spatial attention: sentences pointed at what an ImageNet classifier knows.

Ours. The classifier holds one weight vector for each of 1,000 class names; its features times such a vector are that
class's activation map. A ridge regression from the names' sentence vectors to those weights lets any sentence point
at features, so that a noun never seen with a mask still points at something. Names: the ImageNet-1k class list.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import torch
from torch import Tensor, nn

from ris_core.encoders import TextEncoder, image_encoder, text_encoder
from ris_core.encoders.efficientnet_lite import EfficientNetLite
from ris_core.models.base import RISModel
from ris_core.models.lda import LDA, LanguageDrivenAttention

# Ridge strength and the subspace kept: chosen on held-out names (five folds), where the right class is among the
# ten nearest of 1,000 for 45 names in 100 at 128 dimensions, 41 at 256 and 34 at 512.
_RIDGE = 1.0


def align(model: RISModel) -> None:
    """Set key and query of LDA's head level to the alignment and freeze them, if the image encoder has a classifier."""
    encoder = model.image_encoder
    if not isinstance(model, LDA) or not isinstance(encoder, EfficientNetLite):
        return
    keys, query, bias = _fitted(encoder.name, model.text_encoder.name, model.options.width)
    key, attention = model.key[-1], model.attend[-1]
    assert isinstance(key, nn.Conv2d) and isinstance(attention, LanguageDrivenAttention)
    with torch.no_grad():
        key.weight.copy_(keys[:, :, None, None])
        attention.spatial_query.weight.copy_(query)
        attention.spatial_query.bias.copy_(bias)
    freeze_alignment(model)


@cache
def _fitted(image: str, text: str, width: int) -> tuple[Tensor, Tensor, Tensor]:
    encoder = image_encoder(image)
    assert isinstance(encoder, EfficientNetLite)
    return fit(encoder.classifier, text_encoder(text), width)


def freeze_alignment(model: RISModel) -> None:
    """Keep key and query of the head level as `align` set them; their tensors don't remember that."""
    if not isinstance(model, LDA) or not isinstance(model.image_encoder, EfficientNetLite):
        return
    attention = model.attend[-1]
    if isinstance(attention, LanguageDrivenAttention):
        model.key[-1].requires_grad_(False)
        attention.spatial_query.requires_grad_(False)


def class_names() -> list[str]:
    """The 1,000 classes of ImageNet as expressions: "the tench", "the goldfish" and so on."""
    lines = (files("ris_core") / "encoders" / "imagenet_names.txt").read_text(encoding="utf-8").splitlines()
    return [f"the {line}" for line in lines]


def fit(classifier: Tensor, words: TextEncoder, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """classifier (1000, C) -> keys (width, C), query (width, D) and its bias (width,)."""
    # A class counts by what sets it apart from the others; length says little but frequency.
    weights = nn.functional.normalize(classifier - classifier.mean(dim=0), dim=1)
    keys = torch.linalg.svd(classifier - classifier.mean(dim=0), full_matrices=False).Vh[:width]
    sentences = words(class_names()).sentence
    inputs = torch.cat([sentences, torch.ones(len(sentences), 1)], dim=1)
    ridge = _RIDGE * torch.eye(inputs.shape[1])
    solution = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (weights @ keys.T))
    return keys, solution[:-1].T.contiguous(), solution[-1]
