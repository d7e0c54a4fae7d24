"""LDA, language-driven attention: how much each channel and each pixel has to do with the whole sentence.

The paper's abstract fixes four things, marked [paper] below: the correlation is taken with the entire sentence rather
than word by word; it is decoupled into channel attention and spatial attention; the two are integrated; and the
result is strengthened over several receptive fields and several semantic levels. Its formulae, widths and encoders
aren't public, so the rest is our reconstruction, marked [ours]. There is no published number of LDA to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ris_core.encoders import ImageEncoder, TextEncoder
from ris_core.models.parts import PresenceHead, convolution, coordinates, pool, upsample, valid_cells

Attention = Literal["both", "channel", "spatial"]
Fusion = Literal["sum", "product", "concat"]


@dataclass(frozen=True)
class LDAOptions:
    """Switches of the design; every one changes what the model computes.

    attention: which of the two attentions are applied.
    fusion: how the two are integrated.
    rates: dilations of the receptive fields at the two coarse grids; empty for a single field.
    multi_level: False reads the coarsest grid alone.
    width: channels at strides 16 and above; finer levels are thinner, see `_widths`.
    """

    attention: Attention = "both"
    fusion: Fusion = "concat"
    rates: tuple[int, ...] = (1, 2, 4)
    multi_level: bool = True
    width: int = 128


class Level(NamedTuple):
    """The part of a level that needs no sentence, computed once a photo.

    features: (B, C, H, W). keys: (B, C, H, W), at unit mean length. valid: (B, 1, H, W), 1 where there is photo.
    """

    features: Tensor
    keys: Tensor
    valid: Tensor

    def pick(self, index: Tensor) -> Level:
        """Repeat photos so that there is one for each sentence; index (N,)."""
        return Level(*(part[index] for part in self))


class Output(NamedTuple):
    """mask: (N, 1, H/4, W/4) logits. presence: (N,) logits of the thing being there at all."""

    mask: Tensor
    presence: Tensor


class LanguageDrivenAttention(nn.Module):
    """One level: channel attention and spatial attention from the sentence vector, integrated [paper].

    channel: a_c = sigmoid(MLP(mean(F) * W1 q)), spatial: a_s = sigmoid(s <K, W2 q> + b); both formulae [ours].
    """

    def __init__(self, width: int, sentence: int, options: LDAOptions) -> None:
        super().__init__()
        self.options = options
        self.channel_query = nn.Linear(sentence, width)
        self.channel_gate = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.spatial_query = nn.Linear(sentence, width)
        self.spatial_scale = nn.Parameter(torch.tensor(4.0))
        self.spatial_bias = nn.Parameter(torch.tensor(0.0))
        if options.fusion == "concat":
            self.integrate = nn.Conv2d(2 * width, width, 1)

    def channel_attention(self, level: Level, sentence: Tensor) -> Tensor:
        """(N, C, H, W), (N, D) -> (N, C, 1, 1) in [0, 1]: how much each channel has to do with the sentence."""
        correlation = pool(level.features, level.valid) * self.channel_query(sentence)
        return torch.sigmoid(self.channel_gate(correlation))[:, :, None, None]

    def spatial_logits(self, level: Level, sentence: Tensor) -> Tensor:
        """(N, C, H, W), (N, D) -> (N, 1, H, W): the correlation of each pixel with the sentence."""
        query = nn.functional.normalize(self.spatial_query(sentence), dim=1)
        correlation = torch.einsum("nchw,nc->nhw", level.keys, query).unsqueeze(1)
        logits: Tensor = self.spatial_scale * correlation + self.spatial_bias
        return logits

    def forward(self, level: Level, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """One photo a sentence -> cross-modal features (N, C, H, W) and the strongest spatial logit (N, 1)."""
        logits = self.spatial_logits(level, sentence)
        strongest = logits.masked_fill(level.valid == 0, -1e4).amax(dim=(2, 3))
        features, options = level.features, self.options
        if options.attention == "channel":
            return features * self.channel_attention(level, sentence), torch.zeros_like(strongest)
        by_pixel = torch.sigmoid(logits) * level.valid
        if options.attention == "spatial":
            return features * by_pixel, strongest
        by_channel = self.channel_attention(level, sentence)
        if options.fusion == "product":
            return features * by_channel * by_pixel, strongest
        if options.fusion == "sum":
            return features * (by_channel + by_pixel), strongest
        return self.integrate(torch.cat([features * by_channel, features * by_pixel], dim=1)), strongest


class ReceptiveFields(nn.Module):
    """Several dilations and the whole picture side by side [paper: multi-receptive-field; the form is ours]."""

    def __init__(self, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.fields = nn.ModuleList(convolution(width, width, dilation=rate, groups=width) for rate in rates)
        if rates:
            self.picture = nn.Linear(width, width)
            self.merge = convolution(width * (1 + len(rates)), width, size=1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape; without dilations, the same values."""
        if not len(self.fields):
            return x
        picture = self.picture(pool(x, valid))[:, :, None, None]
        strengthened: Tensor = x + self.merge(torch.cat([x + picture, *(field(x) for field in self.fields)], dim=1))
        return strengthened


class LDA(nn.Module):
    """image encoder + text encoder -> mask and presence logits. The encoders are frozen and not among its weights.

    Levels are read from the coarsest up: those of one grid are added, then each grid joins the upsampled sum of the
    coarser ones [paper: multi-level-semantic; the top-down form is ours].
    """

    name = "lda"

    def __init__(
        self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: LDAOptions | None = None
    ) -> None:
        super().__init__()
        self.options = options or LDAOptions()
        # Kept out of the module tree: shared by all models of a process, and never saved with one.
        self._encoders = (image_encoder, text_encoder)
        widths = _widths(image_encoder.strides, self.options.width)
        sentence = text_encoder.width
        self.project = nn.ModuleList(
            convolution(channels + 2, width, size=1)
            for channels, width in zip(image_encoder.channels, widths, strict=True)
        )
        self.key = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False)
            for channels, width in zip(image_encoder.channels, widths, strict=True)
        )
        self.attend = nn.ModuleList(LanguageDrivenAttention(width, sentence, self.options) for width in widths)
        self.fields = nn.ModuleList(
            ReceptiveFields(width, self.options.rates if stride >= 16 else ())
            for width, stride in zip(widths, image_encoder.strides, strict=True)
        )
        self.descend = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.refine = nn.ModuleList(convolution(width, width) for width in widths)
        self.to_mask = nn.Conv2d(widths[0], 1, 1)
        self.presence = PresenceHead(widths[0], len(widths), sentence)

    @property
    def image_encoder(self) -> ImageEncoder:
        return self._encoders[0]

    @property
    def text_encoder(self) -> TextEncoder:
        return self._encoders[1]

    @property
    def device(self) -> torch.device:
        return self.to_mask.weight.device

    def place(self) -> LDA:
        """Move model and encoders to the GPU, if there is one. Encoders are shared, so all models move with them."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for part in (self, *self._encoders):
            if isinstance(part, nn.Module):
                part.to(device)
        return self

    def config(self) -> dict[str, object]:
        """What rebuilds this model: its name, its encoders' names and its switches."""
        image, text = (encoder.name for encoder in self._encoders)
        return {
            "model": self.name,
            "image_encoder": image,
            "text_encoder": text,
            "options": asdict(self.options),
        }

    def encode_image(self, pixels: Tensor, valid: Tensor) -> list[Level]:
        """The frozen encoder, then `read_levels`. pixels (B, 3, H, W) in [0, 255], valid (B, 1, H, W) in {0, 1}."""
        return self.read_levels(self.image_encoder(pixels), valid)

    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> list[Level]:
        """The trained part that needs no sentence: one `Level` for each level of the image encoder."""
        return [
            _level(project, key, level, valid_cells(valid, level))
            for project, key, level in zip(self.project, self.key, levels, strict=True)
        ]

    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """N sentences -> (N, D) sentence vectors: LDA reads nothing else of the language [paper]."""
        return self.text_encoder(sentences).sentence

    def forward(self, levels: Sequence[Level], sentence: Tensor, index: Tensor) -> Output:
        """Decode N sentences.

        Args:
            levels: of B photos, from `encode_image`.
            sentence: (N, D), from `encode_text`.
            index: (N,) the photo of each sentence, in [0, B).
        """
        coarsest = len(levels) - 1
        x = torch.empty(0)
        evidence = []
        for number in range(coarsest, -1, -1):
            level = levels[number].pick(index)
            features, strongest = self.attend[number](level, sentence)
            evidence.append(strongest)
            if number < coarsest:
                coarser = upsample(self.descend[number](x), features)
                features = coarser + features if self.options.multi_level else coarser
            x = self.fields[number](self.refine[number](features), level.valid)
        mask = self.to_mask(x)
        presence = self.presence(x, mask, level.valid, torch.cat(evidence, dim=1), sentence)
        return Output(mask, presence)


def _widths(strides: Sequence[int], width: int) -> list[int]:
    # Fine grids have many cells and little meaning: fewer channels there keep a prompt cheap.
    return [max(16, width // {4: 4, 8: 2}.get(stride, 1)) for stride in strides]


def _level(project: nn.Module, key: nn.Module, level: Tensor, valid: Tensor) -> Level:
    features = project(torch.cat([level, coordinates(level)], dim=1)) * valid
    keys = key(level)
    # Scaled by their mean length, so that one temperature fits every photo and every level.
    length = pool(keys.norm(dim=1, keepdim=True), valid).clamp_min(1e-6)
    return Level(features, keys / length[:, :, None, None], valid)
