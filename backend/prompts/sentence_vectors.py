"""Sentence vectors, for finding a label by what a sentence means. Knows no labels.

all-MiniLM-L6-v2 was trained for this, whichever text encoder a model has: its vectors lie close where sentences mean
the same (Reimers and Gurevych 2019, Sentence-BERT).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ris_core.encoders import text_encoder

_KEPT = 4096

# Labels are asked about again and again, and a new sentence in the editor comes in two forms: one pass for both.
_known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
# One at a time: the encoder's tokenizer isn't safe for threads, and a label is found in a few milliseconds.
_lock = threading.Lock()


def vectors(sentences: Sequence[str]) -> NDArray[np.float32]:
    """N sentences -> (N, 384), each row of unit length. Raises CheckpointError if the encoder isn't installed."""
    with _lock:
        if new := [each for each in dict.fromkeys(sentences) if each not in _known]:
            _known.update(zip(new, _encode(new), strict=True))
        for each in sentences:
            _known.move_to_end(each)
        found = np.stack([_known[each] for each in sentences])
        while len(_known) > _KEPT:
            _known.popitem(last=False)
        return found


def _encode(sentences: Sequence[str]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(text_encoder("minilm")(sentences).sentence.float().cpu().numpy(), dtype=np.float32)
