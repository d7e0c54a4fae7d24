"""Segment Anything (Kirillov et al. 2023, arXiv 2304.02643; Apache-2.0) as a mask decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ris_core.encoders.weights import pretrained
from ris_core.inference.frame import Frame, Image
from ris_core.zero_shot.mask_decoder import MaskDecoder
from ris_core.zero_shot.pixels import fitted_frame


class Sam(MaskDecoder):
    """Photos keep their shape; the rest of the canvas is padding. One level is kept."""

    def __init__(self, network: Any) -> None:
        """network: SamModel."""
        super().__init__()
        self.network = network
        self.side = network.config.vision_config.image_size

    @classmethod
    def load(cls, folder: Path) -> Sam:
        """From the files of the hub. Raises CheckpointError if one is missing or damaged."""
        from transformers import SamModel  # noqa: PLC0415 - takes seconds

        return cls(pretrained(SamModel, folder))

    def frame(self, image: Image) -> Frame:
        """As `MaskDecoder.frame`."""
        return fitted_frame(image, self.side)

    def embed(self, pixels: Tensor) -> Sequence[Tensor]:
        """As `MaskDecoder.embed`."""
        return [self.network.get_image_embeddings(pixels)]

    def decode(self, embedding: Sequence[Tensor], **prompts: Any) -> tuple[Tensor, Tensor]:
        """As `MaskDecoder.decode`."""
        output = self.network(image_embeddings=embedding[-1], **prompts)
        return output.pred_masks[:, 0], output.iou_scores[:, 0]
