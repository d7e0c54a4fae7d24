"""Datasets named by folder or as KIND:FOLDER, alone or several together, to measure on or to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ris_core.data.folder import Sample
from ris_core.data.readers.registry import count_differences, parse_dataset, read_dataset
from ris_core.data.splits import without_leaks
from ris_core.errors import DatasetError

# Kinds of expressions that are names alone. Of sets that don't tell kinds apart, all are of the first.
_NAMING = frozenset({"name", "synonym", "absent"})
# Enough for the classes of the usual sets, few enough to be encoded in a moment.
_NAMES = 256


def read_samples(dataset: Path, split: str | None = None) -> list[Sample]:
    """The samples of a dataset or of one split. Raises DatasetError if there are none, or the dataset isn't whole."""
    samples = read_dataset(dataset, split)
    if not samples:
        raise DatasetError(f"{dataset} has no expression{f' in split {split!r}' if split else ''}.")
    return samples


def names_of(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The sentences that are names and no more, with and without their article; of very many the most frequent."""
    said = Counter(sample.sentence for sample in samples if sample.kind in _NAMING)
    frequent = sorted(said, key=lambda sentence: (-said[sentence], sentence))[:_NAMES]
    return tuple(sorted({form for sentence in frequent for form in (sentence, sentence.removeprefix("the "))}))


def differences(dataset: Path, samples: Sequence[Sample]) -> list[str]:
    """A sentence for each split that has more or fewer expressions than were published; none for a dataset folder."""
    kind, _ = parse_dataset(dataset)
    return count_differences(kind, samples) if kind else []


@dataclass(frozen=True)
class Datasets:
    """Datasets to train on, or to fix an operating point on. samples: all of each, by how it was named."""

    samples: Mapping[Path, Sequence[Sample]]

    @classmethod
    def read(cls, names: Sequence[Path]) -> Datasets:
        """Read them whole. Raises DatasetError if one isn't whole, or none has a split `val`."""
        datasets = cls({name: read_samples(name) for name in names})
        if not datasets.validation:
            raise DatasetError("No dataset has a split val, which the operating point is fixed on. Add one that has.")
        return datasets

    @property
    def validation(self) -> list[Sample]:
        """The `val` splits of all."""
        return [sample for sample in self._all() if sample.split == "val"]

    @cached_property
    def training(self) -> list[Sample]:
        """The training splits; of several datasets without the photos that any of them holds out for measuring.

        A dataset alone is left as its authors split it, so that figures stay comparable with theirs.
        """
        training = [sample for sample in self._all() if sample.split == "train"]
        if len(self.samples) == 1:
            return training
        return without_leaks(training, (sample for sample in self._all() if sample.split != "train"))

    @property
    def names(self) -> tuple[str, ...]:
        """`names_of` all samples: a class that is only named where it is absent is known as well."""
        return names_of(self._all())

    @property
    def left_out(self) -> int:
        """How many expressions of the training splits aren't in `training`."""
        return sum(sample.split == "train" for sample in self._all()) - len(self.training)

    def _all(self) -> Iterator[Sample]:
        for samples in self.samples.values():
            yield from samples
