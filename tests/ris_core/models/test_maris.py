"""Each mechanism of MARIS does what it says, and each switch changes something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from models.asking import SENTENCES, decode, same
from models.encoders import Small
from models.overfit import overfit
from torch import Tensor, nn

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.models import maris
from ris_core.models.layers import valid_cells
from ris_core.models.maris import MARIS, GuidedAttention, MARISLevel, MARISOptions, MutualAwareAttention, QueryToken
from ris_core.models.output import Output

SWITCHES: list[dict[str, object]] = [
    {"enhancement": False},
    {"blocks": 0},
    {"blocks": 1},
    {"blocks": 3},
    {"vision_guided": False},
    {"language_guided": False},
    {"vision_guided": False, "language_guided": False},
    {"relevance": 0.0},
    {"guidance": False},
    {"query": "learned"},
    {"query": "sentence"},
]
WIDTH = 32


@pytest.fixture
def model() -> MARIS:
    return seeded(MARISOptions())


@pytest.fixture
def pairs() -> dict[str, Tensor]:
    """What a block reads: 12 cells and five words of two sentences, a few of them masked."""
    random = torch.Generator().manual_seed(7)
    no_photo, no_word = torch.zeros(2, 12, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.bool)
    no_photo[0, 9:], no_word[1, 3:] = True, True
    cells, words = torch.randn(2, 12, WIDTH, generator=random), torch.randn(2, 5, WIDTH, generator=random)
    return {"cells": cells, "words": words, "cell_padding_mask": no_photo, "word_padding_mask": no_word}


def seeded(options: MARISOptions) -> MARIS:
    """Weights of one name are the same whatever the switches: what differs is what the switch does."""
    torch.manual_seed(3)
    usual = MARIS(image_encoder("efficientnet-lite2"), text_encoder("minilm"), MARISOptions(width=options.width))
    model = MARIS(usual.image_encoder, usual.text_encoder, options).eval()
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    shared = {name: weight for name, weight in usual.state_dict().items() if weight.shape == shapes.get(name)}
    model.load_state_dict(shared, strict=False)
    return model


def block(vision: bool = True, language: bool = True, relevance: float | None = None) -> MutualAwareAttention:
    torch.manual_seed(5)
    options = MARISOptions(vision_guided=vision, language_guided=language, relevance=relevance)
    return MutualAwareAttention(WIDTH, options).eval()


def read(model: MARIS, levels: list[Tensor], valid: Tensor) -> Output:
    index = torch.arange(len(valid))
    with torch.inference_mode():
        return model(model.read_levels(levels, valid), model.encode_text(SENTENCES[: len(valid)]), index)


def noisy(levels: list[Tensor], number: int) -> list[Tensor]:
    return [level + 5 * torch.randn_like(level) if at == number else level for at, level in enumerate(levels)]


def test_shapes(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    output = decode(model, photo, [0, 1, 1])
    assert output.mask.shape == (3, 1, 16, 24)
    assert output.presence.shape == output.quality.shape == (3,)


# Mutual-aware attention


def affinities(attention: MutualAwareAttention, pairs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What reaches the vision-guided and the language-guided branch."""
    caught: dict[str, Tensor] = {}

    def catch(name: str, branch: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught[name] = inputs[2]

    for name in ("vision_guided", "language_guided"):
        getattr(attention, name).register_forward_pre_hook(partial(catch, name))
    with torch.no_grad():
        attention(**pairs)
    return caught["vision_guided"], caught["language_guided"]


def test_both_branches_read_one_matrix_and_its_transpose(pairs: dict[str, Tensor]) -> None:
    vision, language = affinities(block(), pairs)
    assert vision.shape == (2, 8, 12, 5)
    assert torch.equal(vision.transpose(2, 3), language)


def test_the_affinity_is_the_scaled_product_of_the_projections(pairs: dict[str, Tensor]) -> None:
    attention = block()
    cells, words = (pairs["cells"] @ attention.cell_key.weight.T)[0], (pairs["words"] @ attention.word_key.weight.T)[0]
    affinity = attention.affinity(pairs["cells"], pairs["words"])[0]
    size = WIDTH // 8
    for head in range(8):
        part = slice(head * size, (head + 1) * size)
        assert torch.allclose(affinity[head], cells[:, part] @ words[:, part].T / size**0.5, atol=1e-5)


@pytest.mark.parametrize("projection", ["cell_key", "word_key"])
def test_either_projection_moves_both_branches(projection: str, pairs: dict[str, Tensor]) -> None:
    attention = block()
    before, matrices = attention(**pairs), affinities(attention, pairs)
    with torch.no_grad():
        getattr(attention, projection).weight.mul_(-2)
    for one, other in zip((*before, *matrices), (*attention(**pairs), *affinities(attention, pairs)), strict=True):
        assert not torch.allclose(one, other, atol=1e-2)
    vision, language = affinities(attention, pairs)
    assert torch.equal(vision.transpose(2, 3), language)


def test_each_cell_spreads_over_words_and_each_word_over_cells(pairs: dict[str, Tensor]) -> None:
    attention = block()
    affinity = attention.affinity(pairs["cells"], pairs["words"])
    for branch, logits, masked in (
        (attention.vision_guided, affinity, pairs["word_padding_mask"]),
        (attention.language_guided, affinity.transpose(2, 3), pairs["cell_padding_mask"]),
    ):
        weights = branch.weights(logits, masked)
        assert torch.allclose(weights.sum(dim=3), torch.ones(()), atol=1e-5)
        unseen = masked[:, None, None].expand_as(weights)
        assert (weights[unseen] == 0).all()
        assert (weights[~unseen] > 0).all()


def test_masked_cells_and_words_change_no_other(pairs: dict[str, Tensor]) -> None:
    attention, no_photo, no_word = block(), pairs["cell_padding_mask"], pairs["word_padding_mask"]
    noise = {
        "cells": torch.where(no_photo.unsqueeze(2), 50.0, pairs["cells"]),
        "words": torch.where(no_word.unsqueeze(2), 50.0, pairs["words"]),
    }
    masks = no_photo, no_word
    for one, other, masked in zip(attention(**pairs), attention(**{**pairs, **noise}), masks, strict=True):
        assert torch.allclose(one[~masked], other[~masked], atol=1e-5)


def test_the_branches_are_parallel(pairs: dict[str, Tensor]) -> None:
    """Neither reads what the other makes: alone, each answers as it does beside the other."""
    both = block()
    for name, at in (("vision_guided", 0), ("language_guided", 1)):
        alone = block(vision=at == 0, language=at == 1)
        alone.load_state_dict(both.state_dict(), strict=False)
        assert getattr(alone, name) is not None
        assert torch.equal(both(**pairs)[at], alone(**pairs)[at])


def test_a_branch_that_is_off_has_no_weights_and_hands_its_side_on(pairs: dict[str, Tensor]) -> None:
    cells, words = block(vision=False)(**pairs)
    assert torch.equal(cells, pairs["cells"])
    assert not torch.allclose(words, pairs["words"], atol=1e-2)
    cells, words = block(language=False)(**pairs)
    assert torch.equal(words, pairs["words"])
    assert not torch.allclose(cells, pairs["cells"], atol=1e-2)
    for silent in ("vision_guided", "language_guided"):
        assert not [name for name in seeded(MARISOptions(**{silent: False})).state_dict() if silent in name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_affinities_beyond_half_precision_stay_numbers(dtype: torch.dtype, pairs: dict[str, Tensor]) -> None:
    attention = block().to(dtype)
    with torch.no_grad():
        for projection in (attention.cell_key, attention.word_key):
            projection.weight.mul_(3000)
    halves = pairs | {name: pairs[name].to(dtype) for name in ("cells", "words")}
    affinity = attention.affinity(halves["cells"], halves["words"])
    assert affinity.abs().max() == torch.tensor(1e4, dtype=dtype)
    assert all(out.isfinite().all() for out in attention(**halves))


# Low-relevance pairs


def test_pairs_below_the_threshold_are_masked_and_the_strongest_never(pairs: dict[str, Tensor]) -> None:
    attention = block()
    for vision in (True, False):
        affinity = attention.affinity(pairs["cells"], pairs["words"])
        masked = pairs["word_padding_mask"] if vision else pairs["cell_padding_mask"]
        affinity = affinity if vision else affinity.transpose(2, 3)
        shown = affinity.masked_fill(masked[:, None, None], -torch.inf)
        strongest = shown == shown.amax(dim=3, keepdim=True)
        for threshold in (-0.1, 0.2, 1e9):
            weights = GuidedAttention(WIDTH, MARISOptions(relevance=threshold)).weights(affinity, masked)
            assert torch.equal(weights > 0, (shown >= threshold) | strongest)
            assert torch.allclose(weights.sum(dim=3), torch.ones(()), atol=1e-5)


def test_an_unreachable_threshold_leaves_numbers_and_a_low_one_changes_nothing(photo: tuple[Tensor, Tensor]) -> None:
    usual = decode(seeded(MARISOptions()), photo, [0, 1])
    assert same(usual, decode(seeded(MARISOptions(relevance=-1e3)), photo, [0, 1]), atol=0)
    strict = decode(seeded(MARISOptions(relevance=1e9)), photo, [0, 1])
    assert strict.mask.isfinite().all()
    assert not torch.allclose(usual.mask, strict.mask, atol=1e-3)


# Feature enhancement


def test_enhancement_reads_three_levels_and_no_other(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    levels = model.image_encoder(photo[0])
    usual = read(model, levels, photo[1])
    changed = {number for number in range(5) if not same(usual, read(model, noisy(levels, number), photo[1]), 1e-3)}
    assert changed == set(model.image_encoder.pyramid)


def test_without_enhancement_only_the_deep_level_is_read(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(MARISOptions(enhancement=False))
    levels = model.image_encoder(photo[0])
    usual = read(model, levels, photo[1])
    changed = {number for number in range(5) if not same(usual, read(model, noisy(levels, number), photo[1]), 1e-3)}
    assert changed == {model.image_encoder.pyramid[2]}


def test_the_sentence_enters_the_enhancement_through_its_gates(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    level = model.encode_image(*photo)[0]
    assert isinstance(level, MARISLevel)
    one, other = (model.encode_text([sentence] * 2).sentence for sentence in SENTENCES[:2])
    assert not torch.allclose(model.enhance(level, one), model.enhance(level, other), atol=1e-3)
    with torch.no_grad():
        model.enhance.gates.weight.zero_()
        model.enhance.gates.bias.zero_()
    assert torch.equal(model.enhance(level, one), model.enhance(level, other))
    # Open gates: the 1x1 convolution of the concatenation, as it is without a sentence.
    assert torch.allclose(model.enhance(level, one), model.enhance.norm(level.parts.sum(dim=1)))


# The decoder's guidance and its query


def shaken(model: MARIS) -> MARIS:
    """The same, but the last block's vision-aware words are others."""

    def shake(module: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return outputs[0], outputs[1].roll(1, dims=2)

    model.blocks[-1].register_forward_hook(shake)
    return model


def test_vision_aware_words_guide_the_mask(photo: tuple[Tensor, Tensor]) -> None:
    build: Callable[[], MARIS] = partial(seeded, MARISOptions())
    assert not torch.allclose(
        decode(build(), photo, [0, 1]).mask, decode(shaken(build()), photo, [0, 1]).mask, atol=1e-3
    )


def test_without_guidance_the_decoder_sees_the_query_alone(photo: tuple[Tensor, Tensor]) -> None:
    build: Callable[[], MARIS] = partial(seeded, MARISOptions(guidance=False))
    assert same(decode(build(), photo, [0, 1]), decode(shaken(build()), photo, [0, 1]), atol=0)
    # Nothing reads the last block's words, so none are made.
    assert [block.language_guided is None for block in build().blocks] == [False, True]


def test_the_query_is_learned_or_the_sentence_or_both() -> None:
    sentences = torch.randn(2, 24, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    both, learned, sentence = (
        QueryToken(WIDTH, 24, MARISOptions(query=query)) for query in ("multimodal", "learned", "sentence")
    )
    for part in (learned, sentence):
        part.load_state_dict({name: both.state_dict()[name] for name in part.state_dict()})
    assert learned(sentences).shape == (2, 1, WIDTH)
    assert torch.equal(learned(sentences)[0], learned(sentences)[1])
    assert not torch.allclose(sentence(sentences)[0], sentence(sentences)[1], atol=1e-2)
    assert torch.allclose(both(sentences), learned(sentences) + sentence(sentences))


def test_a_learned_query_knows_the_sentence_by_its_words_alone(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(MARISOptions(query="learned", enhancement=False))
    embedding, index = model.encode_image(*photo), torch.tensor([0, 1])
    text = model.encode_text(SENTENCES[:2])
    with torch.inference_mode():
        usual = model(embedding, text, index).mask
        swapped = model(embedding, replace(text, sentence=text.sentence.flip(0)), index).mask
        others = model(embedding, replace(text[torch.tensor([1, 0])], sentence=text.sentence), index).mask
    assert torch.equal(usual, swapped)
    assert not torch.allclose(usual, others, atol=1e-3)


def test_words_have_positions(model: MARIS, photo: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, index, text = model.encode_image(*photo), torch.tensor([0]), model.encode_text(SENTENCES[1:2])
    turned = replace(text, words=text.words.flip(1))
    with torch.inference_mode():
        assert not torch.allclose(model(embedding, text, index).mask, model(embedding, turned, index).mask, atol=1e-3)
        # Without them a sentence would be a bag of words.
        monkeypatch.setattr(maris, "sinusoids", lambda length, width, device: torch.zeros(length, width))
        assert torch.allclose(model(embedding, text, index).mask, model(embedding, turned, index).mask, atol=1e-5)


# The whole


@pytest.mark.parametrize("change", SWITCHES, ids=str)
def test_every_switch_changes_the_output(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    usual = decode(seeded(MARISOptions()), photo, [0, 1])
    switched = decode(seeded(replace(MARISOptions(), **change)), photo, [0, 1])
    assert switched.mask.isfinite().all()
    assert not torch.allclose(usual.mask, switched.mask, atol=1e-3)


def test_blocks_without_a_branch_are_no_blocks(photo: tuple[Tensor, Tensor]) -> None:
    none = decode(seeded(MARISOptions(blocks=0)), photo, [0, 1])
    assert same(none, decode(seeded(MARISOptions(vision_guided=False, language_guided=False)), photo, [0, 1]), atol=0)


def test_width_is_the_channels(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    narrow = seeded(MARISOptions(width=64))
    assert model.encode_image(*photo)[0][0].shape == (2, 2, 24, 128)
    assert narrow.encode_image(*photo)[0][0].shape == (2, 2, 24, 64)
    assert not same(decode(model, photo, [0, 1]), decode(narrow, photo, [0, 1]), 1e-3)


@pytest.mark.parametrize("change", [{}, *SWITCHES], ids=str)
def test_gradients_reach_every_trained_weight(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(replace(MARISOptions(), **change)).train()
    output = model(model.encode_image(*photo), model.encode_text(SENTENCES), torch.tensor([0, 1, 1]))
    sum(part.square().mean() for part in output[:3]).backward()
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert missing == []


def test_permuting_the_batch_permutes_the_output(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    index, order = torch.tensor([0, 1, 0]), torch.tensor([2, 0, 1])
    with torch.inference_mode():
        embedding, text = model.encode_image(*photo), model.encode_text(SENTENCES)
        straight, permuted = model(embedding, text, index), model(embedding, text[order], index[order])
    assert same(Output(*(part[order] for part in straight[:3])), permuted, 1e-4)


def test_one_prompt_alone_is_one_of_many(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    together, alone = decode(model, photo, [1, 1, 1]), decode(model, photo, [1])
    assert same(Output(*(part[:1] for part in together[:3])), alone, 1e-4)


def test_padding_words_change_nothing(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    short, long = (model.encode_text([sentence]) for sentence in SENTENCES[:2])
    padded = TextFeatures.join([short, long])[:1]
    filled = torch.where(padded.key_padding_mask.unsqueeze(2), 9.0, padded.words)
    embedding, index = model.encode_image(*photo), torch.tensor([1])
    with torch.inference_mode():
        alone = model(embedding, short, index)
        for words in (padded.words, filled):
            assert same(alone, model(embedding, TextFeatures(words, padded.key_padding_mask, padded.sentence), index))


@pytest.mark.parametrize(
    "options", [MARISOptions(), MARISOptions(enhancement=False), MARISOptions(relevance=0.0)], ids=str
)
def test_cells_without_photo_change_nothing(options: MARISOptions, photo: tuple[Tensor, Tensor]) -> None:
    model, (pixels, valid) = seeded(options), photo
    usual = decode(model, photo, [0, 1])
    assert same(usual, decode(model, (pixels + 200 * (1 - valid), valid), [0, 1]), atol=0)
    levels = model.image_encoder(pixels)
    beside = [level + 50 * torch.rand_like(level) * (1 - valid_cells(valid, level)) for level in levels]
    assert same(usual, read(model, beside, valid))


def test_convolutions_read_nothing_beside_the_photo(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    joined: list[Tensor] = []
    for join in model.enhance.join:
        join.register_forward_pre_hook(lambda module, inputs: joined.append(inputs[0]))
    usual = model.encode_image(*photo)[0].parts
    assert len(joined) == 2
    for features in joined:
        assert (features * (1 - valid_cells(photo[1], features)) == 0).all()
    # Nor does what brings levels to one grid read what they became there.
    for project in model.enhance.project:
        project.register_forward_hook(lambda module, inputs, out: out + 50 * (1 - valid_cells(photo[1], out)))
    assert torch.equal(usual, model.encode_image(*photo)[0].parts)


def test_levels_may_share_a_stride(photo: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(3)
    model = MARIS(Small(), text_encoder("minilm"), MARISOptions(width=WIDTH)).eval()
    output = decode(model, photo, [0, 1, 1])
    assert output.mask.shape == (3, 1, 16, 24)
    assert output.mask.isfinite().all()


def test_half_precision_agrees_with_full(model: MARIS, photo: tuple[Tensor, Tensor]) -> None:
    full = decode(model, photo, [0, 1]).mask
    with torch.autocast("cpu", torch.bfloat16):
        half = decode(model, photo, [0, 1]).mask
    assert (full - half.float()).abs().mean() < 0.05


def test_eight_masks_are_learnt_by_heart(model: MARIS) -> None:
    assert overfit(model, steps=100) > 0.9
