"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030), from the building blocks of `transformers`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from ris_core.encoders.base import EncoderEntry, ImageEncoder
from ris_core.encoders.pixels import IMAGENET, Normalise
from ris_core.encoders.weights import Hub, locate, pretrained

if TYPE_CHECKING:
    from transformers import SwinModel


class _Variant(NamedTuple):
    """side: of the photos it learnt from. window: side of an attention window, in cells. width: of the first stage."""

    source: Hub
    side: int
    window: int
    width: int
    depths: tuple[int, ...]


# Learnt from ImageNet-22k. This repository has no safetensors on its main branch, and states no digest of its file.
_BASE = Hub(
    "microsoft/swin-base-patch4-window12-384-in22k", "c2c8cfc218cfcf3f43091c4476137ed4f2fed9a2", "pytorch_model.bin"
)
# Learnt from ImageNet-1k.
_TINY = Hub(
    "microsoft/swin-tiny-patch4-window7-224",
    "84e1039213864a856dceafac89875cf118b16263",
    digest="a941acf68a76b365d67738d6c6dce4f0db3ea5224b7cff856d3f8f3753502d29",
)
_VARIANTS = {
    "swin-base": _Variant(_BASE, 384, 12, 128, (2, 2, 18, 2)),
    "swin-tiny": _Variant(_TINY, 224, 7, 96, (2, 2, 6, 2)),
}
# Channels of an attention head.
_HEAD = 32


class Swin(ImageEncoder):
    """Four levels, the outputs of the four stages before they are merged to the next coarser grid."""

    strides = (4, 8, 16, 32)
    pyramid = (1, 2, 3)

    def __init__(self, name: str, network: SwinModel) -> None:
        super().__init__()
        self.name = name
        self.normalise = Normalise(*IMAGENET)
        self.embed = network.embeddings
        layers: Any = network.encoder.layers
        merges = [None, *(layer.downsample for layer in layers)]
        self.stages = nn.ModuleList(_Stage(merge, layer.blocks) for merge, layer in zip(merges, layers, strict=False))
        self.channels = _channels(network.config.embed_dim)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, name: str) -> Swin:
        """`name`: "swin-base" or "swin-tiny". Raises CheckpointError if its weights are missing or damaged."""
        from transformers import SwinModel  # noqa: PLC0415 - takes seconds

        folder = locate(name, _VARIANTS[name].source)
        return cls(name, pretrained(SwinModel, folder, add_pooling_layer=False))

    @classmethod
    def untrained(cls, name: str) -> Swin:
        """The same network with random weights."""
        from transformers import SwinConfig, SwinModel  # noqa: PLC0415 - takes seconds

        _, side, window, width, depths = _VARIANTS[name]
        heads = [channels // _HEAD for channels in _channels(width)]
        config = SwinConfig(image_size=side, window_size=window, embed_dim=width, depths=depths, num_heads=heads)
        return cls(name, SwinModel(config, add_pooling_layer=False))

    def stem(self, pixels: Tensor) -> Tensor:
        """The patches' map."""
        tokens, size = self.embed(self.normalise(pixels).to(self.dtype))
        return _map(tokens, size)


class _Stage(nn.Module):
    def __init__(self, merge: nn.Module | None, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.merge = merge
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, or where cells are merged first (B, 2 C, H / 2, W / 2)."""
        (height, width), tokens = x.shape[-2:], x.flatten(2).transpose(1, 2)  # (B, HW, C)
        if self.merge is not None:
            tokens = self.merge(tokens, (height, width))
            height, width = height // 2, width // 2
        for block in self.blocks:
            # Without this, a canvas smaller than a window would shrink the block's windows for good.
            tokens, _ = block(tokens, (height, width), always_partition=True)
        return _map(tokens, (height, width))


def _map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, HW, C) -> (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


def _channels(width: int) -> tuple[int, ...]:
    return tuple(width << stage for stage in range(len(Swin.strides)))


ENTRIES: dict[str, EncoderEntry[ImageEncoder]] = {
    name: EncoderEntry(
        partial(Swin.load, name), partial(Swin.untrained, name), variant.source, _channels(variant.width), Swin.strides
    )
    for name, variant in _VARIANTS.items()
}
