"""The four designs as block diagrams: what goes where, with the shapes that `measured` read off a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from drawing.card import Box, Card, Kind
from drawing.measured import INDEX, Run, run, shape

from ris_core.models.haris import HARIS, HumanLikeAttention
from ris_core.models.layers import pick, tokens
from ris_core.models.lda import LanguageDrivenAttention, LDALevel
from ris_core.models.maris import MARIS, MutualAwareAttention
from ris_core.models.vipa import VIPA, masked_softmax

WIDTH = 640
LEGEND = "B photos, N sentences of L words; over EfficientNet-Lite2 and MiniLM"


def inputs(card: Card, measured: Run, text_left: float = 410, text: Sequence[str] = ()) -> tuple[Box, Box]:
    """The two encoders at the top; `text`: what is read of the sentence, both if that isn't said."""
    photo = card.box(24, 24, 190, "image encoder", shape(measured.pixels), kind="image")
    both = (f"words {shape(measured.text.words)}", f"vector {shape(measured.text.sentence)}")
    return photo, card.box(text_left, 24, 206, "text encoder", *(text or both), kind="text")


def rows(
    card: Card, left: float, tops: Sequence[float], width: float, boxes: Sequence[tuple[str, str]], kind: Kind
) -> list[Box]:
    """Boxes below each other: title and line."""
    return [card.box(left, top, width, title, line, kind=kind) for top, (title, line) in zip(tops, boxes, strict=True)]


def chain(card: Card, boxes: Sequence[Box]) -> None:
    """An arrow from each box down to the next."""
    for one, other in pairwise(boxes):
        card.arrow(one.below(), other.above())


def answer(card: Card, measured: Run, top: float, *more: str) -> Box:
    """What all designs give."""
    lines = (f"mask logits {shape(measured.answer.mask)}", "presence N, quality N: from features pooled in the mask")
    return card.box(24, top, 592, "answer", *lines, *more, kind="answer")


def lda() -> Card:
    """Levels at the left, the sentence's attention in the middle, the way from coarse to fine at the right."""
    measured = run("lda")
    card = Card(
        WIDTH,
        1010,
        "LDA",
        "The sentence vector weighs channels and pixels of each of five levels; what comes of it is added up from the "
        "coarsest grid to the finest.",
    )
    photo, text = inputs(card, measured, 236, (f"vector {shape(measured.text.sentence)}",))
    levels = list(reversed(list(zip(measured.levels, measured.embedding, strict=True))))
    tops = [170 + number * 74 for number in range(len(levels))]
    panel = card.panel(16, 124, 206, 424, "levels, kept")
    kept = rows(
        card,
        24,
        tops,
        190,
        [(shape(level[0]), f"of {encoded.shape[1]} channels") for encoded, level in levels],
        "image",
    )
    attention = card.box(
        256,
        170,
        140,
        "attention",
        "one a level,",
        "of channels",
        "and of pixels,",
        "integrated",
        measured.size("attend"),
        kind="joint",
        height=354,
    )
    card.panel(418, 124, 206, 424, "coarse to fine")
    numbers = range(len(levels) - 1, -1, -1)
    notes = {True: "refine, dilations", False: "refine"}
    fused = rows(
        card,
        426,
        tops,
        190,
        [(measured.shape(f"fields.{number}"), notes[number > 1]) for number in numbers],
        "joint",
    )
    card.arrow(photo.below(), (photo.below()[0], panel.area.top))
    card.arrow(text.below(90 / 206), attention.above())
    for one, other in zip(kept, fused, strict=True):
        card.arrow(one.right(), (attention.area.left, one.right()[1]))
        card.arrow((attention.area.right, one.right()[1]), other.left())
    chain(card, fused)
    given = answer(card, measured, 572)
    card.arrow(fused[-1].below(), (fused[-1].below()[0], given.area.top))
    _inside_lda(card, measured)
    card.label(24, 992, LEGEND, 13)
    return card


def _inside_lda(card: Card, measured: Run) -> None:
    attend = cast(LanguageDrivenAttention, measured.model.get_submodule("attend.2"))
    level = pick(cast(LDALevel, measured.embedding[2]), torch.tensor(INDEX))
    with torch.inference_mode():
        channels = attend.channel_attention(level, measured.text.sentence)
        pixels = attend.spatial_logits(level, measured.text.sentence)
    card.panel(16, 684, 608, 280, "The attention of one level, at stride 16")
    sentence = card.box(236, 722, 168, "vector q", shape(measured.text.sentence), kind="text")
    features = card.box(30, 722, 170, "features F", shape(level.features), kind="image")
    keys = card.box(440, 722, 170, "keys K", shape(level.keys), kind="image")
    by_channel = card.box(
        30, 802, 270, "channel attention", "sigmoid(MLP(mean(F) · W_1 q))", shape(channels), kind="joint"
    )
    by_pixel = card.box(340, 802, 270, "spatial attention", "sigmoid(s ⟨K, W_2 q⟩ + b)", shape(pixels), kind="joint")
    both = card.box(110, 900, 420, "integrate: W [F · channels, F · pixels]", measured.shape("attend.2"), kind="joint")
    card.arrow(features.below(), (features.below()[0], by_channel.area.top))
    card.arrow(keys.below(), (keys.below()[0], by_pixel.area.top))
    card.arrow(sentence.below(0.2), (sentence.below(0.2)[0], by_channel.area.top))
    card.arrow(sentence.below(0.8), (sentence.below(0.8)[0], by_pixel.area.top))
    card.arrow(by_channel.below(), (by_channel.below()[0], both.area.top))
    card.arrow(by_pixel.below(), (by_pixel.below()[0], both.area.top))


def vipa() -> Card:
    """The deep level at the left feeds retrieval, refinement and decoder; finer levels join below."""
    measured = run("vipa")
    model, text = cast(VIPA, measured.model), measured.text
    with torch.inference_mode():
        deep = model.join_words(measured.embedding, text, torch.tensor(INDEX))[-1]
        cells, valid = tokens(deep.features), tokens(deep.valid).squeeze(2)
        cues, _ = model.cues(text)
        scores, _ = model.retrieve(cues, cells)
        kept = model.retrieve.kept(scores, valid)
        aggregated = masked_softmax(scores, kept) @ cells
    (share,) = set(kept.sum(dim=2).flatten().tolist())
    card = Card(
        WIDTH,
        1070,
        "VIPA",
        "Each cue of the sentence retrieves a share of the deep level's cells; refined and shared, they are what the "
        "decoder reads in place of words. Finer levels join on the way to the mask.",
    )
    photo, words = inputs(card, measured)
    level = card.box(60, 218, 156, "F_v: deep level", shape(measured.embedding[-1][0]), "words join: N", kind="image")
    panel = card.panel(16, 588, 206, 322, "finer levels")
    steps = [
        card.box(262, 134, 354, "cues: the sentence, its words", shape(cues), kind="text"),
        card.box(
            262,
            218,
            354,
            "retrieval",
            f"scores S: {shape(scores)}",
            f"M: the {share:.0f} cells kept by each cue",
            kind="joint",
        ),
        card.box(262, 321, 354, "aggregation: softmax(S, M) F_v", shape(aggregated), kind="joint"),
        card.box(262, 405, 354, "refinement", "look under M, share among cues", measured.shape("refine"), kind="joint"),
        card.box(
            262,
            508,
            354,
            f"decoder, {len(model.layers)} layers",
            "queries: F_v; keys, values: the expression",
            measured.shape("layers.2"),
            kind="joint",
        ),
    ]
    tops = [628 + number * 92 for number in range(3)]
    finer = [(shape(measured.embedding[number][0]), _joined(measured, number)) for number in (2, 1, 0)]
    added = [(measured.shape(f"smooth.{number}"), "upsample, add, smooth") for number in (2, 1, 0)]
    kept_levels, smooth = rows(card, 24, tops, 190, finer, "image"), rows(card, 262, tops, 354, added, "joint")
    for x, top in ((36, panel.area.top), (level.above()[0], level.area.top)):
        card.arrow((x, photo.area.bottom), (x, top))
    card.arrow(words.below(), (words.below()[0], steps[0].area.top))
    chain(card, [*steps, *smooth])
    lane, first = 242, steps[1].left()
    card.arrow((level.area.right, first[1]), first)
    for box in steps[2:]:
        card.arrow((lane, first[1]), (lane, box.left()[1]), box.left())
    for one, other in zip(kept_levels, smooth, strict=True):
        card.arrow(one.right(), other.left())
    relevance = f"in training also the relevance map {shape(measured.answer.auxiliary[0])}, of pixel contrast"
    given = answer(card, measured, 926, relevance)
    card.arrow(smooth[-1].below(), (smooth[-1].below()[0], given.area.top))
    card.label(24, 1052, LEGEND, 13)
    return card


def _joined(measured: Run, number: int) -> str:
    words = ", words join" if f"fuse.{number}" in measured.outputs else ""
    return f"stride {measured.model.image_encoder.strides[number]}{words}"


def maris() -> Card:
    """Cells come down the left side, words the right; both meet in one matrix of affinities."""
    measured = run("maris")
    model = cast(MARIS, measured.model)
    with torch.inference_mode():
        block = cast(MutualAwareAttention, measured.model.get_submodule("blocks.0"))
        affinity = block.affinity(measured.outputs["enhance"], measured.outputs["to_words"])
    card = Card(
        WIDTH,
        1010,
        "MARIS",
        "Three levels and the sentence become cells; cells and words look at each other through one matrix and its "
        "transpose; a query token among the words is decoded into the mask.",
    )
    photo, text = inputs(card, measured)
    pyramid = [measured.levels[number] for number in measured.model.image_encoder.pyramid]
    merged = card.box(
        24,
        134,
        250,
        "three levels, joined",
        *(shape(level) for level in pyramid),
        f"kept {shape(measured.embedding[0][0], {720: '720'})}",
        kind="image",
    )
    enhanced = card.box(24, 290, 250, "feature enhancement", measured.shape("enhance"), kind="joint")
    words = card.box(410, 290, 206, "words", measured.shape("to_words"), kind="text")
    card.panel(16, 372, 608, 254, f"{len(model.blocks)} blocks")
    matrix = card.box(190, 410, 260, f"affinity A, {affinity.shape[1]} heads", shape(affinity), kind="joint")
    seen = card.box(
        30,
        516,
        270,
        "vision-guided",
        "cells + softmax(A) words",
        measured.shape("blocks.1.vision_guided"),
        kind="joint",
    )
    told = card.box(
        340,
        516,
        270,
        "language-guided",
        "words + softmax(A^T) cells",
        measured.shape("blocks.1.language_guided"),
        kind="joint",
    )
    query = card.box(426, 650, 190, "query token", measured.shape("to_query"), "learned + vector", kind="text")
    decoder = card.box(
        24,
        760,
        592,
        f"two-way decoder, {len(model.decoder.layers)} layers",
        f"tokens {measured.shape('decoder.layers.1')}, cells {shape(measured.outputs['decoder.layers.1'][1])}",
        f"mask: the query's kernel on {measured.shape('decoder.upscale')}",
        kind="joint",
    )
    card.arrow(photo.below(), (photo.below()[0], merged.area.top))
    card.arrow(merged.below(), enhanced.above())
    card.arrow(text.below(0.5), words.above())
    card.arrow(text.left(), (342, text.left()[1]), (342, enhanced.right()[1]), enhanced.right())
    card.label(350, 190, "vector")
    card.label(522, 190, "words")
    card.arrow(enhanced.below(), (enhanced.below()[0], 437), matrix.left())
    card.arrow(words.below(), (words.below()[0], 437), matrix.right())
    card.arrow(matrix.below(0.2), (matrix.below(0.2)[0], seen.area.top))
    card.arrow(matrix.below(0.8), (matrix.below(0.8)[0], told.area.top))
    card.arrow(seen.below(), (seen.below()[0], decoder.area.top))
    card.arrow(told.below(0.2), (told.below(0.2)[0], decoder.area.top))
    card.arrow(query.below(), (query.below()[0], decoder.area.top))
    given = answer(card, measured, 860)
    card.arrow(decoder.below(), given.above())
    card.label(24, 986, LEGEND, 13)
    return card


def haris() -> Card:
    """Three blocks from the deep level to the shallow; below, the two rounds of one of them."""
    measured = run("haris")
    model = cast(HARIS, measured.model)
    card = Card(
        WIDTH,
        1172,
        "HARIS",
        "Cells of three levels read the words in three blocks, deep to shallow. In a block what the first round "
        "gathered is weighed by the sentence and joins the cells as they ask again.",
    )
    tops = [232, 330, 428]
    photo, text = inputs(card, measured)
    panel = card.panel(16, 192, 196, 326, "levels, kept")
    names = zip(("deep", "middle", "shallow"), measured.embedding, strict=True)
    levels = [
        card.box(24, top, 180, name, shape(level[0]), kind="image", height=78)
        for top, (name, level) in zip(tops, names, strict=True)
    ]
    words = card.box(380, 134, 130, "words", measured.shape("words"), kind="text")
    blocks = [
        card.box(
            262,
            top,
            248,
            f"block {number + 1}",
            f"cells {shape(measured.outputs[f'blocks.{number}'].cells)}",
            f"words {shape(measured.outputs[f'blocks.{number}'].words)}",
            kind="joint",
            height=78,
        )
        for number, top in enumerate(tops)
    ]
    sentence = card.box(536, 232, 80, "vector", "to every", "block", kind="text", height=274)
    decoder = card.box(
        24,
        544,
        592,
        f"two-way decoder, {len(model.decoder.layers)} layers, one learned query",
        f"tokens {measured.shape('decoder.layers.1')}, cells {shape(measured.outputs['decoder.layers.1'][1])}",
        f"mask: the query's kernel on {measured.shape('decoder.upscale')}",
        kind="joint",
    )
    given = answer(card, measured, 640)
    card.arrow(photo.below(), (photo.below()[0], panel.area.top))
    card.arrow((words.above()[0], text.area.bottom), words.above())
    card.arrow(words.below(), (words.below()[0], blocks[0].area.top))
    card.arrow((sentence.above()[0], text.area.bottom), sentence.above())
    for level, block in zip(levels, blocks, strict=True):
        card.arrow(level.right(), block.left())
        card.arrow((sentence.area.left, block.right()[1]), block.right())
    chain(card, blocks)
    card.arrow(blocks[-1].below(), (blocks[-1].below()[0], decoder.area.top))
    card.arrow(decoder.below(), given.above())
    _inside_haris(card, measured)
    card.label(24, 1156, LEGEND, 13)
    return card


def _inside_haris(card: Card, measured: Run) -> None:
    block = cast(HumanLikeAttention, measured.model.get_submodule("blocks.2"))
    name = "blocks.2.language_weighted"
    with torch.inference_mode():
        weights = block.language_weighted.feedback.modulation(measured.outputs[name], measured.text.sentence)
    card.panel(16, 746, 608, 386, "One block")
    cells = card.box(30, 784, 130, "cells F_v", shape(measured.embedding[-1][0]), kind="image")
    words = card.box(176, 784, 124, "words F_w", measured.shape("words"), kind="text")
    vector = card.box(400, 784, 140, "vector F_s", shape(measured.text.sentence), kind="text")
    first = card.box(30, 870, 280, "round 1", "Z = F_v + Attn(F_v, F_w)", kind="joint")
    weighed = card.box(326, 870, 284, "modulation m", "clamp(a cos(Z, W F_s) + b, 0, 1)", shape(weights), kind="joint")
    fed = card.box(326, 972, 284, "feedback FB = MLP(m Z)", measured.shape(f"{name}.feedback"), kind="joint")
    second = card.box(30, 972, 280, "round 2, same weights", "Z = F_v + Attn(F_v + FB, F_w)", kind="joint")
    last = card.box(
        30, 1058, 280, "words T", f"F_w + Attn(F_w, Z): {measured.shape('blocks.2.vision_weighted')}", kind="joint"
    )
    out = card.box(326, 1058, 284, "cells Z, words T", "a feed-forward each, then on", kind="joint")
    for box in (cells, words):
        card.arrow(box.below(), (box.below()[0], first.area.top))
    card.arrow(vector.below(), (vector.below()[0], weighed.area.top))
    card.arrow(first.right(0.5), (weighed.area.left, first.right()[1]))
    card.arrow(first.below(), second.above())
    card.arrow(weighed.below(), fed.above())
    card.arrow(fed.left(), second.right())
    card.arrow(second.below(), last.above())
    card.arrow(last.right(), out.left())
