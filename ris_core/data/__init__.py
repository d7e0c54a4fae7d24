"""Datasets of photos, expressions and masks."""

from __future__ import annotations

from ris_core.data.folder import NO_TARGET, Region, Sample, read_folder
from ris_core.data.readers.registry import READERS, read_dataset
from ris_core.data.splits import split_of, without_leaks

__all__ = ["NO_TARGET", "READERS", "Region", "Sample", "read_dataset", "read_folder", "split_of", "without_leaks"]
