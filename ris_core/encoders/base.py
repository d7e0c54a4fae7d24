"""The two interfaces through which every model sees its encoders, and what is known of one before it is loaded.

An encoder is a stem and a row of stages. Fine-tuning with adapters changes its last stages alone, so what the frozen
ones before them (the trunk) make of a photo can be kept; early fusion joins in between two stages.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_core.encoders.weights import WeightsSource
from ris_core.errors import CheckpointError
from ris_core.files import sha256

State: TypeAlias = Tensor | tuple[Tensor, ...]
Enrich: TypeAlias = Callable[[int, Tensor], Tensor]


class Trunk(NamedTuple):
    """What the frozen stages made of B photos: the levels so far and the state that the next stage reads."""

    levels: tuple[Tensor, ...]
    state: State


class ImageEncoder(nn.Module):
    """pixels -> levels, one a stage.

    Attributes:
        name: under which `ris_core.encoders` knows it.
        channels, strides: of each level, fine to coarse; levels may share a stride.
        pyramid: the numbers of its shallow, middle and deep level, for models that read just three.
        square: whether it reads square canvases only.
        fill: red, green and blue of the canvas beside the photo, in [0, 255]; as a pixel (3, 1, 1), `fill_pixel`.
        stages: each maps a state to the next; a state is a map (B, C, H, W), or a tuple with one.
        classifier: (1000, C), what classifies the last level as one of ImageNet's classes; None in most encoders.
    """

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    pyramid: tuple[int, int, int]
    square: ClassVar[bool] = False
    fill: ClassVar[tuple[float, float, float]] = (0, 0, 0)
    stages: nn.ModuleList
    classifier: Tensor | None
    fill_pixel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("classifier", None, persistent=False)
        # A buffer, so that it lies where pixels do.
        fill = torch.tensor(self.fill, dtype=torch.float32)[:, None, None]
        self.register_buffer("fill_pixel", fill, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights; under autocast, inputs are converted further."""
        return next(self.parameters()).dtype

    @property
    def frozen(self) -> int:
        """How many of the stages, from the first on, training leaves as they are: none of their weights is trained."""
        trained = (any(weight.requires_grad for weight in stage.parameters()) for stage in self.stages)
        return next((number for number, trains in enumerate(trained) if trains), len(self.stages))

    @abstractmethod
    def stem(self, pixels: Tensor) -> State:
        """(B, 3, H, W) RGB in [0, 255], H and W multiples of 32 -> the state that the first stage reads."""

    def level(self, state: State) -> Tensor:
        """State after a stage -> that stage's level (B, C, H, W)."""
        assert isinstance(state, Tensor)
        return state

    def add(self, state: State, residual: Tensor) -> State:
        """The state with (B, C, H, W) added to its map."""
        assert isinstance(state, Tensor)
        return state + residual

    def trunk(self, pixels: Tensor) -> Trunk:
        """pixels, as `stem` takes them, through the frozen stages."""
        return self._run(Trunk((), self.stem(pixels)), self.frozen)

    def tail(self, trunk: Trunk) -> list[Tensor]:
        """The stages after the trunk -> all levels."""
        return list(self._run(trunk, len(self.stages)).levels)

    def forward(self, pixels: Tensor, enrich: Enrich | None = None) -> list[Tensor]:
        """pixels, as `stem` takes them -> one (B, C_l, H/s_l, W/s_l) a level.

        Args:
            enrich: for early fusion: the number of a stage and its level -> what to add to them, of the same shape.
        """
        return list(self._run(Trunk((), self.stem(pixels)), len(self.stages), enrich).levels)

    def _run(self, trunk: Trunk, stop: int, enrich: Enrich | None = None) -> Trunk:
        levels, state = list(trunk.levels), trunk.state
        for number in range(len(levels), stop):
            state = self.stages[number](state)
            if enrich:
                state = self.add(state, enrich(number, self.level(state)))
            levels.append(self.level(state))
        return Trunk(tuple(levels), state)

    def train(self, mode: bool = True) -> ImageEncoder:
        """Stays in evaluation mode: statistics and dropout are never learnt from a few photos."""
        return super().train(False)


@dataclass(frozen=True)
class TextFeatures:
    """What a text encoder makes of N sentences.

    words: (N, L, D), special tokens among them. sentence: (N, D).
    key_padding_mask: (N, L), True where there is no word. lengths: how many words each has, where that is known
    without asking the device.
    """

    words: Tensor
    key_padding_mask: Tensor
    sentence: Tensor
    lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.sentence)

    def __getitem__(self, index: slice | Tensor) -> TextFeatures:
        """Some of the sentences, or all in another order."""
        return TextFeatures(self.words[index], self.key_padding_mask[index], self.sentence[index])

    def each(self) -> list[TextFeatures]:
        """One after the other, each without padding."""
        lengths = self.lengths or tuple((~self.key_padding_mask).sum(dim=1).tolist())
        return [
            TextFeatures(
                self.words[number : number + 1, :length],
                self.key_padding_mask[number : number + 1, :length],
                self.sentence[number : number + 1],
                (length,),
            )
            for number, length in enumerate(lengths)
        ]

    @staticmethod
    def join(parts: Sequence[TextFeatures]) -> TextFeatures:
        """One after the other, padded to the longest."""
        if len(parts) == 1:
            return parts[0]
        longest = max(part.words.shape[1] for part in parts)
        padded = [part._pad(longest) for part in parts]
        return TextFeatures(
            torch.cat([part.words for part in padded]),
            torch.cat([part.key_padding_mask for part in padded]),
            torch.cat([part.sentence for part in padded]),
            tuple(length for part in parts for length in part.lengths),
        )

    def _pad(self, length: int) -> TextFeatures:
        extra = length - self.words.shape[1]
        if not extra:
            return self
        mask = F.pad(self.key_padding_mask, (0, extra), value=True)
        return TextFeatures(F.pad(self.words, (0, 0, 0, extra)), mask, self.sentence)


class TextEncoder(nn.Module):
    """sentences -> features.

    Attributes:
        name: under which `ris_core.encoders` knows it.
        width: D of its features.
        stages: its transformer layers, first to last; adapters go into the last ones.
    """

    name: str
    width: int
    stages: nn.ModuleList

    @abstractmethod
    def forward(self, sentences: Sequence[str]) -> TextFeatures:
        """N sentences -> `TextFeatures`; words past the encoder's limit are cut."""

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode, as an image encoder does."""
        return super().train(False)


Encoder = TypeVar("Encoder", ImageEncoder, TextEncoder)


@dataclass(frozen=True)
class EncoderEntry(Generic[Encoder]):
    """How to get an encoder, and what it gives.

    load: with its weights. untrained: the same network at random, for timing; embedded ones always have their weights.
    channels, strides: of each level of an image encoder; the width alone, and none, of a text encoder.
    """

    load: Callable[[], Encoder]
    untrained: Callable[[], Encoder]
    source: WeightsSource
    channels: tuple[int, ...]
    strides: tuple[int, ...] = ()


def checked(path: Path, digest: str) -> Path:
    """`path`, if its content has that SHA-256. Raises CheckpointError if it is missing or another file."""
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing. Install the package again.")
    if sha256(path) != digest:
        raise CheckpointError(f"{path.name} isn't the file this version was made with. Install the package again.")
    return path


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, types and values of all tensors in `module`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
