"""What text encoders share that are a tokenizer and a network of `transformers`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ris_core.encoders.base import TextEncoder, TextFeatures
from ris_core.encoders.transfer import send

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformerText(TextEncoder):
    """Words are the network's last hidden states, special tokens among them; `limit` is the most that it reads.

    causal: whether a word sees those before it alone.
    """

    limit: ClassVar[int]
    causal: ClassVar[bool] = False

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
        )
        attention_mask, device = tokens["attention_mask"], self.network.device
        # Here and not in the network, which would ask the device whether anything is masked, and wait.
        seen = self._seen(attention_mask > 0)
        tokens["attention_mask"] = None if seen is None else send(seen, device)
        tokens = {name: tensor if tensor is None else send(tensor, device) for name, tensor in tokens.items()}
        words = self.network(**tokens).last_hidden_state
        lengths, attention_mask = tuple(attention_mask.sum(dim=1).tolist()), send(attention_mask, device)
        return TextFeatures(words, attention_mask == 0, self.summary(words, attention_mask), lengths)

    def _seen(self, is_word: Tensor) -> Tensor | None:
        """(N, L), True where there is a word -> (N, 1, L, L), which sees which; None where nothing is padding.

        A network that is causal sees to that itself then.
        """
        if bool(is_word.all()):
            return None
        length = is_word.shape[1]
        seen = is_word[:, None, None].expand(-1, 1, length, -1)
        return seen & torch.ones(length, length, dtype=torch.bool).tril() if self.causal else seen
