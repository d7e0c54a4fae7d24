"""VIPA, visual informative part attention (arXiv 2602.14788): cells that matter to the sentence stand in for its words.

The paper's abstract, figures and tables fix the data flow, marked [paper] below: linguistic cues, one global and the
rest local, each retrieve a share of the visual tokens; aggregated, refined by cross-attention under a mask of what was
retrieved and shared among the cues, those become the "visual expression", which a transformer decoder reads in place
of the words; a pixel-contrast loss guides the retrieval. Formulae, losses' weights and the decoder aren't public; they
are our reconstruction, marked [ours]. Published numbers exist, with Swin-B and BERT-base (overall IoU on RefCOCO val:
75.84); nothing here has been shown to reach them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_core.encoders.base import ImageEncoder, TextEncoder, TextFeatures
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.layers import (
    Attention,
    FeedForward,
    Heads,
    Upscale,
    convolution,
    grid,
    join_heads,
    level_widths,
    pick,
    project_level,
    split_heads,
    steps_to_quarter,
    tokens,
    unit,
    upsample,
    valid_cells,
)
from ris_core.models.output import LossWeights, Output


@dataclass(frozen=True)
class VIPAOptions:
    """Switches of the design; every one changes what the model computes.

    kv: what the decoder reads: the visual expression, the cues as they are, or cues enriched by one look at the cells.
    retrieval: step 1; False lets every cue see every cell.
    refinement: step 2; False passes on the aggregated cells, without masked cross-attention and sharing.
    cues: which of them retrieve; the others see every cell, so "none" is the same as no retrieval, as in the paper.
    ratio: share of the photo's cells that a cue retrieves, above 0 and at most 1.
    contrast: whether the global cue's relevance map is given out for the pixel-contrast loss to supervise.
    fusion: whether words join the middle and the deep level before all that: not at all, after the encoder, or early,
        at the encoder's stages.
    layers: of the decoder, 1 or more.
    width: channels at strides 16 and above; finer levels are thinner.
    """

    kv: Literal["visual", "language", "enriched"] = "visual"
    retrieval: bool = True
    refinement: bool = True
    cues: Literal["both", "global", "local", "none"] = "both"
    ratio: float = 0.3
    contrast: bool = True
    fusion: Literal["none", "late", "early"] = "late"
    layers: int = 3
    width: int = 128


class VIPALevel(NamedTuple):
    """The part of a level that needs no sentence, computed once a photo; with early fusion, once a sentence.

    features: (B, C, H, W). valid: (B, 1, H, W), 1 where there is photo.
    """

    features: Tensor
    valid: Tensor


class Fusion(nn.Module):
    """Words join a level, late or early: x + W (a * tanh(U a)), a the cells' attention to the words [ours].

    The gate starts near 0, or early fusion would throw a trained encoder off.
    """

    def __init__(self, channels: int, width: int, words: int) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Linear(channels, width), nn.Linear(width, channels)
        self.words, self.norm = nn.Linear(words, width), nn.LayerNorm(width)
        self.attend, self.gate = Attention(width), nn.Linear(width, width)

    def forward(self, features: Tensor, valid: Tensor, text: TextFeatures) -> Tensor:
        """features (N, C, H, W), valid (N, 1, H, W) -> what to add to the features, of their shape."""
        queries, words = self.norm(self.narrow(tokens(features))), self.words(text.words)  # (N, HW, c), (N, L, c)
        gathered = self.attend(queries, words, words, text.key_padding_mask)  # (N, HW, c)
        return grid(self.widen(gathered * torch.tanh(self.gate(gathered))), features) * valid


class Retrieval(nn.Module):
    """Step 1: each cue retrieves the cells most relevant to it, by differentiable sampling [paper].

    S = (E W_q)(F_v W_k)^T / sqrt(C); a cue keeps the ceil(ratio * K) largest of its row, K the number of the photo's
    valid cells, as `sample` draws them [ours].
    """

    def __init__(self, width: int, options: VIPAOptions) -> None:
        super().__init__()
        self.options = options
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.scale, self.bias = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, cues: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """E (N, T, C), the global cue first, F_v (N, K, C) -> scores (N, T, K) and the relevance map (N, K).

        The map holds logits by which the global cue says that a cell belongs to the mask: the angle between the two
        with a temperature that is learnt, after CrossVLT's alignment by the same first author [ours].
        """
        queries, keys = self.query(cues), self.key(cells)
        scores = (queries @ keys.transpose(1, 2)).float() / keys.shape[2] ** 0.5
        cosines = torch.einsum("nc,nkc->nk", unit(queries[:, 0], 1), unit(keys, 2))
        return scores, self.scale * cosines + self.bias

    def kept(self, scores: Tensor, valid: Tensor) -> Tensor:
        """scores (N, T, K), valid (N, K) -> (N, T, K): 1 where a cue sees a cell, else 0."""
        everything, cues = valid[:, None].to(scores.dtype).expand_as(scores), self.options.cues
        if cues == "none" or not self.options.retrieval:
            return everything
        retrieved = sample(scores, valid > 0, self.options.ratio, noisy=self.training)
        first, others = (everything if cues == silent else retrieved for silent in ("local", "global"))
        return torch.cat([first[:, :1], others[:, 1:]], dim=1)


def sample(scores: Tensor, valid: Tensor, ratio: float, noisy: bool) -> Tensor:
    """scores (N, T, K), valid (N, K) -> (N, T, K): 1 at the ceil(ratio * valid cells) largest of a row, else 0.

    Cells without photo are never among them. Straight-through [ours]: its gradient is that of the softmax over the
    valid cells, times how many are kept. noisy: Gumbel noise makes it a draw without replacement (Kool et al. 2019).
    """
    if noisy:
        scores = scores - torch.empty_like(scores).exponential_().clamp_min(1e-20).log()
    scores = scores.masked_fill(~valid[:, None], -torch.inf)
    # A shade less, or rounding would make 7.000001 cells 8.
    count = torch.ceil(ratio * valid.sum(dim=1) - 1e-4).clamp_min(1)[:, None, None]  # (N, 1, 1)
    order = scores.argsort(dim=2, descending=True, stable=True)
    among = (torch.arange(scores.shape[2], device=scores.device) < count).to(scores.dtype)
    hard = torch.zeros_like(scores).scatter(2, order, among.expand_as(scores))
    soft = count * scores.softmax(dim=2)
    return hard + (soft - soft.detach())


def masked_softmax(logits: Tensor, kept: Tensor) -> Tensor:
    """Softmax over the last dimension of (..., K), among the kept alone: exactly 0 elsewhere, and exactly 1 in sum.

    `kept` is multiplied in, where the figure adds -inf, so that gradients reach it also where it is 0 [ours].
    """
    top = logits.masked_fill(kept == 0, -torch.inf).amax(dim=-1, keepdim=True).detach()
    # A cell that isn't kept may exceed the largest that is: its weight is 0, its exponential must not overflow.
    weights = (logits - top).clamp_max(0).exp() * kept
    return weights / weights.sum(dim=-1, keepdim=True)


class MaskedAttention(nn.Module):
    """Dynamic masked cross-attention: a cue's aggregated cells look at the cells it retrieved, and no other [paper]."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def weights(self, queries: Tensor, cells: Tensor, kept: Tensor) -> Tensor:
        """queries (N, T, C), cells (N, K, C), kept (N, T, K) -> (N, heads, T, K), exactly 0 where kept is."""
        q, k = split_heads(self.query(queries), self.heads), split_heads(self.key(cells), self.heads)
        return masked_softmax((q @ k.transpose(2, 3)).float() / q.shape[3] ** 0.5, kept[:, None])

    def forward(self, queries: Tensor, cells: Tensor, kept: Tensor) -> Tensor:
        """As `weights` -> (N, T, C)."""
        value = split_heads(self.value(cells), self.heads)
        mixed = self.weights(queries, cells, kept).to(value.dtype) @ value  # (N, heads, T, C / heads)
        out: Tensor = self.out(join_heads(mixed))
        return out


class Refinement(nn.Module):
    """Step 2: dynamic masked cross-attention, then the cues share their visual contexts [paper].

    F_r = F_a + DMCA(F_a, F_v, kept), E = F_r + MHSA(LN F_r), E_V = E + FFN(LN E) [ours].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look, self.share, self.think = MaskedAttention(width), Attention(width), FeedForward(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, aggregated: Tensor, cells: Tensor, kept: Tensor, key_padding_mask: Tensor) -> Tensor:
        """F_a (N, T, C), F_v (N, K, C), kept (N, T, K), key_padding_mask (N, T) -> E_V (N, T, C)."""
        x = aggregated + self.look(aggregated, cells, kept)
        normed = self.norms[0](x)
        x = x + self.share(normed, normed, normed, key_padding_mask)
        refined: Tensor = x + self.think(self.norms[1](x))
        return refined


class DecoderLayer(nn.Module):
    """Query: vision features; key and value: the visual expression [paper]. Pre-normalised, with an FFN [ours]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend, self.think = Attention(width), FeedForward(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, cells: Tensor, expression: Tensor, key_padding_mask: Tensor) -> Tensor:
        """cells (N, K, C), expression (N, T, C), key_padding_mask (N, T) -> cells."""
        cells = cells + self.attend(self.norms[0](cells), expression, expression, key_padding_mask)
        decoded: Tensor = cells + self.think(self.norms[1](cells))
        return decoded


class VIPA(RISModel):
    """F_v is the encoder's deep level [paper: the deepest grid]. The decoder's cells then descend through the finer
    levels: upsampled, added to a level and smoothed by a convolution [ours].

    Fusion is late by default [ours]: one embedding of a photo then serves all its sentences. The paper's best has early
    fusion, 0.2 to 0.4 points above late fusion (overall IoU on RefCOCO+), for which each sentence encodes the photo.
    """

    name = "vipa"
    switches = VIPAOptions
    options: VIPAOptions
    # [ours]: cross-entropy counts twice the pixel-contrast loss, as in CrossVLT; Dice, for small things, is added.
    loss = LossWeights(entropy=2, dice=1, auxiliary=1)

    def build(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: VIPAOptions) -> None:
        """As `RISModel.build`."""
        self.numbers = _numbers(image_encoder)
        channels = [image_encoder.channels[number] for number in self.numbers]
        strides = [image_encoder.strides[number] for number in self.numbers]
        widths, words = level_widths(strides, options.width), text_encoder.width
        width = widths[-1]
        self.fuse = nn.ModuleDict(
            {
                str(number): Fusion(outer if options.fusion == "early" else inner, inner, words)
                for number, outer, inner in zip(self.numbers, channels, widths, strict=True)
                if number in image_encoder.pyramid[1:] and options.fusion != "none"
            }
        )
        self.project = nn.ModuleList(
            convolution(outer + 2, inner, size=1) for outer, inner in zip(channels, widths, strict=True)
        )
        self.global_cue, self.local_cues = nn.Linear(words, width), nn.Linear(words, width)
        self.norm = nn.LayerNorm(width)
        self.retrieve = Retrieval(width, options)
        if options.kv == "enriched":
            self.enrich = Attention(width)
        if options.kv == "visual" and options.refinement:
            self.refine = Refinement(width)
        self.layers = nn.ModuleList(DecoderLayer(width) for _ in range(options.layers))
        self.descend = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.smooth = nn.ModuleList(convolution(inner, inner) for inner in widths[:-1])
        self.upscale = Upscale(widths[0], steps_to_quarter(strides[0]))
        self.to_mask = nn.Conv2d(self.upscale.width, 1, 1)
        self.heads = Heads(self.upscale.width, 1, words)

    @property
    def early_fusion(self) -> bool:
        """As the switch `fusion` says."""
        early: bool = self.options.fusion == "early"
        return early

    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> list[VIPALevel]:
        """One for each level that is read, fine to coarse; the last is F_v."""
        return [
            _level(project, levels[number], valid_cells(valid, levels[number]))
            for project, number in zip(self.project, self.numbers, strict=True)
        ]

    def deepest_level(self, levels: ImageEmbedding) -> Tensor:
        """F_v, before any sentence."""
        return cast(VIPALevel, levels[-1]).features

    def forward(self, embedding: ImageEmbedding, text: TextFeatures, index: Tensor) -> Output:
        """As `RISModel.forward`."""
        levels = self.join_words(embedding, text, index)
        deep = levels[-1]
        cells, valid = tokens(deep.features), tokens(deep.valid).squeeze(2)  # (N, K, C), (N, K)
        cues, key_padding_mask = self.cues(text)  # (N, 1 + L, C), (N, 1 + L)
        scores, relevance = self.retrieve(cues, cells)  # (N, 1 + L, K), (N, K)
        expression = self._expression(cues, key_padding_mask, cells, valid, scores)  # (N, 1 + L, C)
        for layer in self.layers:
            cells = layer(cells, expression, key_padding_mask)
        x = grid(cells, deep.features) * deep.valid
        for number in range(len(levels) - 2, -1, -1):
            finer = levels[number].features
            x = self.smooth[number](upsample(self.descend[number](x), finer) + finer)  # (N, C, H, W)
        x = self.upscale(x)  # (N, C, H/4, W/4)
        mask = self.to_mask(x)
        strongest = relevance.masked_fill(valid == 0, -1e4).amax(dim=1, keepdim=True)
        presence, quality = self.heads(x, mask, levels[0].valid, strongest, text.sentence)
        maps = (grid(relevance.unsqueeze(2), deep.features),) if self.options.contrast else ()  # (N, 1, h, w)
        return Output(mask, presence, quality, maps)

    def join_words(self, embedding: ImageEmbedding, text: TextFeatures, index: Tensor) -> list[VIPALevel]:
        """One photo a sentence, words joined in as `fusion` says: each level (N, C, H, W)."""
        if self.early_fusion:
            pixels, valid = pick(embedding[0], index)
            return self.read_levels(self.image_encoder(pixels, partial(self._enrich, text, valid)), valid)
        levels = {
            str(number): pick(cast(VIPALevel, level), index)
            for number, level in zip(self.numbers, embedding, strict=True)
        }
        for number, fuse in self.fuse.items():
            features, valid = levels[number]
            levels[number] = VIPALevel(features + fuse(features, valid, text), valid)
        return list(levels.values())

    def _enrich(self, text: TextFeatures, valid: Tensor, number: int, level: Tensor) -> Tensor:
        if str(number) not in self.fuse:
            return torch.zeros_like(level)
        added: Tensor = self.fuse[str(number)](level, valid_cells(valid, level), text)
        return added

    def cues(self, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """The sentence as the global cue, then its words as local ones [paper] -> (N, 1 + L, C).

        And their key padding mask, (N, 1 + L).
        """
        cues = torch.cat([self.global_cue(text.sentence)[:, None], self.local_cues(text.words)], dim=1)
        return self.norm(cues), F.pad(text.key_padding_mask, (1, 0), value=False)

    def _expression(
        self, cues: Tensor, key_padding_mask: Tensor, cells: Tensor, valid: Tensor, scores: Tensor
    ) -> Tensor:
        """What the decoder reads: the visual expression, or what the paper compares it with -> (N, 1 + L, C)."""
        if self.options.kv == "language":
            return cues
        if self.options.kv == "enriched":
            enriched: Tensor = cues + self.enrich(cues, cells, cells, valid == 0)
            return enriched
        kept = self.retrieve.kept(scores, valid)
        aggregated = masked_softmax(scores, kept).to(cells.dtype) @ cells  # F_a, [paper]; by the scores, [ours]
        return self.refine(aggregated, cells, kept, key_padding_mask) if self.options.refinement else aggregated


def _numbers(encoder: ImageEncoder) -> list[int]:
    # All grids finer than the pyramid's, for the outline; its three levels, for everything else.
    shallow = encoder.strides[encoder.pyramid[0]]
    return [number for number, stride in enumerate(encoder.strides) if stride < shallow or number in encoder.pyramid]


def _level(project: nn.Module, level: Tensor, valid: Tensor) -> VIPALevel:
    features = project_level(project, level, valid)
    # Cell by cell in memory: `tokens` then copies nothing, and convolutions on a CPU take half the time.
    return VIPALevel(features.contiguous(memory_format=torch.channels_last), valid)
