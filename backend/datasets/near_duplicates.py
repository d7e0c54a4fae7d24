"""Pictures that show the same photo: saved anew, resized, slightly cropped or brightened. By perceptual hash alone.

The hash is pHash, 64 bits: which of the lowest 8x8 frequencies of the picture, grey and shrunk to 32x32, lie above
their median (imagehash.phash). Pictures are near duplicates where at most MAX_DISTANCE of the bits differ.

MAX_DISTANCE was chosen on 1,600 photos of Clothing Co-Parsing and COCO, all pairs of them, and changed copies of 997.
The share of pairs with at most so many bits that differ:

                                                                  6        8       10
    JPEG of quality 20 or 50, half or quarter size, grey      1.000    1.000    1.000
    contrast 1.3                                              0.999    1.000    1.000
    1.3 as bright, whites clipped                             0.954    0.987    0.998
    cropped to 98 % of width and height                       0.997    0.999    1.000
    cropped to 95 %                                           0.770    0.933    0.982
    cropped to 98 %, half size, 1.15 as bright, JPEG of 60    0.984    0.997    1.000
    cropped to 90 %                                           0.143    0.349    0.580
    mirrored                                                  0        0        0
    1,279,195 pairs of different photos, how many             0        0        6

In Clothing Co-Parsing five photos are there twice, at distances of 2 to 8; all pairs up to 10 were looked at. So what
is told is one photo as a rule. A photo cropped by more, mirrored or turned goes unnoticed, and mostly one taken
a moment later: one of the six. Pictures without detail, such as blank ones, are near duplicates of each other. 100,000
hashes are compared in 2 to 3 s on one core.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backend.datasets.dataset import DatasetImage
from backend.datasets.image_store import perceptual_hash

BITS = 64
MAX_DISTANCE = 8
MOST_LISTED = 200

Hashes: TypeAlias = NDArray[np.uint64]
Numbers: TypeAlias = NDArray[np.int64]

Picture: TypeAlias = tuple[int, str]
"""Its task and its split."""

# Pairs of hashes that are compared at once: 8 MB each.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures that show the same photo. tasks: rising; splits: theirs. distance: bits of the hash that differ."""

    tasks: tuple[int, int]
    splits: tuple[str, str]
    distance: int

    @property
    def leaks(self) -> bool:
        """Whether the photo is in two splits."""
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class NearDuplicates:
    """pairs, leaks: how many pairs there are, and how many of them lie across splits.

    listed: the first of them: those across splits, then the nearest, then by task.
    """

    pairs: int = 0
    leaks: int = 0
    listed: tuple[NearDuplicate, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same for JSON."""
        listed = [
            {"tasks": list(pair.tasks), "splits": list(pair.splits), "distance": pair.distance} for pair in self.listed
        ]
        return {"pairs": self.pairs, "leaks": self.leaks, "max_distance": MAX_DISTANCE, "listed": listed}


def find_near_duplicates(
    images: Iterable[DatasetImage],
    hash_of: Callable[[DatasetImage], int] = lambda image: perceptual_hash(image.path),
    listed: int = MOST_LISTED,
) -> NearDuplicates:
    """The near duplicates among pictures.

    hash_of: a picture's hash, such as one that an `ImageStore` keeps. listed: at most so many pairs are. Raises
    ImageError if a picture can't be read.
    """
    rows = [(image.number, image.split, hash_of(image)) for image in images]
    return near_duplicates([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], listed)


def near_duplicates(
    tasks: Sequence[int], splits: Sequence[str], hashes: Sequence[int], listed: int = MOST_LISTED
) -> NearDuplicates:
    """The same by the pictures' tasks, splits and 64-bit hashes, all of one length.

    Memory grows with the pictures, not with the pairs.
    """
    groups: dict[int, dict[str, list[Picture]]] = defaultdict(lambda: defaultdict(list))
    for task, split, value in sorted(zip(tasks, splits, hashes, strict=True)):
        groups[value][split].append((task, split))
    names = sorted(set(splits))
    members = [[group[name] for name in names] for group in groups.values()]
    sizes = np.array([[len(alike) for alike in group] for group in members], np.int64).reshape(len(members), len(names))
    pairs = leaks = 0
    across, within = _Nearest(listed), _Nearest(listed)
    for found in _pairs_of_groups(np.array(list(groups), np.uint64)):
        total, alike = _count(found, sizes)
        pairs += int(total.sum())
        leaks += int((total - alike).sum())
        across.add(found[total > alike])
        within.add(found[alike > 0])
    told = [*_told(across, members, leaks=True), *_told(within, members, leaks=False)]
    return NearDuplicates(pairs, leaks, tuple(told[:listed]))


def near_pairs(hashes: Hashes, max_distance: int = MAX_DISTANCE) -> Iterator[Numbers]:
    """All pairs of N 64-bit hashes that differ in at most `max_distance` < 64 bits, once each, in any order.

    Yields Px3 arrays: the first's index, the second's, which is greater, and their distance. Where no more bits differ,
    one of `max_distance` + 1 bands of the hash is the same in both (pigeonhole): only hashes that share a band are
    compared.
    """
    edges = np.linspace(0, BITS, max_distance + 2).astype(int).tolist()
    bands = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
    for number, band in enumerate(bands):
        keys = hashes & band
        order = np.argsort(keys, kind="stable")
        for run in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for pairs in _within_run(run, hashes, max_distance):
                differing = hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]
                fresh = np.ones(len(pairs), np.bool_)
                # Pairs that share an earlier band were told there.
                for earlier in bands[:number]:
                    fresh &= differing & earlier != 0
                yield pairs[fresh]


def _within_run(run: Numbers, hashes: Hashes, max_distance: int) -> Iterator[Numbers]:
    """The near pairs among the hashes at rising indices."""
    rows = max(1, _CHUNK // max(1, len(run)))
    for top in range(0, len(run) - 1, rows):
        distances = np.bitwise_count(hashes[run[top : top + rows], None] ^ hashes[None, run[top:]])
        row, column = np.nonzero(distances <= max_distance)
        row, column = row[column > row], column[column > row]
        yield np.stack([run[top + row], run[top + column], distances[row, column]], axis=1).astype(np.int64)


def _pairs_of_groups(hashes: Hashes) -> Iterator[Numbers]:
    """As `near_pairs`, and each with itself: a group is of pictures of one hash."""
    own = np.arange(len(hashes))
    yield np.stack([own, own, np.zeros_like(own)], axis=1)
    yield from near_pairs(hashes)


def _count(found: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers]:
    """How many pairs of pictures each pair of groups stands for, and how many of these are within one split.

    sizes: GxS, how many pictures of a split a group has.
    """
    first, second = sizes[found[:, 0]], sizes[found[:, 1]]
    count = first.sum(axis=1)
    total, alike = count * second.sum(axis=1), (first * second).sum(axis=1)
    # Of a group with itself no picture is paired with itself, and no pair is told twice.
    same = found[:, 0] == found[:, 1]
    return np.where(same, (total - count) // 2, total), np.where(same, (alike - count) // 2, alike)


class _Nearest:
    """The first `most` pairs of groups by distance, then as the groups come. rows: Px3, in that order."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows: Numbers = np.zeros((0, 3), np.int64)

    def add(self, found: Numbers) -> None:
        """Take further pairs."""
        rows = np.concatenate([self.rows, found])
        self.rows = rows[np.lexsort((rows[:, 1], rows[:, 0], rows[:, 2]))[: self.most]]


def _told(nearest: _Nearest, members: Sequence[Sequence[Sequence[Picture]]], leaks: bool) -> list[NearDuplicate]:
    """The pairs of pictures that pairs of groups stand for, across splits or within one.

    members: the pictures of each group, by split.
    """
    pairs = (
        NearDuplicate((one[0], other[0]), (one[1], other[1]), distance)
        for first, second, distance in nearest.rows.tolist()
        for one, other in map(sorted, _pictures(members[first], members[second], first == second, leaks))
    )
    return sorted(islice(pairs, nearest.most), key=lambda pair: (pair.distance, pair.tasks))


def _pictures(
    first: Sequence[Sequence[Picture]], second: Sequence[Sequence[Picture]], same: bool, leaks: bool
) -> Iterator[tuple[Picture, Picture]]:
    """The pairs of one of the first group's pictures and one of the second's. same: whether they are one group."""
    for left, right in product(range(len(first)), range(len(second))):
        if (left != right) != leaks or (same and left > right):
            continue
        yield from combinations(first[left], 2) if same and left == right else product(first[left], second[right])
