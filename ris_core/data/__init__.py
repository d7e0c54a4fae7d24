"""Datasets of photos, expressions and masks: what samples are, how they are read, and how they are split."""

from ris_core.data.folder import Sample, by_photo, read_folder
from ris_core.data.readers.registry import read_dataset
from ris_core.data.splits import fold_of, split_of, without_leaks

__all__ = ["Sample", "by_photo", "fold_of", "read_dataset", "read_folder", "split_of", "without_leaks"]
