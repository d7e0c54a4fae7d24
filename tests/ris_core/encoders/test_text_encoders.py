"""What every text encoder owes the models, held on tiny ones and on MiniLM; and each against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from encoders import tiny
from transformers import BertModel, CLIPModel

from ris_core.encoders.adapters import tune
from ris_core.encoders.base import TextEncoder, TextFeatures
from ris_core.encoders.weights import pretrained, tokenizer
from ris_core.tuning import Tuning

SHORT, LONG = "the cat", "a very much longer sentence about some quite different thing"


@pytest.fixture(scope="module", params=tiny.TEXT)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return tiny.text(request.param, tmp_path_factory.mktemp(request.param))


def test_features_are_as_declared(encoder: TextEncoder) -> None:
    features = encoder([SHORT, LONG])
    count = features.words.shape[1]
    assert features.words.shape == (2, count, encoder.width)
    assert features.key_padding_mask.shape == (2, count)
    assert features.key_padding_mask.dtype == torch.bool
    assert features.sentence.shape == (2, encoder.width)


def test_padding_follows_the_words(encoder: TextEncoder) -> None:
    short, long = encoder([SHORT, LONG]).key_padding_mask
    assert not long.any()
    alone = encoder([SHORT]).words.shape[1]
    assert not short[:alone].any()
    assert short[alone:].all()


def test_neighbours_change_nothing(encoder: TextEncoder) -> None:
    alone, beside = encoder([SHORT]), encoder([SHORT, LONG]).each()[0]
    assert torch.allclose(alone.words, beside.words, atol=1e-5)
    assert torch.allclose(alone.sentence, beside.sentence, atol=1e-5)


def test_words_past_the_limit_are_cut(encoder: TextEncoder) -> None:
    features = encoder(["cat " * 200])
    assert features.words.shape[1] == encoder.limit
    assert features.sentence.isfinite().all()


def test_sentences_differ(encoder: TextEncoder) -> None:
    first, second = encoder(["the left cat", "the right cat"]).sentence
    assert not torch.allclose(first, second, atol=1e-3)


def test_it_is_frozen_and_stays_in_evaluation(encoder: TextEncoder) -> None:
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not any(module.training for module in encoder.train().modules())


def test_it_runs_in_half_precision(encoder: TextEncoder) -> None:
    expected = encoder([SHORT, LONG])
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder([SHORT, LONG])
    assert (found.sentence.float() - expected.sentence).norm() < 0.05 * expected.sentence.norm()


def test_adapters_learn_in_its_last_stage(encoder: TextEncoder) -> None:
    adapted = tune(encoder, Tuning("adapters", stages=1, rank=2))
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    before = adapted([SHORT]).sentence
    assert torch.equal(before, encoder([SHORT]).sentence)
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (adapted([SHORT]).words - 1).square().mean().backward()
        optimizer.step()
    assert weights
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in weights)
    assert not torch.allclose(adapted([SHORT]).sentence, before, atol=1e-6)


def test_features_of_several_encodings_join(encoder: TextEncoder) -> None:
    joined, together = TextFeatures.join([encoder([SHORT]), encoder([LONG])]), encoder([SHORT, LONG])
    assert torch.equal(joined.key_padding_mask, together.key_padding_mask)
    assert torch.allclose(joined.sentence, together.sentence, atol=1e-5)


def test_bert_equals_transformers(tmp_path: Path) -> None:
    features = tiny.text("bert", tmp_path)([SHORT, LONG])
    tokens = tokenizer(tmp_path)([SHORT, LONG], padding=True, return_tensors="pt")
    words = pretrained(BertModel, tmp_path)(**tokens).last_hidden_state
    assert torch.allclose(features.words, words, atol=1e-6)
    assert torch.equal(features.sentence, features.words[:, 0])


def test_clip_equals_transformers(tmp_path: Path) -> None:
    features = tiny.text("clip-text", tmp_path)([SHORT, LONG])
    tokens = tokenizer(tmp_path)([SHORT, LONG], padding=True, return_tensors="pt")
    expected = pretrained(CLIPModel, tmp_path).text_model(**tokens)
    assert torch.allclose(features.words, expected.last_hidden_state, atol=1e-6)
    assert torch.allclose(features.sentence, expected.pooler_output, atol=1e-6)
