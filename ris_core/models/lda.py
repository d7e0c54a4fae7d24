"""LDA, language-driven attention: how much each channel and each pixel has to do with the whole sentence.

The paper's abstract fixes four things, marked [paper] below: the correlation is taken with the entire sentence rather
than word by word; it is decoupled into channel attention and spatial attention; the two are integrated; and the
result is strengthened over several receptive fields and several semantic levels. Its formulae, widths and encoders
aren't public, so the rest is our reconstruction, marked [ours]. There is no published number of LDA to compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_core.encoders.base import ImageEncoder, TextEncoder, TextFeatures
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.layers import (
    Heads,
    Upscale,
    convolution,
    level_widths,
    pick,
    pool,
    project_level,
    steps_to_quarter,
    unit,
    upsample,
    valid_cells,
)
from ris_core.models.output import LossWeights, Output


@dataclass(frozen=True)
class LDAOptions:
    """Switches of the design; every one changes what the model computes.

    attention: which of the two attentions are applied; "none" leaves the picture alone.
    fusion: how the two are integrated.
    rates: dilations of the receptive fields at the two coarse grids; empty for a single field.
    multi_level: False reads the deepest level alone.
    width: channels at strides 16 and above; finer levels are thinner.
    """

    attention: Literal["both", "channel", "spatial", "none"] = "both"
    fusion: Literal["sum", "product", "concat"] = "concat"
    rates: tuple[int, ...] = (1, 2, 4)
    multi_level: bool = True
    width: int = 128


class LDALevel(NamedTuple):
    """The part of a level that needs no sentence, computed once a photo.

    features: (B, C, H, W). keys: (B, C, H, W), at unit mean length. valid: (B, 1, H, W), 1 where there is photo.
    """

    features: Tensor
    keys: Tensor
    valid: Tensor


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

    def channel_attention(self, level: LDALevel, sentence: Tensor) -> Tensor:
        """(N, C, H, W), (N, D) -> (N, C, 1, 1) in [0, 1]: how much each channel has to do with the sentence."""
        correlation = pool(level.features, level.valid) * self.channel_query(sentence)
        return torch.sigmoid(self.channel_gate(correlation))[:, :, None, None]

    def spatial_logits(self, level: LDALevel, sentence: Tensor) -> Tensor:
        """(N, C, H, W), (N, D) -> (N, 1, H, W): the correlation of each pixel with the sentence."""
        query = unit(self.spatial_query(sentence), 1)
        correlation = torch.einsum("nchw,nc->nhw", level.keys, query).unsqueeze(1)
        logits: Tensor = self.spatial_scale * correlation + self.spatial_bias
        return logits

    def forward(self, level: LDALevel, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """One photo a sentence -> cross-modal features (N, C, H, W) and the strongest spatial logit (N, 1)."""
        features, attention, fusion = level.features, self.options.attention, self.options.fusion
        logits = self.spatial_logits(level, sentence)
        strongest = logits.masked_fill(level.valid == 0, -1e4).amax(dim=(2, 3))
        if attention == "none":
            return features, torch.zeros_like(strongest)
        if attention == "channel":
            return features * self.channel_attention(level, sentence), torch.zeros_like(strongest)
        by_pixel = torch.sigmoid(logits) * level.valid
        if attention == "spatial":
            return features * by_pixel, strongest
        by_channel = self.channel_attention(level, sentence)
        if fusion == "product":
            return features * by_channel * by_pixel, strongest
        if fusion == "sum":
            return features * (by_channel + by_pixel), strongest
        return self.integrate(torch.cat([features * by_channel, features * by_pixel], dim=1)), strongest


class ReceptiveFields(nn.Module):
    """Several dilations and the whole picture side by side [paper: multi-receptive-field; the form is ours]."""

    def __init__(self, width: int, stride: int, options: LDAOptions) -> None:
        super().__init__()
        # At the coarse grids alone.
        rates = options.rates if stride >= 16 else ()
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


class LDA(RISModel):
    """Levels are read from the coarsest up: those of one grid are added, then each grid joins the upsampled sum of the
    coarser ones [paper: multi-level-semantic; the top-down form is ours].
    """

    name = "lda"
    switches = LDAOptions
    options: LDAOptions
    loss = LossWeights(entropy=1, dice=1)  # [ours]

    def build(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: LDAOptions) -> None:
        """As `RISModel.build`."""
        channels, strides, sentence = image_encoder.channels, image_encoder.strides, text_encoder.width
        widths = level_widths(strides, options.width)
        self.project = nn.ModuleList(
            convolution(inputs + 2, width, size=1) for inputs, width in zip(channels, widths, strict=True)
        )
        self.key = nn.ModuleList(
            nn.Conv2d(inputs, width, 1, bias=False) for inputs, width in zip(channels, widths, strict=True)
        )
        self.attend = nn.ModuleList(LanguageDrivenAttention(width, sentence, options) for width in widths)
        self.fields = nn.ModuleList(
            ReceptiveFields(width, stride, options) for width, stride in zip(widths, strides, strict=True)
        )
        self.descend = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.refine = nn.ModuleList(convolution(width, width) for width in widths)
        self.upscale = Upscale(widths[0], steps_to_quarter(strides[0]))
        self.to_mask = nn.Conv2d(self.upscale.width, 1, 1)
        self.heads = Heads(self.upscale.width, len(widths), sentence)

    def on_load(self) -> None:
        """Freeze the alignment again."""
        self.freeze_alignment()

    def freeze_alignment(self) -> None:
        """Keep the deepest level's key and query as `class_alignment.align` set them, if the encoder has a classifier.

        Their tensors don't remember that.
        """
        if self.image_encoder.classifier is not None:
            self.key[-1].requires_grad_(False)
            cast(LanguageDrivenAttention, self.attend[-1]).spatial_query.requires_grad_(False)

    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> list[LDALevel]:
        """One for each level of the image encoder, fine to coarse."""
        return [
            _level(project, key, level, valid_cells(valid, level))
            for project, key, level in zip(self.project, self.key, levels, strict=True)
        ]

    def deepest_level(self, levels: ImageEmbedding) -> Tensor:
        """The last level's features."""
        return cast(LDALevel, levels[-1]).features

    def forward(self, embedding: ImageEmbedding, text: TextFeatures, index: Tensor) -> Output:
        """As `RISModel.forward`."""
        levels, deepest = cast(Sequence[LDALevel], embedding), len(embedding) - 1
        sentence = text.sentence  # (N, D): nothing else of the language is read [paper]
        x, level, evidence = sentence.new_zeros(()), levels[-1], []
        for number in range(deepest, -1, -1):
            level = pick(levels[number], index)
            if number < deepest:
                x = upsample(self.descend[number](x), level.features)
            if number == deepest or self.options.multi_level:
                features, strongest = self.attend[number](level, sentence)  # (N, C, H, W), (N, 1)
                evidence.append(strongest)
                x = x + features
            x = self.fields[number](self.refine[number](x), level.valid)
        x = self.upscale(x)  # (N, C, H/4, W/4)
        mask = self.to_mask(x)
        # The heads are as wide whatever is read: what isn't gives no evidence.
        strongest = F.pad(torch.cat(evidence, dim=1), (0, len(levels) - len(evidence)))  # (N, levels)
        return Output(mask, *self.heads(x, mask, level.valid, strongest, sentence))


def _level(project: nn.Module, key: nn.Module, level: Tensor, valid: Tensor) -> LDALevel:
    features, keys = project_level(project, level, valid), key(level * valid)
    # Scaled by their mean length, so that one temperature fits every photo and every level.
    length = pool(keys.norm(dim=1, keepdim=True), valid).clamp_min(1e-6)
    # Cell by cell in memory: convolutions on a CPU are faster so.
    features, keys = (part.contiguous(memory_format=torch.channels_last) for part in (features, keys))
    return LDALevel(features, keys / length[:, :, None, None], valid)
