"""MARIS, mutual-aware attention features (arXiv 2311.15727; later versions call it RISAM).

The paper's abstract and figures fix five things, marked [paper] below: three levels and the linguistic features enter
a feature enhancement; mutual-aware attention blocks run a vision-guided and a language-guided branch in parallel, on
one matrix A and its transpose; the vision-aware words they make are the mask decoder's linguistic guidance; a
multi-modal query token joins them there; and the encoders are tuned with few parameters. Its formulae, widths and loss
aren't public, so the rest is our reconstruction, marked [ours]. There is no published number of MARIS to compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_core.encoders.base import ImageEncoder, TextEncoder, TextFeatures
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.layers import (
    FeedForward,
    Heads,
    convolution,
    grid,
    grid_encoding,
    join_heads,
    linear_norm,
    padding_cells,
    pick,
    project_level,
    sinusoids,
    split_heads,
    steps_to_quarter,
    tokens,
    upsample,
    valid_cells,
)
from ris_core.models.output import LossWeights, Output
from ris_core.models.query_decoder import QueryDecoder

# Affinities are clamped well inside the range of half precision, as GLIP clamps its own (Li et al. 2022).
_LARGEST = 1e4


@dataclass(frozen=True)
class MARISOptions:
    """Switches of the design; every one changes what the model computes.

    enhancement: False reads the deep level alone, brought to the middle level's grid.
    blocks: mutual-aware attention blocks; with 0 the decoder gets cells and words as they are.
    vision_guided: each cell looks for its words. language_guided: each word looks for its cells.
    relevance: pairs of a cell and a word whose affinity is below it are masked; None masks none.
    guidance: the decoder sees the words; False leaves it the query alone.
    query: what the query token is made of, a learned vector, the sentence's or, multi-modal, their sum.
    width: channels.
    """

    enhancement: bool = True
    blocks: int = 2
    vision_guided: bool = True
    language_guided: bool = True
    relevance: float | None = None
    guidance: bool = True
    query: Literal["multimodal", "learned", "sentence"] = "multimodal"
    width: int = 128


class MARISLevel(NamedTuple):
    """What enhancement makes of the three levels before it needs the sentence, computed once a photo.

    parts: (B, P, HW, C), on the middle level's grid; the sentence decides how to add them up.
    valid: (B, 1, H, W), 1 where there is photo.
    """

    parts: Tensor
    valid: Tensor


class FeatureEnhancement(nn.Module):
    """Shallow, middle and deep level and the sentence -> one map of cells [paper; the formulae are ours].

    P_i = project(F_vi), X_ij = conv3x3[P_i, P_j] for shallow with middle and middle with deep, and
    F_v = LN(sum_ij g_ij(s) * W_ij X_ij): a 1x1 convolution of their concatenation, gated by the sentence s.
    """

    def __init__(self, channels: Sequence[int], sentence: int, options: MARISOptions) -> None:
        super().__init__()
        self.options, width = options, options.width
        levels = channels if options.enhancement else channels[-1:]
        self.project = nn.ModuleList(convolution(inputs + 2, width, size=1) for inputs in levels)
        if options.enhancement:
            self.join = nn.ModuleList(convolution(2 * width, width) for _ in pairwise(levels))
            self.merge = nn.ModuleList(nn.Linear(width, width) for _ in pairwise(levels))
            self.gates = nn.Linear(sentence, (len(levels) - 1) * width)
        self.norm = nn.LayerNorm(width)

    def read(self, levels: Sequence[Tensor], valid: Tensor) -> MARISLevel:
        """Shallow, middle and deep level and the canvas' valid -> all that needs no sentence."""
        inside = valid_cells(valid, levels[1])
        used = levels if self.options.enhancement else levels[-1:]
        projected = [
            _resize(project_level(project, level, valid_cells(valid, level)), inside) * inside  # (B, C, H, W)
            for project, level in zip(self.project, used, strict=True)
        ]
        if not self.options.enhancement:
            return MARISLevel(tokens(projected[0])[:, None], inside)
        joined = [join(torch.cat(pair, dim=1)) for join, pair in zip(self.join, pairwise(projected), strict=True)]
        merged = [merge(tokens(pair)) for merge, pair in zip(self.merge, joined, strict=True)]
        return MARISLevel(torch.stack(merged, dim=1), inside)

    def forward(self, level: MARISLevel, sentence: Tensor) -> Tensor:
        """One photo a sentence, sentence (N, D) -> cells (N, HW, C)."""
        parts = level.parts
        if self.options.enhancement:
            gates = 2 * torch.sigmoid(self.gates(sentence))  # (N, P * C), 1 on average
            parts = parts * gates.view(len(gates), parts.shape[1], 1, -1)
        cells: Tensor = self.norm(parts.sum(dim=1))
        return cells


class GuidedAttention(nn.Module):
    """One branch: queries gather values, by the affinities that both branches share.

    x' = LN(x + softmax(A) (y W_value) W_out), then LN(x' + FFN(x')); [paper] for the matmul with A, the rest is [ours].
    """

    def __init__(self, width: int, options: MARISOptions, heads: int = 8) -> None:
        super().__init__()
        self.options, self.heads = options, heads
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.think = FeedForward(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def weights(self, affinity: Tensor, key_padding_mask: Tensor) -> Tensor:
        """affinity (N, heads, Q, K), key_padding_mask (N, K) -> (N, heads, Q, K): rows sum to 1, masked keys get 0."""
        affinity = affinity.masked_fill(key_padding_mask[:, None, None], -torch.inf)
        if self.options.relevance is not None:
            # A row's strongest pair stays, however weak it is.
            least = affinity.amax(dim=3, keepdim=True).clamp(max=self.options.relevance)
            affinity = affinity.masked_fill(affinity < least, -torch.inf)
        return affinity.softmax(dim=3)

    def forward(self, queries: Tensor, values: Tensor, affinity: Tensor, key_padding_mask: Tensor) -> Tensor:
        """queries (N, Q, C), values (N, K, C), affinity and key_padding_mask as for `weights` -> (N, Q, C)."""
        values = split_heads(self.value(values), self.heads)  # (N, heads, K, C / heads)
        gathered = self.weights(affinity, key_padding_mask) @ values  # (N, heads, Q, C / heads)
        queries = self.norms[0](queries + self.out(join_heads(gathered)))
        out: Tensor = self.norms[1](queries + self.think(queries))
        return out


class MutualAwareAttention(nn.Module):
    """Two parallel branches on one matrix of affinities and its transpose [paper].

    A = (F_v W_v)(F_l W_l)^T / sqrt(d), a matrix for each of 8 heads [ours].
    vision-guided: softmax(A) over words -> language-aware cells. language-guided: softmax(A^T) over cells ->
    vision-aware words. A branch that is off hands its side on unchanged.
    """

    def __init__(self, width: int, options: MARISOptions, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.cell_key = nn.Linear(width, width, bias=False)
        self.word_key = nn.Linear(width, width, bias=False)
        self.vision_guided = GuidedAttention(width, options, heads) if options.vision_guided else None
        self.language_guided = GuidedAttention(width, options, heads) if options.language_guided else None

    def affinity(self, cells: Tensor, words: Tensor) -> Tensor:
        """(N, HW, C), (N, L, C) -> A (N, heads, HW, L)."""
        # Scaled before the product, which half precision might not hold otherwise.
        keys = split_heads(self.cell_key(cells) * (cells.shape[2] // self.heads) ** -0.5, self.heads)
        logits = keys @ split_heads(self.word_key(words), self.heads).transpose(2, 3)
        return logits.clamp(-_LARGEST, _LARGEST)

    def forward(
        self, cells: Tensor, words: Tensor, cell_padding_mask: Tensor, word_padding_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """cells (N, HW, C), words (N, L, C), their masks (N, HW), (N, L) -> cells and words of the same shapes."""
        affinity = self.affinity(cells, words)
        vision, language = self.vision_guided, self.language_guided
        aware_cells = vision(cells, words, affinity, word_padding_mask) if vision else cells
        aware_words = language(words, cells, affinity.transpose(2, 3), cell_padding_mask) if language else words
        return aware_cells, aware_words


class QueryToken(nn.Module):
    """The multi-modal query [paper]: a learned vector plus the projected sentence [ours]."""

    def __init__(self, width: int, sentence: int, options: MARISOptions) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.randn(width)) if options.query != "sentence" else None
        self.project = linear_norm(sentence, width) if options.query != "learned" else None

    def forward(self, sentence: Tensor) -> Tensor:
        """(N, D) -> (N, 1, C)."""
        parts = []
        if self.learned is not None:
            parts.append(self.learned.expand(len(sentence), -1))
        if self.project is not None:
            parts.append(self.project(sentence))
        return torch.stack(parts, dim=1).sum(dim=1, keepdim=True)


class MARIS(RISModel):
    """Levels and sentence are enhanced into cells, cells and words made aware of each other, and a query token among
    the words is decoded into the mask [paper]. `Tuning` with adapters is the tuning with few parameters that the paper
    speaks of; that the adapters are LoRA is [ours].
    """

    name = "maris"
    switches = MARISOptions
    options: MARISOptions
    loss = LossWeights(entropy=0, focal=20, dice=1)  # [ours], the weights SAM has

    def build(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: MARISOptions) -> None:
        """As `RISModel.build`."""
        pyramid, width, sentence = image_encoder.pyramid, options.width, text_encoder.width
        self.enhance = FeatureEnhancement([image_encoder.channels[number] for number in pyramid], sentence, options)
        self.blocks = nn.ModuleList(_blocks(options))
        self.to_words = linear_norm(sentence, width)
        self.to_query = QueryToken(width, sentence, options)
        self.decoder = QueryDecoder(width, steps_to_quarter(image_encoder.strides[pyramid[1]]))
        self.heads = Heads(self.decoder.width, width, sentence)

    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> list[MARISLevel]:
        """One, at the grid of the middle level."""
        return [self.enhance.read([levels[number] for number in self.image_encoder.pyramid], valid)]

    def deepest_level(self, levels: ImageEmbedding) -> Tensor:
        """The part that the deep level is joined into, with the middle one; or the deep level, if it is read alone."""
        parts, valid = cast(MARISLevel, levels[0])
        return grid(parts[:, -1], valid) * valid

    def forward(self, embedding: ImageEmbedding, text: TextFeatures, index: Tensor) -> Output:
        """As `RISModel.forward`."""
        level, sentence = pick(cast(MARISLevel, embedding[0]), index), text.sentence
        cells, words = self.enhance(level, sentence), self._words(text)  # (N, HW, C), (N, L, C)
        cell_padding_mask = padding_cells(level.valid)  # (N, HW)
        for block in self.blocks:
            cells, words = block(cells, words, cell_padding_mask, text.key_padding_mask)
        query, features = self.to_query(sentence), grid(cells, level.valid)  # (N, 1, C), (N, C, H, W)
        seen = words.shape[1] if self.options.guidance else 0
        words, word_padding_mask = words[:, :seen], text.key_padding_mask[:, :seen]
        positional_encoding = grid_encoding(features)  # (1, HW, C)
        mask, upscaled, query = self.decoder(
            query, words, features, positional_encoding, word_padding_mask, level.valid
        )
        return Output(mask, *self.heads(upscaled, mask, level.valid, query, sentence))

    def _words(self, text: TextFeatures) -> Tensor:
        words = self.to_words(text.words)
        positional_encoding = sinusoids(words.shape[1], words.shape[2], words.device)  # [paper; sines are ours]
        out: Tensor = words + positional_encoding.to(words.dtype)
        return out


def _blocks(options: MARISOptions) -> list[MutualAwareAttention]:
    blocks = []
    for number in range(options.blocks):
        # Words that neither a later block nor the decoder reads aren't computed.
        read = options.guidance or (options.vision_guided and number < options.blocks - 1)
        language = options.language_guided and read
        if options.vision_guided or language:
            blocks.append(MutualAwareAttention(options.width, replace(options, language_guided=language)))
    return blocks


def _resize(features: Tensor, like: Tensor) -> Tensor:
    # Going down, a mean over all cells: bilinear interpolation would read four of them.
    if features.shape[-1] > like.shape[-1]:
        return F.adaptive_avg_pool2d(features, (like.shape[-2], like.shape[-1]))
    return upsample(features, like)
