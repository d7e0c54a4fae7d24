"""Datasets as the commands are given them, read, with what a person should know of them on standard error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.terminal import err

if TYPE_CHECKING:
    from ris_core.data import Sample
    from ris_core.data.datasets import Datasets


def read_samples(dataset: Path, split: str | None) -> list[Sample]:
    """The samples of a dataset or of one split; says where there are more or fewer than were published."""
    from ris_core.data import datasets

    samples = datasets.read_samples(dataset, split)
    _say_differences(dataset, samples)
    return samples


def read_datasets(names: Sequence[Path]) -> Datasets:
    """Several datasets, whole; says the same of each."""
    from ris_core.data.datasets import Datasets

    datasets = Datasets.read(names)
    for name, samples in datasets.samples.items():
        _say_differences(name, samples)
    return datasets


def _say_differences(dataset: Path, samples: Sequence[Sample]) -> None:
    from ris_core.data.datasets import differences

    for difference in differences(dataset, samples):
        err.print(difference)
