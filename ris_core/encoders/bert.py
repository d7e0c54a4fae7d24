"""BERT base, uncased (Devlin et al. 2019, arXiv 1810.04805; Apache-2.0)."""

from __future__ import annotations

from torch import Tensor

from ris_core.encoders.base import EncoderEntry, TextEncoder
from ris_core.encoders.minilm import vocabulary
from ris_core.encoders.transformer_text import TransformerText
from ris_core.encoders.weights import NETWORK, TOKENIZER, Hub, locate, pretrained, tokenizer

_SOURCE = Hub(
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    digest="68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
    beside=NETWORK + TOKENIZER,
)
_NAME = "bert-base"


class Bert(TransformerText):
    """Twelve transformer layers, 768 wide; the sentence is its first word, [CLS]."""

    limit = 64

    @classmethod
    def load(cls, source: Hub = _SOURCE) -> Bert:
        """Raises CheckpointError if its weights are missing or damaged."""
        from transformers import BertModel  # noqa: PLC0415 - takes seconds

        folder = locate(_NAME, source)
        return cls(_NAME, tokenizer(folder), pretrained(BertModel, folder, add_pooling_layer=False))

    @classmethod
    def untrained(cls) -> Bert:
        """The same network with random weights."""
        from transformers import BertConfig, BertModel  # noqa: PLC0415 - takes seconds

        return cls(_NAME, tokenizer(vocabulary()), BertModel(BertConfig(), add_pooling_layer=False))

    def summary(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        """The first word."""
        return words[:, 0]


ENTRIES: dict[str, EncoderEntry[TextEncoder]] = {_NAME: EncoderEntry(Bert.load, Bert.untrained, _SOURCE, (768,))}
