"""Grounding DINO (Liu et al. 2023, arXiv 2303.05499; Apache-2.0): boxes of what a sentence names.

The backbone sees a photo once; fusing it with words and decoding boxes is done anew for each sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ris_core.encoders.pixels import IMAGENET
from ris_core.encoders.weights import pretrained, tokenizer
from ris_core.inference.frame import Image
from ris_core.inference.passes import grouped
from ris_core.zero_shot.detector import Boxes, Detector, corners
from ris_core.zero_shot.pixels import Size, bounded_size, normalised, resized

# Below this a side hasn't a cell of its own on the backbone's last level.
_LEAST = 32
# The model cuts a text at these, and words of one phrase don't see those of another.
_CUTS = re.compile(r"[.?]")


class GroundingDino(Detector):
    """A sentence is asked alone, as one phrase: of several in one text, words of one leak into another's answer.

    Attributes:
        shortest, longest: at which photos are read, in pixels: the shorter side, and the longer one at most.
    """

    shortest = 800
    longest = 1333

    def __init__(self, network: Any, words: Any) -> None:
        """network: GroundingDinoForObjectDetection. words: its tokenizer."""
        super().__init__()
        self.network = network
        self._words = words
        self._backbone = _Backbone(network.model.backbone)
        network.model.backbone = self._backbone

    @classmethod
    def load(cls, folder: Path) -> GroundingDino:
        """From the files of the hub. Raises CheckpointError if one is missing or damaged."""
        from transformers import GroundingDinoForObjectDetection  # noqa: PLC0415 - takes seconds

        return cls(pretrained(GroundingDinoForObjectDetection, folder), tokenizer(folder))

    def encode(self, images: Sequence[Image]) -> list[tuple[Tensor, ...]]:
        """As `Detector.encode`: the backbone's levels; photos of one size together, without any padding."""
        items = [(image, self._size(image)) for image in images]
        return grouped(items, lambda item: item[1], lambda size: self.photos_together, self._encode)

    def _size(self, image: Image) -> Size:
        height, width = image.shape[:2]
        return bounded_size((height, width), self.shortest, self.longest, _LEAST)

    def _encode(self, items: Sequence[tuple[Image, Size]]) -> list[tuple[Tensor, ...]]:
        pixels = torch.stack([normalised(resized(image, size), IMAGENET) for image, size in items])
        levels = self._backbone.levels(pixels.to(self.device, self.dtype))
        return [tuple(level[number : number + 1].clone() for level in levels) for number in range(len(items))]

    def detect(self, kept: tuple[Tensor, ...], sentences: Sequence[str]) -> list[Boxes]:
        """As `Detector.detect`: a box for each of the model's queries; its score is that of the likeliest word."""
        return [self._detect(kept, self._numbers(sentence)) for sentence in sentences]

    def _numbers(self, sentence: str) -> list[int]:
        """Of the sentence's own words; of one that is too long, the first."""
        # The tokenizer's own truncation would cut the full stop off, without which words don't see each other.
        plain = " ".join(_CUTS.sub(" ", sentence.lower()).split())
        numbers: list[int] = self._words(plain, add_special_tokens=False)["input_ids"]
        return numbers[: self.network.config.max_text_len - 3]

    def _detect(self, kept: tuple[Tensor, ...], numbers: list[int]) -> Boxes:
        if not numbers:
            return Boxes(torch.zeros(0, 4, device=self.device), torch.zeros(0, device=self.device))
        stop = self._words.convert_tokens_to_ids(".")
        text = torch.tensor([[self._words.cls_token_id, *numbers, stop, self._words.sep_token_id]], device=self.device)
        output = self.network(pixel_values=_Kept(kept), input_ids=text)
        scores = output.logits[0, :, 1 : 1 + len(numbers)].float().sigmoid().amax(dim=1)
        return Boxes(corners(output.pred_boxes[0]).clamp(0, 1), scores)


class _Kept(NamedTuple):
    """The backbone's levels in the place of the pixels that they were made of."""

    levels: tuple[Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        """As of pixels; the model asks for it to know that nothing is padded."""
        return self.levels[0].shape

    @property
    def device(self) -> torch.device:
        return self.levels[0].device


class _Backbone(nn.Module):
    """The model's own backbone, which is passed over where its levels are there already."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.encoder = backbone.conv_encoder
        self.position_embedding = backbone.position_embedding

    def levels(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> three levels, (B, C, h, w) each."""
        return list(self.encoder.model(pixels, return_dict=True).feature_maps)

    def forward(self, kept: _Kept, mask: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """As the model's own: each level with the mask of what isn't padding, and positions."""
        whole = [torch.ones_like(level[:, 0], dtype=torch.bool) for level in kept.levels]
        levels = list(zip(kept.levels, whole, strict=True))
        return levels, [self.position_embedding(*level).to(level[0].dtype) for level in levels]
