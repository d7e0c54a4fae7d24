"""Each mechanism of VIPA does what it says, and each switch changes something."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from models.asking import SENTENCES, decode, same, scramble
from models.encoders import Small
from models.overfit import overfit
from torch import Tensor

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.losses import mask_loss, total_loss
from ris_core.models.layers import tokens
from ris_core.models.output import LossWeights, Output
from ris_core.models.vipa import VIPA, MaskedAttention, Refinement, VIPALevel, VIPAOptions, masked_softmax, sample

SWITCHES: list[dict[str, object]] = [
    {"kv": "language"},
    {"kv": "enriched"},
    {"retrieval": False},
    {"refinement": False},
    {"cues": "global"},
    {"cues": "local"},
    {"cues": "none"},
    {"ratio": 0.6},
    {"fusion": "none"},
    {"fusion": "early"},
    {"layers": 1},
    {"width": 64},
]


@pytest.fixture
def model() -> VIPA:
    return seeded(VIPAOptions())


def seeded(options: VIPAOptions) -> VIPA:
    """Weights of one name are the same whatever the switches: what differs is what the switch does."""
    torch.manual_seed(3)
    usual = VIPA(image_encoder("efficientnet-lite2"), text_encoder("minilm"))
    model = VIPA(usual.image_encoder, usual.text_encoder, options).eval()
    own = model.state_dict()
    shared = {name: weight for name, weight in usual.state_dict().items() if name in own}
    model.load_state_dict({name: each for name, each in shared.items() if each.shape == own[name].shape}, strict=False)
    return model


def random(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_valid() -> Tensor:
    """(2, 20): all of one photo's cells are of photo, 13 of the other's."""
    valid = torch.ones(2, 20, dtype=torch.bool)
    valid[1, ::3] = False
    return valid


def test_shapes(model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    output = decode(model, photo, [0, 1, 1])
    assert output.mask.shape == (3, 1, 16, 24)
    assert output.presence.shape == output.quality.shape == (3,)
    assert [coarse.shape for coarse in output.auxiliary] == [(3, 1, 2, 3)]


# Step 1, retrieval


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 0.35, 0.7, 1.0])
def test_each_cue_retrieves_the_stated_share_of_the_photos_cells(ratio: float, noisy: bool) -> None:
    valid = some_valid()
    kept = sample(random(2, 4, 20), valid, ratio, noisy)
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    for each, cells in zip(kept, (20, 13), strict=True):
        assert (each.sum(dim=1) == math.ceil(round(ratio * cells, 6))).all()
    assert (kept[~valid[:, None].expand_as(kept)] == 0).all()


@pytest.mark.parametrize("cells", [10, 25, 50, 90, 225])
def test_the_number_retrieved_is_not_rounded_up_by_accident(cells: int) -> None:
    for tenths in range(1, 11):
        kept = sample(random(1, 1, cells), torch.ones(1, cells, dtype=torch.bool), tenths / 10, noisy=False)
        assert kept.sum() == -(-tenths * cells // 10)


def test_evaluation_retrieves_the_largest_scores(model: VIPA) -> None:
    scores, valid = random(2, 6, 20), some_valid()
    kept = model.retrieve.kept(scores, valid.float())
    assert torch.equal(kept, model.retrieve.kept(scores, valid.float()))
    for photo in range(2):
        cells = np.flatnonzero(valid[photo].numpy())
        for cue in range(6):
            row = scores[photo, cue].numpy()
            largest = sorted(cells, key=lambda cell: -row[cell])[: math.ceil(0.3 * len(cells))]
            assert set(np.flatnonzero(kept[photo, cue].numpy())) == set(largest)


def test_equal_scores_retrieve_no_more_cells() -> None:
    kept = sample(torch.zeros(1, 3, 20), torch.ones(1, 20, dtype=torch.bool), 0.3, noisy=False)
    assert (kept.sum(dim=2) == 6).all()


def test_training_draws_cells_and_prefers_high_scores() -> None:
    scores = torch.linspace(-2, 2, 10).expand(1, 4000, 10)
    torch.manual_seed(0)
    drawn = sample(scores, torch.ones(1, 10, dtype=torch.bool), 0.1, noisy=True).mean(dim=1)[0]
    # One cell a draw: Gumbel's maximum falls on each with its softmax probability.
    assert torch.allclose(drawn, scores[0, 0].softmax(dim=0), atol=0.025)


def test_gradients_go_straight_through_to_every_valid_cell() -> None:
    scores, valid = random(2, 4, 20).requires_grad_(), some_valid()
    weights = random(2, 4, 20, seed=6)
    (sample(scores, valid, 0.3, noisy=False) * weights).sum().backward()
    straight, scores.grad = scores.grad, None
    soft = scores.masked_fill(~valid[:, None], -torch.inf).softmax(dim=2)
    (torch.tensor([6.0, 4.0])[:, None, None] * soft * weights).sum().backward()
    assert torch.allclose(straight, scores.grad, atol=1e-6)
    reached = (straight != 0).all(dim=1)
    assert torch.equal(reached, valid)


@pytest.mark.parametrize(
    ("cues", "first", "others"), [("both", 2, 2), ("global", 2, 6), ("local", 6, 2), ("none", 6, 6)]
)
def test_only_the_chosen_cues_retrieve(cues: str, first: int, others: int) -> None:
    model = seeded(VIPAOptions(cues=cues))
    kept = model.retrieve.kept(random(1, 4, 6), torch.ones(1, 6))
    assert kept.sum(dim=2).tolist() == [[first, others, others, others]]


def test_without_cues_there_is_no_retrieval(photo: tuple[Tensor, Tensor]) -> None:
    none, off = seeded(VIPAOptions(cues="none")), seeded(VIPAOptions(retrieval=False))
    for model in (none, off):
        model.train()
        model.heads.eval()
    assert same(decode(none, photo, [0, 1, 1]), decode(off, photo, [0, 1, 1]), atol=0)


def test_the_first_cue_is_the_sentence_and_the_others_its_words(model: VIPA) -> None:
    text = model.encode_text(SENTENCES)
    cues, key_padding_mask = model.cues(text)
    assert torch.equal(key_padding_mask, torch.nn.functional.pad(text.key_padding_mask, (1, 0)))
    changed, _ = model.cues(replace(text, sentence=text.sentence + 1))
    assert not torch.equal(cues[:, 0], changed[:, 0])
    assert torch.equal(cues[:, 1:], changed[:, 1:])


# The pixel-contrast loss


def test_relevance_is_the_angle_between_the_global_cue_and_each_cell(model: VIPA) -> None:
    cues, cells = random(2, 5, 128), random(2, 6, 128, seed=6)
    with torch.no_grad():
        model.retrieve.scale.fill_(7.0)
        model.retrieve.bias.fill_(-1.0)
        scores, relevance = model.retrieve(cues, cells)
        queries, keys = model.retrieve.query(cues).numpy(), model.retrieve.key(cells).numpy()
    for photo, cell in np.ndindex(2, 6):
        query, key = queries[photo, 0], keys[photo, cell]
        assert scores[photo, 0, cell].item() == pytest.approx(query @ key / np.sqrt(128), abs=1e-4)
        cosine = query @ key / np.linalg.norm(query) / np.linalg.norm(key)
        assert relevance[photo, cell].item() == pytest.approx(7 * cosine - 1, abs=1e-4)


def test_the_contrast_teaches_the_global_cue_to_retrieve_the_target(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(fusion="none"))
    [*_, deep] = model.encode_image(*photo)
    cells, target = tokens(deep.features).detach()[:1], torch.tensor([[0.0, 0, 1, 0, 0, 1]])
    cues = model.cues(model.encode_text(SENTENCES[:1]))[0].detach()
    optimizer = torch.optim.Adam(model.retrieve.parameters(), lr=3e-3)
    for _ in range(30):
        _, relevance = model.retrieve(cues, cells)
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(relevance, target).backward()
        optimizer.step()
    scores, relevance = model.retrieve(cues, cells)
    assert torch.equal(model.retrieve.kept(scores, torch.ones(1, 6))[:, 0], target)
    assert torch.equal((relevance > 0).float(), target)


def test_contrast_gives_out_the_map_for_the_loss_and_leaves_the_mask(model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    silent = decode(seeded(VIPAOptions(contrast=False)), photo, [0, 1])
    spoken = decode(model, photo, [0, 1])
    assert silent.auxiliary == ()
    assert same(silent, spoken)
    targets, valid, present = torch.rand(2, 1, 16, 24), torch.ones(2, 1, 16, 24), torch.ones(2)
    losses = [total_loss(output, targets, valid, present, VIPA.loss) for output in (silent, spoken)]
    assert losses[1] > losses[0]


# Step 2, refinement


def test_what_is_masked_gets_exactly_no_attention() -> None:
    torch.manual_seed(0)
    attention, queries, cells = MaskedAttention(16), random(2, 4, 16), random(2, 20, 16, seed=6)
    kept = sample(random(2, 4, 20, seed=7), some_valid(), 0.3, noisy=True)
    weights = attention.weights(queries, cells, kept)
    assert weights.shape == (2, 8, 4, 20)
    assert (weights[(kept == 0)[:, None].expand_as(weights)] == 0).all()
    assert (weights[(kept == 1)[:, None].expand_as(weights)] > 0).all()
    assert torch.allclose(weights.sum(dim=3), torch.ones(2, 8, 4))
    # What a cue didn't retrieve can be anything.
    rest = (kept[:, :1] == 0).transpose(1, 2)
    changed = attention(queries, cells + 50 * rest, kept)
    assert torch.allclose(attention(queries, cells, kept)[:, 0], changed[:, 0], atol=1e-5)


def test_masked_attention_is_attention_among_the_kept() -> None:
    logits, kept = 30 * random(3, 20), torch.zeros(3, 20)
    kept[:, 4:9] = 1
    weights = masked_softmax(logits, kept)
    assert torch.allclose(weights[:, 4:9], logits[:, 4:9].softmax(dim=1), atol=1e-6)
    assert torch.equal(masked_softmax(logits, torch.ones(3, 20)).sum(dim=1) > 0.999, torch.ones(3, dtype=torch.bool))
    # However far what is kept lies below the rest, nothing overflows or vanishes.
    far = masked_softmax(logits + 1000 * (1 - kept), kept)
    assert torch.equal(far, weights)


@pytest.mark.parametrize("noisy", [False, True])
def test_masked_attention_teaches_retrieval_even_cells_it_left_out(noisy: bool) -> None:
    torch.manual_seed(0)
    refine, valid = Refinement(16), some_valid()
    scores, cells, aggregated = random(2, 4, 20).requires_grad_(), random(2, 20, 16, seed=6), random(2, 4, 16, seed=7)
    kept = sample(scores, valid, 0.3, noisy)
    refine(aggregated, cells, kept, torch.zeros(2, 4, dtype=torch.bool)).square().sum().backward()
    assert torch.equal((scores.grad != 0).all(dim=1), valid)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", [{}, {"fusion": "none"}, {"refinement": False}], ids=str)
def test_the_mask_loss_alone_teaches_retrieval(
    change: dict[str, object], training: bool, photo: tuple[Tensor, Tensor]
) -> None:
    model = seeded(replace(VIPAOptions(), **change)).train(training)
    caught: list[Tensor] = []
    model.retrieve.register_forward_hook(lambda module, inputs, output: caught.append(output[0]))
    output = model(model.encode_image(*photo), model.encode_text(SENTENCES[:2]), torch.tensor([0, 1]))
    caught[0].retain_grad()
    ones = torch.ones_like(output.mask)
    mask_loss(output.mask, ones * (torch.arange(24) < 9), ones, torch.ones(2), LossWeights()).backward()
    for projection in (model.retrieve.query, model.retrieve.key):
        assert projection.weight.grad.abs().sum() > 0
    # Cells that no cue retrieved are reached too, those without photo aren't.
    reached = (caught[0].grad != 0).any(dim=1)
    assert reached.tolist() == [[True] * 6, [True, True, False] * 2]
    assert (caught[0].grad[0, 0] != 0).all()
    assert model.retrieve.scale.grad is None


def test_sharing_lets_cues_read_each_other_but_no_padding() -> None:
    torch.manual_seed(0)
    refine, cells, kept = Refinement(16), random(1, 6, 16), torch.ones(1, 4, 6)
    aggregated, key_padding_mask = random(1, 4, 16, seed=6), torch.tensor([[False, False, False, True]])
    before = refine(aggregated, cells, kept, key_padding_mask)
    for cue, moves in ((1, True), (3, False)):
        changed = aggregated.clone()
        changed[:, cue] += 1
        after = refine(changed, cells, kept, key_padding_mask)
        assert torch.allclose(before[:, 0], after[:, 0], atol=1e-6) is not moves


# What the decoder reads, and fusion


def test_the_decoder_asks_with_cells_and_reads_the_expression(model: VIPA) -> None:
    layer, cells, expression = model.layers[0], random(1, 6, 128), random(1, 4, 128, seed=6)
    key_padding_mask = torch.tensor([[False, False, True, True]])
    before = layer(cells, expression, key_padding_mask)
    assert before.shape == cells.shape
    masked, seen = expression.clone(), expression.clone()
    masked[:, 2:] += 9
    seen[:, 1] += 9
    assert torch.equal(before, layer(cells, masked, key_padding_mask))
    assert not torch.allclose(before, layer(cells, seen, key_padding_mask))


def test_language_as_key_and_value_reads_no_cells(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(kv="language"))
    before = decode(model, photo, [0, 1])
    scramble(model.retrieve)
    assert torch.equal(before.mask, decode(model, photo, [0, 1]).mask)
    assert not hasattr(model, "refine")
    assert not hasattr(model, "enrich")


def test_late_fusion_changes_no_embedding(model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    assert not model.early_fusion
    embeddings = [model.encode_image(*photo), seeded(VIPAOptions(fusion="none")).encode_image(*photo)]
    for late, none in zip(*embeddings, strict=True):
        assert all(torch.equal(*pair) for pair in zip(late, none, strict=True))
    text, index = model.encode_text(SENTENCES[:2]), torch.tensor([0, 0])
    joined = model.join_words(embeddings[0], text, index)
    moved = [not torch.equal(level.features[0], level.features[1]) for level in joined]
    assert moved == [False, False, True, True]
    beside = model.join_words(embeddings[0], text, torch.tensor([1, 1]))
    assert all((level.features * (1 - level.valid) == 0).all() for level in beside)


def test_without_fusion_all_sentences_read_the_same_levels(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(fusion="none"))
    joined = model.join_words(model.encode_image(*photo), model.encode_text(SENTENCES[:2]), torch.tensor([0, 0]))
    assert all(torch.equal(level.features[0], level.features[1]) for level in joined)


def test_early_fusion_reads_the_photo_with_its_sentence(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(fusion="early"))
    assert model.early_fusion
    [(pixels, valid)] = embedding = model.encode_image(*photo)
    assert torch.equal(pixels, photo[0])
    assert torch.equal(valid, photo[1])
    with torch.inference_mode():
        text = model.encode_text(SENTENCES[:2])
        levels = model.join_words(embedding, text, torch.tensor([0, 0]))
        swapped = model.join_words(embedding, text[torch.tensor([1, 0])], torch.tensor([0, 0]))
        plain = model.read_levels(model.image_encoder(pixels[:1]), valid[:1])
    # The words come in at the middle level, so what lies before is the photo's alone.
    assert [torch.equal(level.features[0], level.features[1]) for level in levels] == [True, True, False, False]
    for level, other, unread in zip(levels, swapped, plain, strict=True):
        assert torch.allclose(level.features[:1], other.features[1:], atol=1e-4)
        assert level.features[:1].shape == unread.features.shape


def test_early_fusion_is_felt_by_the_stages_after_it(photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(fusion="early"))
    with torch.no_grad():
        model.fuse["4"].widen.weight.zero_()
        model.fuse["4"].widen.bias.zero_()
    levels = model.join_words(model.encode_image(*photo), model.encode_text(SENTENCES[:2]), torch.tensor([0, 0]))
    assert not torch.allclose(levels[-1].features[0], levels[-1].features[1], atol=1e-4)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_a_closed_gate_adds_nothing_but_the_bias(fusion: str, photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(fusion=fusion))
    with torch.no_grad():
        for fuse in model.fuse.values():
            for part in (fuse.gate.weight, fuse.gate.bias, fuse.widen.bias):
                part.zero_()
    closed, without = decode(model, photo, [0, 1]), decode(seeded(VIPAOptions(fusion="none")), photo, [0, 1])
    assert same(closed, without, atol=1e-4)


# Switches


@pytest.mark.parametrize("change", SWITCHES, ids=str)
def test_every_switch_changes_the_output(change: dict[str, object], model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    usual, switched = decode(model, photo, [0, 1]), decode(seeded(replace(VIPAOptions(), **change)), photo, [0, 1])
    for one, other in zip(usual.mask, switched.mask, strict=True):
        assert not torch.allclose(one, other, atol=1e-4)


# Sentences and photos


def test_permuting_the_batch_permutes_the_output(model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    with torch.inference_mode():
        levels, text = model.encode_image(*photo), model.encode_text(SENTENCES)
        straight = model(levels, text, torch.tensor([0, 1, 0]))
        order = torch.tensor([2, 0, 1])
        permuted = model(levels, text[order], torch.tensor([0, 1, 0])[order])
    assert same(Output(*(part[order] for part in straight[:3])), permuted, atol=1e-4)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_one_prompt_alone_is_one_of_many(fusion: str, photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(VIPAOptions(fusion=fusion))
    together, alone = decode(model, photo, [1, 1, 1]), decode(model, photo, [1])
    assert same(Output(*(part[:1] for part in together[:3])), alone, atol=1e-4)


@pytest.mark.parametrize("change", [{}, *SWITCHES], ids=str)
def test_padding_changes_nothing(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(replace(VIPAOptions(), **change))
    with torch.inference_mode():
        levels = model.encode_image(*photo)
        alone = model.encode_text(SENTENCES[:1])
        padded = TextFeatures.join([alone, model.encode_text(["a very " + "long " * 20 + "sentence"])])[:1]
        noise = replace(
            padded, words=padded.words + 100 * padded.key_padding_mask[:, :, None] * random(*padded.words.shape)
        )
        outputs = [model(levels, text, torch.tensor([1])) for text in (alone, padded, noise)]
    assert padded.key_padding_mask.sum() > 15
    assert same(outputs[0], outputs[1])
    assert same(outputs[0], outputs[2])


@pytest.mark.parametrize("change", [{}, *SWITCHES], ids=str)
def test_cells_without_photo_change_nothing(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(replace(VIPAOptions(), **change))
    pixels, valid = photo
    noisy = pixels + (1 - valid) * 200
    assert same(decode(model, photo, [0, 1]), decode(model, (noisy, valid), [0, 1]), atol=0)
    if model.early_fusion:
        return
    text, index = model.encode_text(SENTENCES[:2]), torch.tensor([0, 1])
    with torch.inference_mode():
        levels = model.image_encoder(pixels)
        outputs = []
        for strength in (0, 100):
            beside = [level + strength * random(*level.shape) for level in levels]
            for level, filled in zip(levels, beside, strict=True):
                inside = torch.nn.functional.adaptive_avg_pool2d(valid, level.shape[-2:]) >= 0.5
                filled[inside.expand_as(filled)] = level[inside.expand_as(level)]
            outputs.append(model(model.read_levels(beside, valid), text, index))
    assert same(*outputs)


@pytest.mark.parametrize(
    "change", [{"fusion": "none"}, {"kv": "enriched"}, {"kv": "language"}, {"cues": "none"}], ids=str
)
def test_cells_without_photo_are_no_keys(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(replace(VIPAOptions(), **change))
    text, index = model.encode_text(SENTENCES[:2]), torch.tensor([0, 1])
    with torch.inference_mode():
        *finer, deep = model.encode_image(*photo)
        filled = deep.features + 100 * (1 - deep.valid) * random(*deep.features.shape)
        outputs = [
            model([*finer, VIPALevel(features, deep.valid)], text, index) for features in (deep.features, filled)
        ]
    assert same(*outputs)


@pytest.mark.parametrize("fusion", ["none", "late", "early"])
def test_levels_may_share_a_stride(fusion: str, photo: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(3)
    model = VIPA(Small(), text_encoder("minilm"), VIPAOptions(fusion=fusion)).eval()
    output = decode(model, photo, [0, 1, 1])
    assert output.mask.shape == (3, 1, 16, 24)
    assert [coarse.shape for coarse in output.auxiliary] == [(3, 1, 4, 6)]
    assert not torch.allclose(output.mask[1], output.mask[2], atol=1e-4)


# Training


@pytest.mark.parametrize("change", [{}, *SWITCHES], ids=str)
def test_gradients_reach_every_trained_weight(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    model = seeded(replace(VIPAOptions(), **change)).train()
    output = model(model.encode_image(*photo), model.encode_text(SENTENCES), torch.tensor([0, 1, 1]))
    sum(part.square().mean() for part in (*output[:3], *output.auxiliary)).backward()
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert missing == []


def test_evaluation_is_deterministic_and_training_draws(model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    assert same(decode(model, photo, [0, 1]), decode(model, photo, [0, 1]), atol=0)
    model.train()
    model.heads.eval()
    assert not same(decode(model, photo, [0, 1]), decode(model, photo, [0, 1]))


def test_half_precision_stays_near(model: VIPA, photo: tuple[Tensor, Tensor]) -> None:
    whole = decode(model, photo, [0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decode(model, photo, [0, 1])
    assert torch.isfinite(half.mask).all()
    assert (whole.mask - half.mask).abs().mean() < 0.1


def test_eight_masks_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    assert overfit(VIPA(image_encoder("efficientnet-lite2"), text_encoder("minilm")), steps=90) > 0.9
