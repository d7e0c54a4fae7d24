"""SAM 2 (Ravi et al. 2024, arXiv 2408.00714; Apache-2.0) as a mask decoder, of photos alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ris_core.encoders.weights import pretrained
from ris_core.inference.frame import Frame, Image
from ris_core.zero_shot.mask_decoder import MaskDecoder
from ris_core.zero_shot.pixels import stretched_frame


class Sam2(MaskDecoder):
    """Photos are stretched over the whole canvas. Three levels are kept; the finer two sharpen masks."""

    def __init__(self, network: Any) -> None:
        """network: Sam2Model."""
        super().__init__()
        self.network = network
        self.side = network.config.prompt_encoder_config.image_size

    @classmethod
    def load(cls, folder: Path) -> Sam2:
        """From the files of the hub, which hold what is for videos too. Raises CheckpointError if one is damaged."""
        from transformers import Sam2Model  # noqa: PLC0415 - takes seconds

        return cls(pretrained(Sam2Model, folder))

    def frame(self, image: Image) -> Frame:
        """As `MaskDecoder.frame`."""
        return stretched_frame(image, self.side)

    def embed(self, pixels: Tensor) -> Sequence[Tensor]:
        """As `MaskDecoder.embed`."""
        levels: list[Tensor] = self.network.get_image_embeddings(pixels)
        return levels

    def decode(self, embedding: Sequence[Tensor], **prompts: Any) -> tuple[Tensor, Tensor]:
        """As `MaskDecoder.decode`."""
        output = self.network(image_embeddings=list(embedding), **prompts)
        return output.pred_masks[:, 0], output.iou_scores[:, 0]
