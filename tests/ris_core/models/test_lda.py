"""Each mechanism of LDA does what it says, and each switch changes something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models.asking import SENTENCES, decode, same, scramble
from models.overfit import overfit
from torch import Tensor

from ris_core.encoders import image_encoder, text_encoder
from ris_core.models.layers import pick, valid_cells
from ris_core.models.lda import LDA, LDALevel, LDAOptions


def seeded(options: LDAOptions) -> LDA:
    torch.manual_seed(3)
    return LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), options).eval()


def test_shapes(untrained: LDA, photo: tuple[Tensor, Tensor]) -> None:
    output = decode(untrained, photo, [0, 1, 1])
    assert output.mask.shape == (3, 1, 16, 24)
    assert output.presence.shape == output.quality.shape == (3,)


def test_channel_attention_reads_the_sentence_only_through_its_vector(
    untrained: LDA, photo: tuple[Tensor, Tensor]
) -> None:
    level = untrained.encode_image(*photo)[2]
    attend = untrained.attend[2]
    one, other = untrained.encode_text(SENTENCES[:2]).sentence
    attention = attend.channel_attention(level, torch.stack([one, other]))
    assert attention.shape == (2, level.features.shape[1], 1, 1)
    assert ((attention > 0) & (attention < 1)).all()
    # With the query's projection silenced, no trace of the sentence is left.
    with torch.no_grad():
        attend.channel_query.weight.zero_()
    silenced = [attend.channel_attention(pick(level, torch.tensor([0])), each[None]) for each in (one, other)]
    assert torch.equal(*silenced)


def test_spatial_attention_is_one_map_and_scales_with_agreement(untrained: LDA, photo: tuple[Tensor, Tensor]) -> None:
    level = pick(untrained.encode_image(*photo)[3], torch.tensor([0]))
    attend, sentence = untrained.attend[3], untrained.encode_text(SENTENCES[:1]).sentence
    logits = attend.spatial_logits(level, sentence)
    assert logits.shape == (1, 1, *level.keys.shape[-2:])
    query = torch.nn.functional.normalize(attend.spatial_query(sentence), dim=1)[0]
    pointed = LDALevel(level.features, level.keys + 3 * query[None, :, None, None], level.valid)
    raised = attend.spatial_logits(pointed, sentence) - logits
    assert torch.allclose(raised, 3 * attend.spatial_scale, atol=1e-3)


def test_cells_without_photo_change_nothing(untrained: LDA) -> None:
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 255
    valid = torch.ones(1, 1, 64, 96)
    valid[..., 64:] = 0
    with torch.inference_mode():
        text, index = untrained.encode_text(SENTENCES[:1]), torch.tensor([0])
        outputs = []
        for noise in (0.0, 100.0):
            levels = untrained.image_encoder(pixels * valid + noise * (1 - valid) * torch.rand_like(pixels))
            inside = [valid_cells(valid, level) for level in levels]
            clean = untrained.image_encoder(pixels * valid)
            # What a convolution carries across the border is the encoder's; here only what lies beside it differs.
            mixed = [a * i + (b + noise) * (1 - i) for a, b, i in zip(clean, levels, inside, strict=True)]
            outputs.append(untrained(untrained.read_levels(mixed, valid), text, index))
    for one, other in zip(outputs[0][:3], outputs[1][:3], strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_it_learns_eight_real_masks_by_heart() -> None:
    assert overfit(seeded(LDAOptions()), steps=150) > 0.9


def test_permuting_the_batch_permutes_the_output(untrained: LDA, photo: tuple[Tensor, Tensor]) -> None:
    with torch.inference_mode():
        levels, sentences = untrained.encode_image(*photo), untrained.encode_text(SENTENCES)
        straight = untrained(levels, sentences, torch.tensor([0, 1, 0]))
        order = torch.tensor([2, 0, 1])
        permuted = untrained(levels, sentences[order], torch.tensor([0, 1, 0])[order])
    assert torch.allclose(straight.mask[order], permuted.mask, atol=1e-4)
    assert torch.allclose(straight.presence[order], permuted.presence, atol=1e-4)


def test_one_prompt_alone_is_one_of_many(untrained: LDA, photo: tuple[Tensor, Tensor]) -> None:
    together, alone = decode(untrained, photo, [1, 1, 1]), decode(untrained, photo, [1])
    assert torch.allclose(together.mask[:1], alone.mask, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"attention": "channel"},
        {"attention": "spatial"},
        {"attention": "none"},
        {"fusion": "sum"},
        {"fusion": "product"},
        {"rates": ()},
        {"rates": (1,)},
        {"multi_level": False},
        {"width": 64},
    ],
    ids=str,
)
def test_every_switch_changes_the_output(change: dict[str, object], photo: tuple[Tensor, Tensor]) -> None:
    usual = decode(seeded(LDAOptions()), photo, [0, 1])
    switched = decode(seeded(replace(LDAOptions(), **change)), photo, [0, 1])
    assert not torch.allclose(usual.mask, switched.mask, atol=1e-3)


def test_a_single_attention_ignores_the_other(photo: tuple[Tensor, Tensor]) -> None:
    for attention, silent in (("channel", "spatial_query"), ("spatial", "channel_query")):
        model = seeded(LDAOptions(attention=attention, fusion="sum"))
        before = decode(model, photo, [0, 1])
        with torch.no_grad():
            for attend in model.attend:
                getattr(attend, silent).weight.normal_()
        assert torch.equal(before.mask, decode(model, photo, [0, 1]).mask)


def test_a_single_level_reads_no_finer_one(photo: tuple[Tensor, Tensor]) -> None:
    """Neither mask nor presence nor quality."""
    model = seeded(LDAOptions(multi_level=False))
    levels = model.image_encoder(photo[0])
    unread = [torch.full_like(level, torch.nan) for level in levels[:-1]]
    text, index = model.encode_text(SENTENCES[:2]), torch.tensor([0, 1])
    with torch.inference_mode():
        before = model(model.read_levels(levels, photo[1]), text, index)
        assert same(before, model(model.read_levels([*unread, levels[-1]], photo[1]), text, index), atol=0)
    scramble(*model.project[:-1], *model.key[:-1], *model.attend[:-1])
    assert same(before, decode(model, photo, [0, 1]), atol=0)


def test_gradients_reach_every_trained_weight(untrained: LDA, photo: tuple[Tensor, Tensor]) -> None:
    untrained.train()
    output = untrained(untrained.encode_image(*photo), untrained.encode_text(SENTENCES), torch.tensor([0, 1, 1]))
    sum(part.square().mean() for part in output[:3]).backward()
    missing = [name for name, weight in untrained.named_parameters() if weight.requires_grad and weight.grad is None]
    assert missing == []


def test_encoders_are_not_among_the_weights(untrained: LDA) -> None:
    names = {name.split(".")[0] for name in untrained.state_dict()}
    assert names == {"project", "key", "attend", "fields", "descend", "refine", "to_mask", "heads"}
    assert all(not a.requires_grad for a in [*untrained.key[-1].parameters()])
