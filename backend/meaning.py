"""Sentence vectors, for finding a label by what a sentence means. Knows no labels.

all-MiniLM-L6-v2 was trained for this, whichever text encoder a model has: its vectors lie close where sentences mean
the same (Reimers and Gurevych 2019, Sentence-BERT).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ris_core.encoders import text_encoder

# One at a time: its tokenizer isn't safe for threads, and a label is found in a few milliseconds.
_lock = threading.Lock()


def vectors(sentences: Sequence[str]) -> NDArray[np.float32]:
    """N sentences -> (N, 384), each row of unit length. Raises CheckpointError if the encoder isn't installed."""
    return np.stack([_vector(sentence) for sentence in sentences])


# Labels are asked about again and again.
@lru_cache(maxsize=4096)
def _vector(sentence: str) -> NDArray[np.float32]:
    with _lock, torch.inference_mode():
        return np.asarray(text_encoder("minilm")([sentence]).sentence[0].float().cpu().numpy(), dtype=np.float32)
