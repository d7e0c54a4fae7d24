"""The encoders of transformers at a size that builds in no time, and their checkpoints as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    SamVisionConfig,
    SwinConfig,
    SwinForImageClassification,
    SwinModel,
)
from transformers.models.sam.modeling_sam import SamVisionEncoder
from transformers.utils import logging

from ris_core.encoders import IMAGE_ENCODERS, image_encoder, text_encoder
from ris_core.encoders.base import ImageEncoder, TextEncoder
from ris_core.encoders.bert import Bert
from ris_core.encoders.clip import CLIPImage, CLIPText, letters
from ris_core.encoders.minilm import vocabulary
from ris_core.encoders.sam import Sam
from ris_core.encoders.swin import Swin
from ris_core.encoders.weights import pretrained, tokenizer

logging.disable_progress_bar()

IMAGE = ("swin", "clip", "sam", "efficientnet-lite0")
TEXT = ("bert", "clip-text", "minilm")
# Of letters alone; the two after them start and end a text.
_LETTERS = 512
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


def published_efficientnet(variant: int) -> EfficientNet:
    """As its package makes it, with the package's weights."""
    name = f"efficientnet-lite{variant}"
    network = EfficientNet.from_name(name, image_size=384)
    (weights,) = (IMAGE_ENCODERS[name].source.find() / "models").glob("*.pth")
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def pixels(height: int = 64, width: int = 96, seed: int = 1) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """With every weight away from where it starts: positions and biases start at zero, and would prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return network.eval()


def save_swin(folder: Path) -> Path:
    """As the hub has it: with a classifier that nobody here needs."""
    config = SwinConfig(image_size=64, window_size=4, embed_dim=16, depths=(1, 2, 2, 1), num_heads=(1, 2, 2, 4))
    shaken(SwinForImageClassification(config)).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """Both towers in one file, as the hub has it, and a vocabulary of letters."""
    text = _SIZES | {"num_hidden_layers": 2, "vocab_size": _LETTERS + 2, "bos_token_id": _LETTERS}
    image = _SIZES | {"num_hidden_layers": 4, "image_size": 64, "patch_size": 16}
    config = CLIPConfig(text_config=text | {"eos_token_id": _LETTERS + 1}, vision_config=image, projection_dim=16)
    shaken(CLIPModel(config)).save_pretrained(folder)
    letters(_LETTERS).save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    config = BertConfig(**_SIZES, num_hidden_layers=2)
    shaken(BertModel(config)).save_pretrained(folder)
    tokenizer(vocabulary()).save_pretrained(folder)
    return folder


def sam_config() -> SamVisionConfig:
    """Two blocks a stage, the second of them global; windows that don't divide the grid."""
    return SamVisionConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=8,
        global_attn_indexes=(1, 3, 5, 7),
        image_size=128,
        window_size=3,
        output_channels=24,
    )


def image(name: str, folder: Path) -> ImageEncoder:
    """One of `IMAGE`; those of the hub are saved in `folder` and read from there, EfficientNet has its real weights."""
    if name == "swin":
        return Swin(name, pretrained(SwinModel, save_swin(folder), add_pooling_layer=False))
    if name == "clip":
        return CLIPImage(name, pretrained(CLIPVisionModel, save_clip(folder)))
    return Sam(name, shaken(SamVisionEncoder(sam_config()))) if name == "sam" else image_encoder(name)


def text(name: str, folder: Path) -> TextEncoder:
    """One of `TEXT`; MiniLM at its real size with its real weights."""
    if name == "bert":
        save_bert(folder)
        return Bert(name, tokenizer(folder), pretrained(BertModel, folder, add_pooling_layer=False))
    if name == "clip-text":
        save_clip(folder)
        return CLIPText(name, tokenizer(folder), pretrained(CLIPTextModel, folder))
    return text_encoder(name)
