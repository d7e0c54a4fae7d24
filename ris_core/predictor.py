"""Encode a photo once, prompt it many times. Safe to share between threads: it holds no state of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ris_core import checkpoint
from ris_core.checkpoint import OperatingPoint
from ris_core.errors import PromptError
from ris_core.masks import Mask
from ris_core.models.lda import LDA, Level

# Prompts decoded together; bounds memory, and more gain nothing.
_TOGETHER = 16
_GRID = 32


@dataclass(frozen=True)
class ImageEmbedding:
    """A photo as the model sees it.

    levels: one `Level` of a single photo for each level of the encoder. canvas: (h, w) of the padded input, inner:
    (h, w) of the photo on it, size: (h, w) of the photo itself; all in pixels.
    """

    levels: tuple[Level, ...]
    canvas: tuple[int, int]
    inner: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """One prompt's answer. mask: HxW bool at the photo's size, empty unless `present`. score: P(present), [0, 1]."""

    prompt: str
    mask: Mask
    present: bool
    score: float


class Predictor:
    """A model with its operating point, ready to answer."""

    def __init__(self, model: LDA, point: OperatingPoint, version: str) -> None:
        self.model = model.place().eval()
        self.point = point
        self.version = version
        # People repeat themselves, a project's prompts above all.
        self._sentence = lru_cache(maxsize=1024)(self._encode_sentence)

    @classmethod
    def load(cls, folder: Path | None = None) -> Predictor:
        """The checkpoint in `folder`, or the shipped one.

        Raises:
            CheckpointError: it is missing, damaged, or of another version.
        """
        folder = folder or checkpoint.shipped()
        return cls(*checkpoint.load(folder), checkpoint.version(folder))

    @torch.inference_mode()
    def embed(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """HxWx3 uint8 RGB -> the embedding that any number of prompts can be asked of."""
        size = image.shape[0], image.shape[1]
        scale = self.point.side / max(size)
        inner = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        canvas = -(-inner[0] // _GRID) * _GRID, -(-inner[1] // _GRID) * _GRID
        shrunk = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        device = self.model.device
        pixels = torch.zeros(1, 3, *canvas)
        pixels[0, :, : inner[0], : inner[1]] = torch.from_numpy(shrunk).permute(2, 0, 1)
        valid = torch.zeros(1, 1, *canvas)
        valid[..., : inner[0], : inner[1]] = 1
        return ImageEmbedding(tuple(self.model.encode_image(pixels.to(device), valid.to(device))), canvas, inner, size)

    def segment(self, embedding: ImageEmbedding, prompts: Sequence[str]) -> list[Prediction]:
        """Answer each prompt, in order.

        Raises:
            PromptError: a prompt is empty.
        """
        return [
            self._decide(prompt, probability, presence)
            for prompt, (probability, presence) in zip(prompts, self.probabilities(embedding, prompts), strict=True)
        ]

    @torch.inference_mode()
    def probabilities(
        self, embedding: ImageEmbedding, prompts: Sequence[str]
    ) -> list[tuple[NDArray[np.float32], float]]:
        """For each prompt the HxW map of P(pixel belongs to it) and P(it is there), before the operating point."""
        if not prompts:
            return []
        sentences = torch.stack([self._sentence(_said(prompt)) for prompt in prompts])
        answers = []
        for chunk in torch.split(sentences, _TOGETHER):
            index = torch.zeros(len(chunk), dtype=torch.long, device=chunk.device)
            output = self.model(embedding.levels, chunk, index)
            maps = _to_photo(output.mask, embedding)
            answers += list(zip(maps, output.presence.sigmoid().tolist(), strict=True))
        return answers

    def _encode_sentence(self, sentence: str) -> Tensor:
        with torch.inference_mode():
            return self.model.encode_text([sentence])[0]

    def _decide(self, prompt: str, probability: NDArray[np.float32], presence: float) -> Prediction:
        mask = probability >= self.point.mask
        present = presence >= self.point.presence and bool(mask.any())
        return Prediction(prompt, mask if present else np.zeros_like(mask), present, presence)


def _said(prompt: str) -> str:
    if not prompt.strip():
        raise PromptError("The prompt is empty. Say what to find, for example: the cat.")
    return " ".join(prompt.split())


def _to_photo(logits: Tensor, embedding: ImageEmbedding) -> list[NDArray[np.float32]]:
    """(N, 1, h, w) logits on the canvas' grid -> N HxW probabilities at the photo's own size."""
    on_canvas = F.interpolate(logits, size=embedding.canvas, mode="bilinear", align_corners=False)
    inner = on_canvas[:, 0, : embedding.inner[0], : embedding.inner[1]].sigmoid().cpu().numpy()
    height, width = embedding.size
    return [cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32) for each in inner]
