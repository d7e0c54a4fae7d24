"""Sentences through a text encoder, those that were said lately from memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from cachetools import LRUCache

from ris_core.encoders.base import TextEncoder, TextFeatures
from ris_core.inference.passes import in_batches

# Encoded together, until memory says otherwise; more gain nothing.
_TOGETHER = 32


class CachedTextEncoder:
    """Keeps the `size` sentences used last: people repeat themselves, a project's prompts above all.

    Safe for threads: `_lock` is held over the cache, not while sentences are encoded.
    """

    def __init__(self, encoder: TextEncoder, size: int = 1024) -> None:
        self._encoder = encoder
        self._cache: LRUCache[str, TextFeatures] = LRUCache(size)
        self._lock = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One for each, without padding; those that are new go through the encoder together."""
        with self._lock:
            features = {sentence: self._cache[sentence] for sentence in sentences if sentence in self._cache}
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in features]
        encoded = dict(zip(new, in_batches(new, _TOGETHER, self._encode), strict=True))
        with self._lock:
            self._cache.update(encoded)
        features |= encoded
        return [features[sentence] for sentence in sentences]

    def _encode(self, sentences: Sequence[str]) -> list[TextFeatures]:
        features: TextFeatures = self._encoder(sentences)
        return features.each()


def on_cpu(texts: Sequence[TextFeatures]) -> list[TextFeatures]:
    """Single sentences in float32 where the CPU reads them, all with one transfer."""
    if not texts or texts[0].sentence.device.type == "cpu":
        return [TextFeatures(one.words.float(), one.key_padding_mask, one.sentence.float()) for one in texts]
    rows = torch.cat([torch.cat([one.sentence, one.words[0]]) for one in texts]).float().cpu()
    parts = torch.split(rows, [1 + one.words.shape[1] for one in texts])
    return [TextFeatures(part[None, 1:], torch.zeros(1, len(part) - 1, dtype=torch.bool), part[:1]) for part in parts]
