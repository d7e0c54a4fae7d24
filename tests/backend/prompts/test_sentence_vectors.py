"""Sentence vectors: the same whatever stands beside a sentence, and only so many are kept."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from backend.prompts.sentence_vectors import CachedSentenceVectors
from ris_core import encoders
from ris_core.encoders import text_encoder
from ris_core.encoders.base import TextFeatures

SENTENCES = ["kitten", "a very long sentence about a brown dog", "kitten", "sofa"]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The sentences of each pass through the encoder."""
    passes: list[list[str]] = []
    encoder = text_encoder("minilm")

    def encode(sentences: Sequence[str]) -> TextFeatures:
        passes.append(list(sentences))
        features: TextFeatures = encoder(sentences)
        return features

    monkeypatch.setattr(encoders, "text_encoder", lambda _: encode)
    return passes


def test_vectors_are_the_same_alone_and_together() -> None:
    together = CachedSentenceVectors()(SENTENCES)
    alone = np.concatenate([CachedSentenceVectors()([sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_a_sentence_is_encoded_once(encoded: list[list[str]]) -> None:
    vectors = CachedSentenceVectors()
    for sentences in (SENTENCES, ["sofa", "chair"], SENTENCES):
        vectors(sentences)
    assert encoded == [[SENTENCES[0], SENTENCES[1], "sofa"], ["chair"]]


def test_what_was_used_longest_ago_is_dropped_first(encoded: list[list[str]]) -> None:
    vectors = CachedSentenceVectors(size=2)
    for sentence in ("cat", "dog", "cat", "cup", "cat", "dog"):
        vectors([sentence])
    assert [sentence for [sentence] in encoded] == ["cat", "dog", "cup", "dog"]


def test_more_sentences_than_are_kept_all_get_their_vector() -> None:
    np.testing.assert_allclose(CachedSentenceVectors(size=1)(SENTENCES), CachedSentenceVectors()(SENTENCES), atol=1e-5)


def test_threads_share_one(encoded: list[list[str]]) -> None:
    vectors = CachedSentenceVectors()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: vectors(SENTENCES), range(16)))
    assert len(encoded) == 1
    assert all(np.array_equal(result, results[0]) for result in results)
