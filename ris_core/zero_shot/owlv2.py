"""OWLv2 (Minderer et al. 2023, arXiv 2306.09683; Apache-2.0): boxes of what sentences name, many of them at once.

Every patch of a photo has its box and its vector; a sentence is compared with the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ris_core.encoders.pixels import CLIP
from ris_core.encoders.weights import pretrained, tokenizer
from ris_core.inference.frame import Image
from ris_core.inference.passes import in_batches
from ris_core.zero_shot.detector import Boxes, Detector, corners
from ris_core.zero_shot.pixels import blurred_square, normalised


class Owlv2(Detector):
    """Sentences are asked as they are, without a template around them."""

    def __init__(self, network: Any, words: Any) -> None:
        """network: Owlv2ForObjectDetection. words: its tokenizer."""
        super().__init__()
        self.network = network
        self._words = words
        self._side = network.config.vision_config.image_size
        self._longest = network.config.text_config.max_position_embeddings

    @classmethod
    def load(cls, folder: Path) -> Owlv2:
        """From the files of the hub. Raises CheckpointError if one is missing or damaged."""
        from transformers import Owlv2ForObjectDetection  # noqa: PLC0415 - takes seconds

        return cls(pretrained(Owlv2ForObjectDetection, folder), tokenizer(folder))

    def encode(self, images: Sequence[Image]) -> list[tuple[Tensor, ...]]:
        """As `Detector.encode`: of each patch its features (1, P, D) and its box (P, 4), as in `Boxes`."""
        return list(in_batches(images, self.photos_together, self._encode))

    def _encode(self, images: Sequence[Image]) -> list[tuple[Tensor, ...]]:
        pixels = torch.stack([normalised(blurred_square(image, self._side), CLIP) for image in images])
        grid, _ = self.network.image_embedder(pixel_values=pixels.to(self.device, self.dtype))
        features = grid.flatten(1, 2)
        boxes = corners(self.network.box_predictor(features, grid))
        return [
            (features[number : number + 1].clone(), _of_photo(boxes[number], image))
            for number, image in enumerate(images)
        ]

    def detect(self, kept: tuple[Tensor, ...], sentences: Sequence[str]) -> list[Boxes]:
        """As `Detector.detect`: a box for each patch."""
        features, boxes = kept
        logits, _ = self.network.class_predictor(features, self._vectors(sentences)[None])
        return [Boxes(boxes, scores) for scores in logits[0].float().sigmoid().T]

    def _vectors(self, sentences: Sequence[str]) -> Tensor:
        """(N, D) of unit length."""
        numbers = [self._numbers(sentence) for sentence in sentences]
        padding = self._words.pad_token_id
        text = [own + [padding] * (self._longest - len(own)) for own in numbers]
        there = [[1] * len(own) + [0] * (self._longest - len(own)) for own in numbers]
        vectors = self.network.owlv2.get_text_features(
            input_ids=torch.tensor(text, device=self.device), attention_mask=torch.tensor(there, device=self.device)
        ).pooler_output
        return F.normalize(vectors, dim=-1)

    def _numbers(self, sentence: str) -> list[int]:
        """Of the sentence's words and the two around them; of one that is too long, the first."""
        # Padding and truncation are settings of the tokenizer itself, and threads share it.
        numbers: list[int] = self._words(sentence, add_special_tokens=False)["input_ids"]
        return [self._words.bos_token_id, *numbers[: self._longest - 2], self._words.eos_token_id]


def _of_photo(boxes: Tensor, image: Image) -> Tensor:
    """(P, 4) shares of the square that a photo was padded to -> of the photo; what lies beside it becomes empty."""
    height, width = image.shape[:2]
    side = max(height, width)
    return (boxes * torch.tensor([side / width, side / height] * 2, device=boxes.device)).clamp(0, 1)
