"""Each mechanism of HARIS does what it says, and each switch changes something."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from models.asking import SENTENCES, decode, same, scramble
from models.encoders import Small
from models.overfit import overfit
from torch import Tensor
from torch.nn import functional as F

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.models.haris import HARIS, Context, Fused, HARISOptions
from ris_core.models.layers import valid_cells
from ris_core.models.output import Output
from ris_core.tuning import Tuning


def seeded(tuning: Tuning | None = None, **changes: object) -> HARIS:
    encoders = image_encoder("efficientnet-lite2"), text_encoder("minilm")
    # After the encoders are there: loading them draws random numbers.
    torch.manual_seed(3)
    return HARIS(*encoders, replace(HARISOptions(), **changes), tuning).eval()


def differ(one: Output, other: Output) -> bool:
    return not torch.allclose(one.mask, other.mask, atol=1e-4)


def silence(model: HARIS) -> None:
    """Nothing is fed back: the last layer of each feedback MLP is zero."""
    with torch.no_grad():
        for block in model.blocks:
            last = block.language_weighted.feedback.mlp[-1]
            last.weight.zero_()
            last.bias.zero_()


def inputs(model: HARIS) -> tuple[Fused, Context]:
    """What a block may be given: three sentences, 4 x 6 cells of which the last column is no photo."""
    generator = torch.Generator().manual_seed(5)
    width, text = model.options.width, model.encode_text(SENTENCES)
    cells, encoding = torch.randn(3, 24, width, generator=generator), torch.randn(1, 24, width, generator=generator)
    no_photo = (torch.arange(24) % 6 == 5).expand(3, 24)
    context = Context(text.sentence, encoding, text.key_padding_mask, no_photo)
    return Fused(cells, model.words(text.words)), context


def test_shapes(photo: tuple[Tensor, Tensor]) -> None:
    output = decode(seeded(), photo, [0, 1, 1])
    assert output.mask.shape == (3, 1, 16, 24)
    assert output.presence.shape == output.quality.shape == (3,)
    assert all(part.isfinite().all() for part in output[:3])


# --- the feedback ---


@pytest.mark.parametrize("target", ["query", "value", "both"])
@pytest.mark.parametrize("rounds", [2, 3])
def test_with_nothing_fed_back_every_round_equals_the_first(
    target: str, rounds: int, photo: tuple[Tensor, Tensor]
) -> None:
    model, single = seeded(target=target, rounds=rounds), seeded(rounds=1)
    silence(model)
    attention = model.blocks[0].language_weighted
    fused, context = inputs(model)
    with torch.inference_mode():
        assert torch.equal(attention(fused, context), attention.one_round(fused, context))
    assert same(decode(model, photo, [0, 1]), decode(single, photo, [0, 1]), atol=0)


def test_a_round_looks_again_with_what_the_round_before_fed_back() -> None:
    model = seeded(rounds=3)
    attention = model.blocks[0].language_weighted
    fused, context = inputs(model)
    with torch.inference_mode():
        gathered = attention.one_round(fused, context)
        for _ in range(2):
            again = fused._replace(cells=fused.cells + attention.feedback(gathered, context.sentence))
            # The visual tokens themselves stay: only what they ask has changed.
            gathered = fused.cells + (attention.one_round(again, context) - again.cells)
        assert torch.allclose(attention(fused, context), gathered, atol=1e-5)


def test_feedback_on_values_is_added_to_every_word_that_a_cell_reads() -> None:
    model = seeded(target="value")
    attention = model.blocks[0].language_weighted
    fused, context = inputs(model)
    feedback = torch.randn(fused.cells.shape, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        gathered = attention.one_round(fused, context, feedback)
        for cell in (0, 13):
            values = fused.words + feedback[:, cell : cell + 1]
            query = (fused.cells + context.positional_encoding)[:, cell : cell + 1]
            read = attention.attend(query, fused.words, values, context.word_padding_mask)
            one = fused.cells[:, cell] + read[:, 0]
            assert torch.allclose(gathered[:, cell], one, atol=1e-5)


def test_the_cosine_modulates_each_cell_by_its_agreement_with_the_sentence() -> None:
    model = seeded()
    feedback = model.blocks[0].language_weighted.feedback
    fused, context = inputs(model)
    with torch.inference_mode():
        modulation = feedback.modulation(fused.cells, context.sentence)
        assert modulation.shape == (3, 24, 1)
        assert modulation.min() >= 0 and modulation.max() <= 1 and modulation.std() > 0
        # Another sentence, other weights; the same sentence, the same.
        assert not torch.allclose(
            modulation[:1], feedback.modulation(fused.cells[:1], context.sentence[1:2]), atol=1e-3
        )
        # A cell that is all the sentence expects counts in full, its opposite not at all.
        expected = feedback.expected(context.sentence).unsqueeze(1)
        feedback.scale.fill_(1)
        feedback.bias.fill_(0)
        assert torch.allclose(feedback.modulation(3 * expected, context.sentence), torch.ones(3, 1, 1))
        assert torch.equal(feedback.modulation(-3 * expected, context.sentence), torch.zeros(3, 1, 1))


def test_the_sigmoid_modulates_each_channel_by_the_sentence_alone() -> None:
    model = seeded(modulation="sigmoid")
    feedback = model.blocks[0].language_weighted.feedback
    fused, context = inputs(model)
    with torch.inference_mode():
        modulation = feedback.modulation(fused.cells, context.sentence)
        assert modulation.shape == (3, 1, model.options.width)
        assert modulation.min() > 0 and modulation.max() < 1
        assert torch.equal(modulation, feedback.modulation(fused.cells + 1, context.sentence))
        assert not torch.allclose(modulation[0], modulation[1], atol=1e-3)


def test_the_feedback_is_alive_at_the_start(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded()
    open_cells = []
    for block in model.blocks:
        feedback = block.language_weighted.feedback
        feedback.mlp.register_forward_pre_hook(lambda _, given: open_cells.append(given[0].abs().sum(dim=2) > 0))
    output = model(model.encode_image(*photo), model.encode_text(SENTENCES), torch.tensor([0, 1, 1]))
    output.mask.square().mean().backward()
    assert torch.cat([cells.flatten() for cells in open_cells]).float().mean() > 0.9
    for block in model.blocks:
        weights = dict(block.language_weighted.feedback.named_parameters())
        assert set(weights) >= {"expected.weight", "scale", "bias", "mlp.0.weight", "mlp.2.weight"}
        assert [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()] == []


def test_unmodulated_feedback_ignores_the_sentence_and_the_modulations_weights(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(feedback="unmodulated")
    before = decode(model, photo, [0, 1])
    for block in model.blocks:
        feedback = block.language_weighted.feedback
        scramble(feedback.expected)
        with torch.no_grad():
            feedback.scale.normal_()
            feedback.bias.normal_()
    assert same(before, decode(model, photo, [0, 1]), atol=0)
    scramble(model.blocks[0].language_weighted.feedback.mlp)
    assert differ(before, decode(model, photo, [0, 1]))


# --- the branches and the hierarchy ---


@pytest.mark.parametrize(
    ("change", "silent"),
    [
        ({"feedback": "off"}, ["language_weighted.feedback"]),
        ({"rounds": 1}, ["language_weighted.feedback"]),
        ({"language_weighted": False}, ["language_weighted", "think.0", "norms.0", "norms.1"]),
        ({"vision_weighted": False}, ["vision_weighted", "think.1", "norms.2", "norms.3"]),
    ],
    ids=str,
)
def test_a_branch_switched_off_ignores_its_weights(
    change: dict[str, object], silent: list[str], photo: tuple[Tensor, Tensor]
) -> None:
    model, usual = seeded(**change), seeded()
    before, usually = decode(model, photo, [0, 1]), decode(usual, photo, [0, 1])
    for design in (model, usual):
        scramble(*(block.get_submodule(name) for block in design.blocks for name in silent))
    assert same(before, decode(model, photo, [0, 1]), atol=0)
    assert differ(usually, decode(usual, photo, [0, 1]))


def test_one_round_is_feedback_off(photo: tuple[Tensor, Tensor]) -> None:
    assert same(decode(seeded(rounds=1), photo, [0, 1]), decode(seeded(feedback="off"), photo, [0, 1]), atol=0)
    assert same(
        decode(seeded(feedback="off", rounds=3), photo, [0, 1]), decode(seeded(rounds=1), photo, [0, 1]), atol=0
    )


def test_a_branch_switched_off_leaves_its_side_as_it_is() -> None:
    for change, side in (({"language_weighted": False}, "cells"), ({"vision_weighted": False}, "words")):
        model = seeded(**change)
        fused, context = inputs(model)
        with torch.inference_mode():
            out = model.blocks[0](fused, context)
        kept = [name for name in Fused._fields if torch.equal(getattr(out, name), getattr(fused, name))]
        assert kept == [side]


def test_words_see_no_cell_without_photo_and_cells_no_padding() -> None:
    model = seeded()
    block = model.blocks[0]
    fused, context = inputs(model)
    assert context.cell_padding_mask.any() and context.word_padding_mask.any()
    noisy = Fused(
        fused.cells + 100 * context.cell_padding_mask.unsqueeze(2),
        fused.words + 100 * context.word_padding_mask.unsqueeze(2),
    )
    with torch.inference_mode():
        clean, other = block(fused, context), block(noisy, context)
    assert torch.allclose(clean.cells[~context.cell_padding_mask], other.cells[~context.cell_padding_mask], atol=1e-5)
    assert torch.allclose(clean.words[~context.word_padding_mask], other.words[~context.word_padding_mask], atol=1e-5)


def test_without_hierarchy_no_shallower_level_is_read(photo: tuple[Tensor, Tensor]) -> None:
    model, (pixels, valid) = seeded(hierarchical=False), photo
    levels = model.image_encoder(pixels)
    unread = [torch.full_like(level, torch.nan) for level in levels[:-1]]
    text, index = model.encode_text(SENTENCES[:2]), torch.tensor([0, 1])
    with torch.inference_mode():
        assert len(model.blocks) == 1
        before = model(model.read_levels(levels, valid), text, index)
        assert same(before, model(model.read_levels([*unread, levels[-1]], valid), text, index), atol=0)


@pytest.mark.parametrize(("order", "first"), [("deep first", 2), ("shallow first", 0)])
def test_each_block_reads_its_own_level_and_what_the_block_before_made(order: str, first: int) -> None:
    model = seeded(order=order)
    pyramid = model.image_encoder.pyramid
    assert model.numbers == (pyramid if first == 0 else pyramid[::-1])
    valid = torch.ones(1, 1, 64, 96)
    levels = model.image_encoder(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(4)) * 255)
    text, index = model.encode_text(SENTENCES[:1]), torch.tensor([0])
    made: list[Fused] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: made.append(out))
    with torch.inference_mode():
        model(model.read_levels(levels, valid), text, index)
        for place, number in enumerate(model.numbers):
            changed = [level + (number == other) for other, level in enumerate(levels)]
            model(model.read_levels(changed, valid), text, index)
            same = [torch.equal(a.cells, b.cells) for a, b in zip(made[:3], made[-3:], strict=True)]
            assert same == [earlier < place for earlier in range(3)]


def test_fine_cells_lose_nothing_on_the_middle_grid() -> None:
    model, valid = seeded(), torch.ones(1, 1, 64, 96)
    shallow, middle, _ = model.image_encoder.pyramid
    levels, seen = model.image_encoder(torch.zeros(1, 3, 64, 96)), []
    with torch.inference_mode():
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            changed = [level.clone() for level in levels]
            changed[shallow][:, :, row, column] += 50
            cells = model.read_levels(changed, valid)[model.numbers.index(shallow)].cells
            assert cells.shape[1] == levels[middle].shape[2] * levels[middle].shape[3]
            seen.append(cells[0, 0])
    # All four lie in the first cell of the middle grid, which can tell which of them has changed.
    assert all(not torch.allclose(one, other, atol=1e-2) for one, other in combinations(seen, 2))


@pytest.mark.parametrize(
    "change",
    [
        {"feedback": "unmodulated"},
        {"feedback": "off"},
        {"rounds": 1},
        {"rounds": 3},
        {"modulation": "sigmoid"},
        {"target": "value"},
        {"target": "both"},
        {"language_weighted": False},
        {"vision_weighted": False},
        {"hierarchical": False},
        {"order": "shallow first"},
        {"width": 64},
    ],
    ids=str,
)
def test_every_switch_changes_the_output(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    assert differ(decode(seeded(), photo, [0, 1]), decode(seeded(**change), photo, [0, 1]))


# --- what holds for every design ---


def test_gradients_reach_every_trained_weight(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded().train()
    output = model(model.encode_image(*photo), model.encode_text(SENTENCES), torch.tensor([0, 1, 1]))
    (output.mask.square().mean() + output.presence.square().mean() + output.quality.square().mean()).backward()
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert missing == []


def test_permuting_the_batch_permutes_the_output(photo: tuple[Tensor, Tensor]) -> None:
    model, index, order = seeded(), torch.tensor([0, 1, 0]), torch.tensor([2, 0, 1])
    with torch.inference_mode():
        embedding, text = model.encode_image(*photo), model.encode_text(SENTENCES)
        straight, permuted = model(embedding, text, index), model(embedding, text[order], index[order])
    assert same(Output(*(part[order] for part in straight[:3])), permuted, atol=1e-4)


def test_one_prompt_alone_is_one_of_many(photo: tuple[Tensor, Tensor]) -> None:
    model, alone = seeded(), (photo[0][1:], photo[1][1:])
    together = decode(model, photo, [1, 1, 1])
    assert same(Output(*(part[:1] for part in together[:3])), decode(model, photo, [1]), atol=1e-4)
    assert same(together, decode(model, alone, [0, 0, 0]), atol=1e-4)


def test_padding_words_change_nothing(photo: tuple[Tensor, Tensor]) -> None:
    model, index = seeded(), torch.tensor([0, 1])
    with torch.inference_mode():
        embedding, text = model.encode_image(*photo), model.encode_text(SENTENCES[:2])
        longer = TextFeatures.join([text, model.encode_text(["a very much longer sentence about some other thing"])])
        assert longer.words.shape[1] > text.words.shape[1]
        padded = longer[:2]
        padded.words[padded.key_padding_mask] = 50.0
        assert same(model(embedding, text, index), model(embedding, padded, index), atol=1e-5)


def test_what_lies_beside_the_photo_changes_nothing(photo: tuple[Tensor, Tensor]) -> None:
    model, (pixels, valid), index = seeded(), photo, torch.tensor([1, 1])
    noise = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        text = model.encode_text(SENTENCES[:2])
        clean = model(model.encode_image(pixels, valid), text, index)
        around = pixels + 255 * torch.rand(pixels.shape, generator=noise) * (1 - valid)
        assert same(clean, model(model.encode_image(around, valid), text, index), atol=0)
        levels = [
            level + 50 * torch.randn(level.shape, generator=noise) * (1 - valid_cells(valid, level))
            for level in model.image_encoder(pixels)
        ]
        assert same(clean, model(model.read_levels(levels, valid), text, index), atol=1e-5)


def test_levels_may_share_a_stride(photo: tuple[Tensor, Tensor]) -> None:
    for change in ({}, {"hierarchical": False}, {"order": "shallow first"}):
        model = HARIS(Small(), text_encoder("minilm"), HARISOptions(**change)).eval()
        output = decode(model, photo, [0, 1, 1])
        assert output.mask.shape == (3, 1, 16, 24)
        assert all(part.isfinite().all() for part in output[:3])


def test_evaluation_is_deterministic_and_runs_in_half_precision(photo: tuple[Tensor, Tensor]) -> None:
    for change in ({}, {"target": "both", "modulation": "sigmoid"}):
        model = seeded(**change)
        once = decode(model, photo, [0, 1])
        assert same(once, decode(model, photo, [0, 1]), atol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = decode(model, photo, [0, 1])
        alike = F.cosine_similarity(once.mask.flatten(1), half.mask.float().flatten(1))
        assert alike.min() > 0.99


def train(model: HARIS, photo: tuple[Tensor, Tensor]) -> set[str]:
    """Two steps -> the names of the weights that changed."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=1e-3, weight_decay=0
    )
    model.train()
    for _ in range(2):
        output = model(model.encode_image(*photo), model.encode_text(SENTENCES), torch.tensor([0, 1, 1]))
        optimizer.zero_grad()
        (output.mask - 1).square().mean().backward()
        optimizer.step()
    model.eval()
    return {name for name, weight in model.state_dict().items() if not torch.equal(before[name], weight)}


@pytest.mark.parametrize("encoders", ["frozen", "adapters", "full"])
def test_each_tuning_trains_what_it_says(encoders: str, photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(Tuning(encoders, stages=2, rank=4))
    # At the start, all three say the same.
    usual = seeded()
    usual.load_state_dict(model.state_dict(), strict=False)
    before = decode(model, photo, [0, 1])
    assert same(before, decode(usual, photo, [0, 1]), atol=1e-4)
    levels = model.image_encoder(photo[0])
    changed = train(model, photo)
    assert differ(before, decode(model, photo, [0, 1]))
    assert {"query", "blocks.0.language_weighted.feedback.mlp.0.weight"} <= changed
    of_image, of_text = (
        {name.removeprefix(f"encoders.{number}.") for name in changed if name.startswith(f"encoders.{number}.")}
        for number in (0, 1)
    )
    untouched = [torch.equal(a, b) for a, b in zip(levels, model.image_encoder(photo[0]), strict=True)]
    if encoders == "frozen":
        assert of_image == of_text == set()
        assert untouched == [True] * 5
    elif encoders == "adapters":
        assert all(".lora_" in name for name in of_image | of_text)
        assert any(".lora_A" in name for name in of_image) and any(".lora_A" in name for name in of_text)
        assert untouched == [True] * 3 + [False] * 2
    else:
        assert of_image == {name for name, _ in model.image_encoder.named_parameters()}
        assert "network.encoder.layer.0.attention.self.query.weight" in of_text
        assert untouched == [False] * 5
    # The encoders that others share are as they were.
    assert same(decode(usual, photo, [0, 1]), before, atol=1e-4)


def test_eight_masks_are_learnt_by_heart() -> None:
    assert overfit(seeded(), steps=100) > 0.9
