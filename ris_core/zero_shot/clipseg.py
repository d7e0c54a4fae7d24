"""CLIPSeg (Lüddecke and Ecker 2022, arXiv 2112.10003; Apache-2.0): one rough map of what a sentence names.

CLIP's layers see a photo once; the decoder, which is small, reads three of them anew for each sentence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor

from ris_core.encoders.weights import pretrained, tokenizer
from ris_core.errors import CheckpointError
from ris_core.inference.frame import Image
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot.network import Found, ZeroShotNetwork, square_map
from ris_core.zero_shot.pixels import Scale, normalised, resized, stretched_frame

# How the published network takes photos; its configuration doesn't say.
PROCESSOR = "preprocessor_config.json"


class CLIPSeg(ZeroShotNetwork):
    """Of a photo the layers are kept that the decoder reads."""

    def __init__(self, network: Any, words: Any, side: int, scale: Scale, resampling: Resampling) -> None:
        """network: CLIPSegForImageSegmentation. words: its tokenizer. The rest: how it takes photos."""
        super().__init__()
        self.network = network
        self.side = side
        self._words, self._scale, self._resampling = words, scale, resampling
        # Nobody reads what the last layers make.
        layers = network.clip.vision_model.encoder.layers
        network.clip.vision_model.encoder.layers = layers[: max(network.extract_layers) + 1]

    @classmethod
    def load(cls, folder: Path) -> CLIPSeg:
        """From the files of the hub. Raises CheckpointError if one is missing or damaged."""
        from transformers import CLIPSegForImageSegmentation  # noqa: PLC0415 - takes seconds

        return cls(pretrained(CLIPSegForImageSegmentation, folder), tokenizer(folder), *_processing(folder / PROCESSOR))

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `ZeroShotNetwork.encode`; the frame is the whole canvas, whatever a photo's shape."""
        pixels = torch.stack([self._pixels(image) for image in images]).to(self.device, self.dtype)
        states = self.network.clip.vision_model(pixels, output_hidden_states=True).hidden_states
        read = [states[number + 1] for number in self.network.extract_layers]
        return [
            PreparedImage(
                [tuple(state[number : number + 1].clone() for state in read)], stretched_frame(image, self.side)
            )
            for number, image in enumerate(images)
        ]

    def _pixels(self, image: Image) -> Tensor:
        """HxWx3 -> (3, side, side)."""
        return normalised(resized(image, (self.side, self.side), self._resampling), self._scale)

    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        """As `ZeroShotNetwork.find`: a map for each, however unsure; as sure as its surest cell."""
        tokens = self._words(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self.network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        words = self.network.clip.get_text_features(**tokens).pooler_output
        states = tuple(state.expand(len(sentences), -1, -1) for state in image.levels[0])
        maps = self.network.decoder(states, words).logits.float()
        surest = maps.flatten(1).amax(dim=1, keepdim=True).sigmoid()  # (N, 1)
        return [Found(own[None], sure, sure, float(sure), apart=False) for own, sure in zip(maps, surest, strict=True)]

    def features(self, image: PreparedImage) -> Tensor:
        """As `ZeroShotNetwork.features`: the last layer that is kept."""
        return square_map(image.levels[0][-1][0, 1:])  # the first stands for the whole photo


def _processing(path: Path) -> tuple[int, Scale, Resampling]:
    """The side of the canvas, the scale of colours and how photos are resized, as the file says."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        size = config["size"]
        side = int(size["height"] if isinstance(size, dict) else size)
        mean, deviation = (tuple(255 * float(value) for value in config[key]) for key in ("image_mean", "image_std"))
        return side, (mean, deviation), Resampling(config["resample"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} doesn't say how photos are taken: {error!r}. Fetch it again.") from None
