"""HARIS, human-like attention: what was found in a first look, weighed by the sentence, steers a second look.

The paper (arXiv 2405.10707) fixes the following in its abstract and figures, marked [paper] below: visual features of
three depths, word features and a sentence vector go through human-like attention blocks, hierarchically; a block has
two branches, language-weighted attention and vision-weighted attention; in the first, a feedback signal, modulated by
the sentence and fed into an MLP, is together with the visual tokens the input of a second round; a decoder with one
learnable query token makes the mask; encoders are tuned parameter-efficiently; the loss is focal and Dice. Formulae,
widths and encoders aren't public: the rest is our reconstruction, marked [ours]. There is no published number of
HARIS to compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    convolution,
    grid,
    grid_encoding,
    linear_norm,
    padding_cells,
    pick,
    steps_to_quarter,
    tokens,
    upsample,
    valid_cells,
)
from ris_core.models.output import LossWeights, Output
from ris_core.models.query_decoder import QueryDecoder


@dataclass(frozen=True)
class HARISOptions:
    """Switches of the design; every one changes what the model computes.

    feedback: whether a round's outcome steers the next, and whether the sentence modulates it; "off" is one round.
    rounds: of language-weighted attention in a block, all with the same weights; 1 is feedback "off".
    modulation: by how well each cell agrees with the sentence ("cosine"), or of each channel by the sentence alone
        ("sigmoid").
    target: which input of the attention the feedback is added to: what cells ask with ("query") or what they read
        ("value").
    language_weighted: False leaves cells as they are, so that there is nothing to feed back either.
    vision_weighted: False leaves words as they are.
    hierarchical: False reads the deep level alone, in one block.
    order: of the levels in the hierarchy.
    width: channels of cells and words.
    """

    feedback: Literal["modulated", "unmodulated", "off"] = "modulated"
    rounds: Literal[1, 2, 3] = 2
    modulation: Literal["cosine", "sigmoid"] = "cosine"
    target: Literal["query", "value", "both"] = "query"
    language_weighted: bool = True
    vision_weighted: bool = True
    hierarchical: bool = True
    order: Literal["deep first", "shallow first"] = "deep first"
    width: int = 128


class HARISLevel(NamedTuple):
    """The part of a level that needs no sentence, computed once a photo; all at the grid of the middle level [ours].

    cells: (B, HW, C). valid: (B, 1, H, W), 1 where there is photo.
    """

    cells: Tensor
    valid: Tensor


class Fused(NamedTuple):
    """What goes from block to block: cells (N, HW, C) that know the words, words (N, L, C) that know the cells."""

    cells: Tensor
    words: Tensor


class Context(NamedTuple):
    """What no block changes.

    sentence: (N, D). positional_encoding: (1, HW, C) of the cells. word_padding_mask: (N, L), True where there is no
    word. cell_padding_mask: (N, HW), True where there is no photo.
    """

    sentence: Tensor
    positional_encoding: Tensor
    word_padding_mask: Tensor
    cell_padding_mask: Tensor


class Feedback(nn.Module):
    """FB = MLP(m * Z): what a round gathered, modulated by the sentence, through an MLP [paper]; both m are [ours].

    cosine: m = clamp(a cos(Z, W F_s) + b, 0, 1), a number a cell. sigmoid: m = sigmoid(W F_s), a number a channel.
    Cosines start out near 0: without a and b, learnt, the clamp would leave hardly any feedback and no gradient.
    """

    def __init__(self, width: int, sentence: int, options: HARISOptions) -> None:
        super().__init__()
        self.options = options
        self.expected = nn.Linear(sentence, width)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(torch.tensor(0.5))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        for linear in (self.mlp[0], self.mlp[2]):
            # Else the feedback would start out a tenth as large as what it is added to.
            nn.init.kaiming_normal_(cast(nn.Linear, linear).weight, nonlinearity="relu")

    def modulation(self, gathered: Tensor, sentence: Tensor) -> Tensor:
        """(N, HW, C), (N, D) -> (N, HW, 1) or (N, 1, C) in [0, 1]: how much of what was gathered is fed back."""
        expected = self.expected(sentence).unsqueeze(1)  # (N, 1, C)
        if self.options.modulation == "sigmoid":
            return torch.sigmoid(expected)
        # In float32, as `layers.unit`.
        cosine = F.cosine_similarity(gathered.float(), expected.float(), dim=2).unsqueeze(2)  # (N, HW, 1)
        return (self.scale * cosine.to(gathered.dtype) + self.bias).clamp(0, 1)

    def forward(self, gathered: Tensor, sentence: Tensor) -> Tensor:
        """Z (N, HW, C), (N, D) -> FB (N, HW, C)."""
        if self.options.feedback == "modulated":
            gathered = self.modulation(gathered, sentence) * gathered
        feedback: Tensor = self.mlp(gathered)
        return feedback


class LanguageWeightedAttention(nn.Module):
    """Cells read words in rounds, the feedback of one joining the visual tokens in the next [paper]; formulae [ours].

    round 1: Z = F_v + Attn(F_v, F_w). After it, with the same weights: Z = F_v + Attn(F_v + FB(Z), F_w).
    """

    def __init__(self, width: int, sentence: int, options: HARISOptions) -> None:
        super().__init__()
        self.options = options
        self.attend = Attention(width)
        self.feedback = Feedback(width, sentence, options)

    def one_round(self, fused: Fused, context: Context, feedback: Tensor | None = None) -> Tensor:
        """With the feedback (N, HW, C) of the round before -> Z (N, HW, C)."""
        queries = fused.cells + context.positional_encoding
        if feedback is not None and self.options.target != "value":
            queries = queries + feedback
        gathered: Tensor = fused.cells + self.attend(queries, fused.words, fused.words, context.word_padding_mask)
        if feedback is not None and self.options.target != "query":
            # A cell's feedback, added to every value it reads, comes out whole: the weights of its words sum to 1.
            gathered = gathered + F.linear(F.linear(feedback, self.attend.value.weight), self.attend.out.weight)
        return gathered

    def forward(self, fused: Fused, context: Context) -> Tensor:
        """All rounds -> Z of the last, (N, HW, C)."""
        gathered = self.one_round(fused, context)
        for _ in range(1, 1 if self.options.feedback == "off" else self.options.rounds):
            gathered = self.one_round(fused, context, self.feedback(gathered, context.sentence))
        return gathered


class VisionWeightedAttention(nn.Module):
    """Words read cells [paper]: T = F_w + Attn(F_w, Z), cells without photo masked; the formula is [ours]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = Attention(width)

    def forward(self, fused: Fused, context: Context) -> Tensor:
        """T (N, L, C)."""
        cells, words = fused
        keys = cells + context.positional_encoding
        gathered: Tensor = words + self.attend(words, keys, cells, context.cell_padding_mask)
        return gathered


class HumanLikeAttention(nn.Module):
    """One block of two branches, the language-weighted on the cells and the vision-weighted on the words [paper].

    The second comes after the first and reads what that made of the cells; each ends in a feed-forward with layer
    norms [ours].
    """

    def __init__(self, width: int, sentence: int, options: HARISOptions) -> None:
        super().__init__()
        self.options = options
        self.language_weighted = LanguageWeightedAttention(width, sentence, options)
        self.vision_weighted = VisionWeightedAttention(width)
        self.think = nn.ModuleList(FeedForward(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(self, fused: Fused, context: Context) -> Fused:
        """Cells and words -> cells that know the words, words that know the cells."""
        if self.options.language_weighted:
            cells = self.norms[0](self.language_weighted(fused, context))
            fused = fused._replace(cells=self.norms[1](cells + self.think[0](cells)))
        if self.options.vision_weighted:
            words = self.norms[2](self.vision_weighted(fused, context))
            fused = fused._replace(words=self.norms[3](words + self.think[1](words)))
        return fused


class HARIS(RISModel):
    """One block a level, from the deep to the shallow [paper: hierarchical; the order is ours]: meaning first, detail
    last. To a level's cells those of the block before are added, projected; the words go on as they come out [ours].
    """

    name = "haris"
    switches = HARISOptions
    options: HARISOptions
    loss = LossWeights(entropy=0, focal=20, dice=1)  # focal and Dice [paper]; 20 to 1, as for SAM [ours]

    def build(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, options: HARISOptions) -> None:
        """As `RISModel.build`."""
        width, sentence = options.width, text_encoder.width
        self.numbers = _reading_order(image_encoder.pyramid, options)
        stride = image_encoder.strides[image_encoder.pyramid[1]]
        # How many cells of a level lie side by side in one of the middle grid.
        self.sides = [max(1, stride // image_encoder.strides[number]) for number in self.numbers]
        self.project = nn.ModuleList(
            convolution(image_encoder.channels[number] * side**2, width, size=1)
            for number, side in zip(self.numbers, self.sides, strict=True)
        )
        self.words = linear_norm(sentence, width)
        self.blocks = nn.ModuleList(HumanLikeAttention(width, sentence, options) for _ in self.numbers)
        self.descend = nn.ModuleList(nn.Linear(width, width) for _ in self.numbers[1:])
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.decoder = QueryDecoder(width, steps_to_quarter(stride))
        self.heads = Heads(self.decoder.width, width, sentence)

    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> list[HARISLevel]:
        """One for each block, in the order of the blocks."""
        at_middle = valid_cells(valid, levels[self.image_encoder.pyramid[1]])
        return [
            # What lies beside the photo is taken away first, or normalisation would read it.
            _level(project, side, levels[number] * valid_cells(valid, levels[number]), at_middle)
            for project, side, number in zip(self.project, self.sides, self.numbers, strict=True)
        ]

    def deepest_level(self, levels: ImageEmbedding) -> Tensor:
        """The cells of the deep level, whichever block reads it."""
        level = cast(HARISLevel, levels[self.numbers.index(self.image_encoder.pyramid[-1])])
        return grid(level.cells, level.valid)

    def forward(self, embedding: ImageEmbedding, text: TextFeatures, index: Tensor) -> Output:
        """As `RISModel.forward`."""
        levels, sentence = [pick(level, index) for level in cast(Sequence[HARISLevel], embedding)], text.sentence
        valid = levels[0].valid  # (N, 1, H, W)
        positional_encoding = grid_encoding(grid(levels[0].cells[:1], valid))  # (1, HW, C)
        context = Context(sentence, positional_encoding, text.key_padding_mask, padding_cells(valid))
        fused = Fused(levels[0].cells, self.words(text.words))
        for number, (block, level) in enumerate(zip(self.blocks, levels, strict=True)):
            if number:
                fused = fused._replace(cells=level.cells + self.descend[number - 1](fused.cells))
            fused = block(fused, context)
        query = self.query.expand(len(index), -1, -1)  # (N, 1, C)
        features = grid(fused.cells, valid)  # (N, C, H, W)
        mask, upscaled, query = self.decoder(
            query, fused.words, features, positional_encoding, text.key_padding_mask, valid
        )
        return Output(mask, *self.heads(upscaled, mask, valid, query, sentence))


def _reading_order(pyramid: tuple[int, int, int], options: HARISOptions) -> tuple[int, ...]:
    """The numbers of the levels that the blocks read, first block first."""
    shallow, middle, deep = pyramid
    if not options.hierarchical:
        return (deep,)
    return (deep, middle, shallow) if options.order == "deep first" else (shallow, middle, deep)


def _level(project: nn.Module, side: int, level: Tensor, valid: Tensor) -> HARISLevel:
    # Side by side in their channels, fine cells lose nothing on the coarser grid.
    cells = project(F.pixel_unshuffle(level, side))
    return HARISLevel(tokens(upsample(cells, valid) * valid).contiguous(), valid)
