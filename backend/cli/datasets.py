"""Datasets as the commands are given them: folders, or KIND:FOLDER, alone or several together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from backend.terminal import err
from ris_core.data import Sample, read_dataset, without_leaks
from ris_core.data.readers.registry import count_differences, parse_dataset
from ris_core.errors import DatasetError

Data: TypeAlias = Mapping[Path, Sequence[Sample]]
"""Datasets as they were named, with all of their samples."""


def read_samples(dataset: Path, split: str | None = None) -> list[Sample]:
    """The samples of a dataset or of one split; says where there are more or fewer than were published.

    Raises:
        DatasetError: there are none, or the dataset isn't whole.
    """
    samples = read_dataset(dataset, split)
    if not samples:
        raise DatasetError(f"{dataset} has no expression{f' in split {split!r}' if split else ''}.")
    kind, _ = parse_dataset(dataset)
    for difference in count_differences(kind, samples) if kind else ():
        err.print(difference)
    return samples


def read_all(datasets: Sequence[Path]) -> Data:
    """Datasets to train on, or to fix an operating point on.

    Raises:
        DatasetError: one isn't whole, or none has a split `val`.
    """
    data = {dataset: read_samples(dataset) for dataset in datasets}
    if not any(sample.split == "val" for samples in data.values() for sample in samples):
        raise DatasetError("No dataset has a split val, which the operating point is fixed on. Add one that has.")
    return data


def training_samples(data: Data) -> list[Sample]:
    """The training splits; of several datasets without the photos that any of them holds out for measuring.

    A dataset alone is left as its authors split it, so that figures stay comparable with theirs.
    """
    everything = [sample for samples in data.values() for sample in samples]
    training = [sample for sample in everything if sample.split == "train"]
    if len(data) == 1:
        return training
    kept = without_leaks(training, (sample for sample in everything if sample.split != "train"))
    if len(kept) < len(training):
        err.print(f"{len(training) - len(kept):,} expressions are left out: another split measures on their photos.")
    return kept
