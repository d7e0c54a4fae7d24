"""What the four designs have in common: an image encoder, a text encoder, and how a photo and sentences go through.

A photo is encoded once, into a tuple of tensors for each level that a design keeps, and is then asked any number of
sentences. Only early fusion can't do so: there the sentence takes part in encoding the photo.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ris_core.encoders.adapters import tune
from ris_core.encoders.base import ImageEncoder, TextEncoder, TextFeatures, Trunk
from ris_core.models.interactive import InteractiveDecoder
from ris_core.models.output import LossWeights, Output
from ris_core.tuning import Tuning

# Of B photos: a named tuple of tensors for each level kept, the photos along the first dimension of each tensor.
ImageEmbedding: TypeAlias = Sequence[tuple[Tensor, ...]]

_without_gpu: ContextVar[bool] = ContextVar("without_gpu", default=False)


class Canvas(NamedTuple):
    """What is kept of photos for early fusion: all of them, as for `RISModel.encode_image`."""

    pixels: Tensor
    valid: Tensor


class RISModel(nn.Module):
    """image encoder + text encoder -> mask, presence and quality logits.

    Attributes:
        name: under which `ris_core.models` knows the design.
        loss: how training weighs the parts of the loss.
        switches: the frozen dataclass of the design's options.
        options: how they are set, by default as that says.
        tuning: what is trained of the encoders.
        interactive: answers clicks, boxes and masks, on what the image encoder makes of a photo; None until it is
            trained, see `add_interactive`.
    """

    name: ClassVar[str]
    loss: ClassVar[LossWeights]
    switches: ClassVar[type[Any]]
    options: Any
    interactive: InteractiveDecoder | None

    def __init__(
        self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: Any = None, tuning: Tuning | None = None
    ) -> None:
        super().__init__()
        self.options = options or self.switches()
        self.tuning = tuning or Tuning()
        image, text = tune(image_encoder, self.tuning), tune(text_encoder, self.tuning)
        # Frozen encoders stay out of the module tree: all models of a process share them, none saves them.
        self._encoders = (image, text)
        self.encoders = nn.ModuleList(part for part in self._encoders if _is_trained(part))
        self.build(image_encoder, text_encoder, self.options)
        self.interactive = None

    def add_interactive(self) -> None:
        """Give the model an interactive decoder, untrained. Training with sentences leaves it alone."""
        encoder = self.image_encoder
        self.interactive = InteractiveDecoder(encoder.channels, encoder.strides).requires_grad_(False)

    @abstractmethod
    def build(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: Any) -> None:
        """Set up the design's own layers, as the encoders' widths and the switches have them."""

    @property
    def image_encoder(self) -> ImageEncoder:
        """That of all models of the process if it is frozen, else a copy of this version's own."""
        return self._encoders[0]

    @property
    def text_encoder(self) -> TextEncoder:
        """As `image_encoder`."""
        return self._encoders[1]

    @property
    def device(self) -> torch.device:
        """Where the model, and with it its encoders, lie."""
        return next(self.parameters()).device

    @property
    def early_fusion(self) -> bool:
        """Whether sentences take part in encoding the photo, so that nothing of it can be kept from one to the next."""
        return False

    def place(self, device: torch.device | None = None) -> RISModel:
        """Move model and encoders to `device`, or to the GPU if there is one. Models that share encoders move along."""
        device = device or best_device()
        for part in (self, *self._encoders):
            part.to(device)
        return self

    def config(self) -> dict[str, object]:
        """What rebuilds this model: its name, its encoders' names, its switches and what was tuned."""
        return {
            "model": self.name,
            "image_encoder": self.image_encoder.name,
            "text_encoder": self.text_encoder.name,
            "options": asdict(self.options),
            "tuning": asdict(self.tuning),
            "interactive": self.interactive is not None,
        }

    def on_load(self) -> None:
        """Called once a checkpoint's tensors are in, for what they don't say of themselves. By default, nothing."""

    def own_state(self) -> dict[str, Tensor]:
        """The tensors that make this version: all but the encoders' frozen ones."""
        frozen: set[str] = set()
        if self.tuning.encoders == "adapters":
            tensors = self.encoders.state_dict(keep_vars=True).items()
            frozen = {f"encoders.{name}" for name, tensor in tensors if not tensor.requires_grad}
        return {name: tensor for name, tensor in self.state_dict().items() if name not in frozen}

    def encode_image(self, pixels: Tensor, valid: Tensor) -> ImageEmbedding:
        """B photos on a canvas -> what any number of sentences can be asked of.

        Args:
            pixels: (B, 3, H, W) RGB in [0, 255].
            valid: (B, 1, H, W), 1 where there is photo; what the canvas holds elsewhere makes no difference.
        """
        if self.early_fusion:
            return [Canvas(self._filled(pixels, valid), valid)]
        return self.read_trunk(self.trunk(pixels, valid), valid)

    def trunk(self, pixels: Tensor, valid: Tensor) -> Trunk:
        """What the frozen stages of the image encoder make of photos; the same for every version of a model."""
        return self.image_encoder.trunk(self._filled(pixels, valid))

    def read_trunk(self, trunk: Trunk, valid: Tensor) -> ImageEmbedding:
        """`encode_image` from where the frozen stages end."""
        return self.read_levels(self.image_encoder.tail(trunk), valid)

    def encode_levels(self, pixels: Tensor, valid: Tensor) -> list[Tensor]:
        """The image encoder's levels of photos, without a sentence; arguments as for `encode_image`."""
        return self.image_encoder.tail(self.trunk(pixels, valid))

    def _filled(self, pixels: Tensor, valid: Tensor) -> Tensor:
        return pixels * valid + self.image_encoder.fill_pixel * (1 - valid)

    @abstractmethod
    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> ImageEmbedding:
        """The image encoder's levels -> what the design keeps of them; valid as for `encode_image`."""

    def deepest(self, embedding: ImageEmbedding) -> Tensor:
        """Of B photos, the features of the deepest level that is kept: (B, C, H, W), 0 where there is no photo.

        With early fusion nothing but the photo is kept: it is encoded here, without a sentence.
        """
        if self.early_fusion:
            embedding = self.read_levels(self.image_encoder(embedding[0][0]), embedding[0][1])
        return self.deepest_level(embedding)

    @abstractmethod
    def deepest_level(self, levels: ImageEmbedding) -> Tensor:
        """`deepest`, of what `read_levels` gave."""

    def encode_text(self, sentences: Sequence[str]) -> TextFeatures:
        """N sentences -> their words and sentence vectors."""
        features: TextFeatures = self.text_encoder(sentences)
        return features

    @abstractmethod
    def forward(self, embedding: ImageEmbedding, text: TextFeatures, index: Tensor) -> Output:
        """Answer N sentences.

        Args:
            embedding: of B photos, from `encode_image`.
            text: from `encode_text`.
            index: (N,) the photo of each sentence, in [0, B).
        """


def best_device() -> torch.device:
    """The GPU if there is one, and `without_gpu` doesn't say otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() and not _without_gpu.get() else "cpu")


@contextmanager
def without_gpu() -> Iterator[None]:
    """Inside, what this thread loads or trains lies on the CPU."""
    token = _without_gpu.set(True)
    try:
        yield
    finally:
        _without_gpu.reset(token)


def _is_trained(encoder: nn.Module) -> bool:
    return any(weight.requires_grad for weight in encoder.parameters())
