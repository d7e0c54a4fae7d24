"""Every dataset that is read as it was published, by name, with the number of expressions that it should hold.

A dataset is named by its folder, or as KIND:FOLDER, such as `refcoco/unc:/data/refer`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ris_core.data.folder import Sample, read_folder
from ris_core.data.readers import referit
from ris_core.data.readers.phrasecut import read_phrasecut
from ris_core.data.readers.refer import GREFCOCO, read_refer, refer_layout
from ris_core.data.readers.referit import read_referit
from ris_core.errors import DatasetError

Read = Callable[[Path, Collection[str] | None], Iterator[Sample]]


@dataclass(frozen=True)
class DatasetReader:
    """How a kind of dataset is read, and how many expressions each split has as published, where that is known."""

    read: Read
    splits: Mapping[str, int | None]


def _refer(dataset: str, partition: str, **splits: int | None) -> DatasetReader:
    return DatasetReader(partial(read_refer, layout=refer_layout(dataset, partition)), splits)


# What RefCOCO, RefCOCO+ and RefCOCOg are evaluated on, but for RefCOCOg's test, was counted in the published refs; the
# rest is as papers and the sets' own pages give it. gRefCOCO's are those of grefs(unc).json, 259,859 together: its
# paper's 278,232 count expressions that were held back.
READERS = {
    "refcoco/unc": _refer("refcoco", "unc", train=120_624, val=10_834, testA=5_657, testB=5_095),
    "refcoco/google": _refer("refcoco", "google", train=None, val=None, test=None),
    "refcoco+/unc": _refer("refcoco+", "unc", train=120_191, val=10_758, testA=5_726, testB=4_889),
    "refcocog/umd": _refer("refcocog", "umd", train=80_512, val=4_896, test=9_602),
    # Its test split was never released, and its train and val share photos.
    "refcocog/google": _refer("refcocog", "google", train=85_474, val=9_536),
    "grefcoco/unc": DatasetReader(
        partial(read_refer, layout=GREFCOCO), {"train": 209_344, "val": 16_870, "testA": 18_712, "testB": 14_933}
    ),
    "phrasecut": DatasetReader(read_phrasecut, {"train": 310_816, "val": 20_316, "test": 14_354, "miniv": 821}),
    "referit/unc": _refer("refclef", "unc", train=None, val=None, testA=None, testB=None, testC=None),
    "referit/berkeley": _refer("refclef", "berkeley", train=None, val=None, test=None),
    # The literature's: `train` is all that isn't `test`. Where a validation split is needed, `referit/train` has one.
    "referit/trainval": DatasetReader(
        partial(read_referit, files=referit.WHOLE), {"train": 54_127 + 5_842, "test": 60_103}
    ),
    "referit/train": DatasetReader(
        partial(read_referit, files=referit.PARTED), {"train": 54_127, "val": 5_842, "test": 60_103}
    ),
}


def read_dataset(dataset: Path | str, split: str | None = None) -> list[Sample]:
    """The expressions of a dataset, or of one split, in the order of its files; no photo is decoded, and no mask.

    Args:
        dataset: a dataset folder, see `folder`, or KIND:FOLDER with one of `READERS`.
        split: such as "train", exactly as the set names it; None for all that it has.

    Raises DatasetError if there is no such kind or split, or a file is missing, damaged, or at odds with another.
    """
    kind, folder = parse_dataset(dataset)
    if kind is None:
        return read_folder(folder, split)
    reader = READERS[kind]
    if split is not None and split not in reader.splits:
        raise DatasetError(f"{kind} has no split {split!r}. It has {', '.join(reader.splits)}.")
    return list(reader.read(folder, None if split is None else {split}))


def parse_dataset(dataset: Path | str) -> tuple[str | None, Path]:
    """KIND:FOLDER -> the kind and the folder; of a plain folder the kind is None.

    Raises DatasetError if there is no such kind.
    """
    kind, colon, folder = str(dataset).partition(":")
    if not colon or Path(dataset).is_dir():
        return None, Path(dataset)
    if kind not in READERS:
        raise DatasetError(f"There is no dataset of the kind {kind!r}. Choose from {', '.join(READERS)}.")
    return kind, Path(folder)


def count_differences(kind: str, samples: Iterable[Sample]) -> list[str]:
    """A sentence for each split of `samples` that isn't as large as published.

    A difference is a question and no error: releases differ, and so do the ways of counting.
    """
    counts = Counter(sample.split for sample in samples)
    return [
        f"{kind} has {counts[split]:,} expressions in {split} here, {count:,} as published."
        for split, count in READERS[kind].splits.items()
        if count is not None and 0 < counts[split] != count
    ]


def dataset_name(dataset: Path | str) -> str:
    """What tables call a dataset: its kind, or its folder's name."""
    kind, folder = parse_dataset(dataset)
    return kind or folder.name


def held_out_splits(samples: Sequence[Sample]) -> list[str]:
    """The splits that aren't for training, `val` first."""
    return sorted({sample.split for sample in samples} - {"train"}, key=lambda split: (split != "val", split))
