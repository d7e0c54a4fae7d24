"""What text encoders share that are a tokenizer and a network of `transformers`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ris_core.encoders.base import TextEncoder, TextFeatures

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformerText(TextEncoder):
    """Words are the network's last hidden states, special tokens among them; `limit` is the most that it reads."""

    limit: ClassVar[int]

    def __init__(self, name: str, tokenizer: Any, network: PreTrainedModel) -> None:
        super().__init__()
        self.name = name
        self.tokenizer = tokenizer
        self.network: Any = network
        self.width = network.config.hidden_size
        self.requires_grad_(False).eval()

    @property
    def stages(self) -> nn.ModuleList:  # type: ignore[override]
        """The network's transformer layers, which `transformers` names in two ways."""
        encoder = self.network.encoder
        layers: nn.ModuleList = encoder.layers if hasattr(encoder, "layers") else encoder.layer
        return layers

    @abstractmethod
    def summary(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        """Words (N, L, D), attention_mask (N, L), 1 where there is a word -> the sentence (N, D)."""

    def forward(self, sentences: Sequence[str]) -> TextFeatures:
        """N sentences -> words (N, L, D), key_padding_mask (N, L), sentence (N, D)."""
        tokens = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=self.limit, return_tensors="pt"
        ).to(self.network.device)
        words, attention_mask = self.network(**tokens).last_hidden_state, tokens["attention_mask"]
        return TextFeatures(words, attention_mask == 0, self.summary(words, attention_mask))
