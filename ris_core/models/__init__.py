"""The models, by name."""

from __future__ import annotations

from ris_core.models.lda import LDA, LDAOptions

MODELS = {LDA.name: LDA}

__all__ = ["LDA", "MODELS", "LDAOptions"]
