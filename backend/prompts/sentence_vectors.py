"""Sentence vectors, for finding a label by what a sentence means. Knows no labels.

all-MiniLM-L6-v2 was trained for this, whichever text encoder a model has: its vectors lie close where sentences mean
the same (Reimers and Gurevych 2019, Sentence-BERT).
"""

import threading
from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray


class CachedSentenceVectors:
    """The `label_matching.SentenceVectors` of all-MiniLM-L6-v2; the `size` sentences used last are kept.

    Labels are asked about again and again, and a new sentence in the editor comes in two forms: one pass for both.
    Safe for threads: `_lock` is held over the cache and the encoder alike, whose tokenizer isn't safe for threads.
    """

    def __init__(self, size: int = 4096) -> None:
        self._cache: LRUCache[str, NDArray[np.float32]] = LRUCache(size)
        self._lock = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """N sentences -> (N, 384), each row of unit length. Raises CheckpointError if the encoder isn't installed."""
        with self._lock:
            vectors = {sentence: self._cache[sentence] for sentence in sentences if sentence in self._cache}
            if new := [sentence for sentence in dict.fromkeys(sentences) if sentence not in vectors]:
                encoded = dict(zip(new, _encode(new), strict=True))
                self._cache.update(encoded)
                vectors |= encoded
        return np.stack([vectors[sentence] for sentence in sentences])


def _encode(sentences: Sequence[str]) -> NDArray[np.float32]:
    # Not before a sentence is there: they take seconds, and the service starts without.
    import torch  # noqa: PLC0415

    from ris_core.encoders import text_encoder  # noqa: PLC0415

    with torch.inference_mode():
        return np.asarray(text_encoder("minilm")(sentences).sentence.float().cpu().numpy(), dtype=np.float32)
