"""What draws masks where somebody points: the models of the Segment Anything family, behind one surface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ris_core.encoders.pixels import IMAGENET
from ris_core.inference.frame import Frame, Image
from ris_core.inference.passes import grouped, in_batches
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot.network import Drawn, Pointed, Published
from ris_core.zero_shot.pixels import normalised, padded, resized

# Masks of one photo drawn together; more cost memory and gain nothing.
_MASKS = 16


class _Kind(NamedTuple):
    """What prompts have in common that go through the decoder together: padding one would change its answer."""

    points: int
    boxed: bool
    masked: bool
    ambiguous: bool


class MaskDecoder(Published, ABC):
    """A promptable model: a heavy image encoder, and a light decoder that reads what it made as often as is asked.

    Attributes:
        side: of its canvas, which is square, in pixels.
    """

    side: int

    @abstractmethod
    def frame(self, image: Image) -> Frame:
        """Where HxWx3 lies on the canvas."""

    @abstractmethod
    def embed(self, pixels: Tensor) -> Sequence[Tensor]:
        """(B, 3, side, side) normalised -> the levels that the decoder reads, (B, C, h, w) each, the deepest last."""

    @abstractmethod
    def decode(self, embedding: Sequence[Tensor], **prompts: Any) -> tuple[Tensor, Tensor]:
        """N prompts -> mask logits (N, M, h, w) and the IoU expected of each (N, M), M = 1 or 3.

        embedding: the levels, with N photos. prompts: as `transformers` names them, each N times one.
        """

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """Each HxWx3 uint8 RGB -> its levels. Raises OutOfMemory if not even one fits."""
        return list(in_batches(images, self.photos_together, self._encode))

    def _encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        frames = [self.frame(image) for image in images]
        pixels = torch.stack(
            [
                padded(normalised(resized(image, frame.inner), IMAGENET), frame.canvas)
                for image, frame in zip(images, frames, strict=True)
            ]
        )
        levels = self.embed(pixels.to(self.device, self.dtype))
        return [
            PreparedImage([tuple(level[number : number + 1].clone() for level in levels)], frame)
            for number, frame in enumerate(frames)
        ]

    def draw(self, embedding: tuple[Tensor, ...], pointed: Sequence[Pointed]) -> list[Drawn]:
        """The mask that each prompt means, on the photo of one embedding. Raises OutOfMemory if not even one fits.

        What a single click means is open: of the model's three proposals the best. Everything else has one mask.
        """
        return grouped(pointed, _kind, lambda kind: _MASKS, lambda some: self._draw(embedding, some))

    def _draw(self, embedding: tuple[Tensor, ...], pointed: Sequence[Pointed]) -> list[Drawn]:
        kind, prompts = _kind(pointed[0]), {}
        if kind.points:
            prompts["input_points"] = torch.stack([one.points for one in pointed])[:, None]  # (N, 1, P, 2)
            prompts["input_labels"] = torch.stack([one.labels for one in pointed])[:, None]
        if kind.boxed:
            prompts["input_boxes"] = torch.stack([one.box for one in pointed if one.box is not None])[:, None]
        if kind.masked:
            earlier = torch.stack([one.mask for one in pointed if one.mask is not None])[:, None]
            prompts["input_masks"] = self._fitting(earlier, embedding[-1]).to(self.dtype)
        levels = [level.expand(len(pointed), -1, -1, -1) for level in embedding]
        masks, qualities = self.decode(levels, multimask_output=kind.ambiguous, **prompts)
        best = qualities.float().argmax(dim=1)
        rows = torch.arange(len(pointed), device=best.device)
        return [
            Drawn(mask, quality)
            for mask, quality in zip(masks[rows, best].float(), qualities[rows, best].tolist(), strict=True)
        ]

    @staticmethod
    def _fitting(logits: Tensor, deepest: Tensor) -> Tensor:
        """(N, 1, h, w) -> as the model takes an earlier mask: four cells along each of the deepest level's."""
        size = 4 * deepest.shape[2], 4 * deepest.shape[3]
        if logits.shape[-2:] == size:
            return logits
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False, antialias=True)

    def features(self, image: PreparedImage) -> Tensor:
        """(C, H, W), the deepest level, 0 where there is no photo."""
        deepest = image.levels[0][-1][0].clone()
        rows, columns = (-(-length * deepest.shape[1] // self.side) for length in image.frame.inner)
        deepest[:, rows:] = 0
        deepest[:, :, columns:] = 0
        return deepest


def _kind(pointed: Pointed) -> _Kind:
    count, boxed, masked = len(pointed.points), pointed.box is not None, pointed.mask is not None
    return _Kind(count, boxed, masked, count == 1 and bool(pointed.labels[0]) and not boxed and not masked)
