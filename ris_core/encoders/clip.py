"""CLIP ViT-B/16 (Radford et al. 2021, arXiv 2103.00020; MIT): its image tower and its text tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ris_core.encoders.base import EncoderEntry, ImageEncoder, State, TextEncoder
from ris_core.encoders.pixels import CLIP, Normalise, resized
from ris_core.encoders.transformer_text import TransformerText
from ris_core.encoders.weights import NETWORK, TOKENIZER, Hub, locate, pretrained, tokenizer

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

# This repository has no safetensors on its main branch.
_SOURCE = Hub(
    "openai/clip-vit-base-patch16",
    "57c216476eefef5ab752ec549e440a49ae4ae5f3",
    "pytorch_model.bin",
    "ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0",
    NETWORK + TOKENIZER,
)
_IMAGE, _TEXT = "clip-vit-b16", "clip-text-b16"
_STAGES = 4


class CLIPImage(ImageEncoder):
    """Four levels, after each quarter of the layers, all at stride 16.

    A state is the map (B, C, H, W) and the class token (B, 1, C).
    """

    strides = (16,) * _STAGES
    pyramid = (1, 2, 3)

    def __init__(self, name: str, network: CLIPVisionModel) -> None:
        super().__init__()
        self.name = name
        self.normalise = Normalise(*CLIP)
        self.embed = network.embeddings
        self.norm = network.pre_layrnorm
        layers, share = network.encoder.layers, len(network.encoder.layers) // _STAGES
        self.stages = nn.ModuleList(_Stage(layers[start : start + share]) for start in range(0, len(layers), share))
        self.channels = (network.config.hidden_size,) * _STAGES
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, name: str = _IMAGE) -> CLIPImage:
        """Raises CheckpointError if its weights are missing or damaged."""
        from transformers import CLIPVisionModel  # noqa: PLC0415 - takes seconds

        return cls(name, pretrained(CLIPVisionModel, locate(name, _SOURCE)))

    @classmethod
    def untrained(cls, name: str = _IMAGE) -> CLIPImage:
        """The same network with random weights."""
        from transformers import CLIPVisionConfig, CLIPVisionModel  # noqa: PLC0415 - takes seconds

        return cls(name, CLIPVisionModel(CLIPVisionConfig(patch_size=16)))

    def stem(self, pixels: Tensor) -> State:
        """The patches' map and the class token."""
        x = self.embed.patch_embedding(self.normalise(pixels).to(self.dtype))  # (B, C, H, W)
        first, others = self.embed.position_embedding.weight[:1], self.embed.position_embedding.weight[1:]
        side = round(len(others) ** 0.5)
        x = x + resized(others.T.reshape(1, -1, side, side), *x.shape[-2:])
        summary = (self.embed.class_embedding + first).expand(len(x), 1, -1)  # (B, 1, C)
        return _parts(self.norm(_tokens(x, summary)), x)

    def level(self, state: State) -> Tensor:
        """The map."""
        return state[0]

    def add(self, state: State, residual: Tensor) -> State:
        """To the map; the class token stays."""
        x, summary = cast(tuple[Tensor, Tensor], state)
        return x + residual, summary


class _Stage(nn.Module):
    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, summary = state
        tokens = _tokens(x, summary)
        for layer in self.layers:
            tokens = layer(tokens, attention_mask=None)
        return _parts(tokens, x)


def _tokens(x: Tensor, summary: Tensor) -> Tensor:
    """(B, C, H, W) and (B, 1, C) -> (B, 1 + HW, C)."""
    return torch.cat([summary, x.flatten(2).transpose(1, 2)], dim=1)


def _parts(tokens: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1 + HW, C) -> (B, C, H, W) and (B, 1, C), H and W those of `like`."""
    return tokens[:, 1:].transpose(1, 2).reshape(like.shape), tokens[:, :1]


class CLIPText(TransformerText):
    """Twelve transformer layers, 512 wide; the sentence is its last word, the end of text."""

    limit = 77
    causal = True

    @classmethod
    def load(cls, name: str = _TEXT) -> CLIPText:
        """Raises CheckpointError if its weights are missing or damaged."""
        from transformers import CLIPTextModel  # noqa: PLC0415 - takes seconds

        folder = locate(name, _SOURCE)
        return cls(name, tokenizer(folder), pretrained(CLIPTextModel, folder))

    @classmethod
    def untrained(cls, name: str = _TEXT) -> CLIPText:
        """The same network with random weights; its words are letters, since its vocabulary comes with the weights."""
        from transformers import CLIPTextConfig, CLIPTextModel  # noqa: PLC0415 - takes seconds

        return cls(name, letters(), CLIPTextModel(CLIPTextConfig()))

    def summary(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        """The last word."""
        return words[torch.arange(len(words), device=words.device), attention_mask.sum(dim=1) - 1]


def letters(start: int = 49_406) -> Any:
    """CLIP's tokenizer without its merges. `start`: number of the word that starts a text; the one after it ends it."""
    from tokenizers.pre_tokenizers import ByteLevel  # noqa: PLC0415 - takes a second
    from transformers import CLIPTokenizer  # noqa: PLC0415

    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab={**vocabulary, "<|startoftext|>": start, "<|endoftext|>": start + 1}, merges=[])


IMAGE_ENTRIES: dict[str, EncoderEntry[ImageEncoder]] = {
    _IMAGE: EncoderEntry(CLIPImage.load, CLIPImage.untrained, _SOURCE, (768,) * _STAGES, CLIPImage.strides)
}
TEXT_ENTRIES: dict[str, EncoderEntry[TextEncoder]] = {
    _TEXT: EncoderEntry(CLIPText.load, CLIPText.untrained, _SOURCE, (512,))
}
