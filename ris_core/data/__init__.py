"""Datasets of photos, expressions and masks."""

from __future__ import annotations

from ris_core.data.folder import NO_TARGET, Sample, read_folder
from ris_core.data.splits import split_of

__all__ = ["NO_TARGET", "Sample", "read_folder", "split_of"]
