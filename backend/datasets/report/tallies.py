"""Sums that stay small however much is added: means, histograms, the most frequent, the worst. Know no dataset."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_DIGITS = 4

Key = TypeVar("Key", str, tuple[int, int], tuple[str, str])


@dataclass
class Mean:
    """Of numbers. count: how many there were."""

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Take one more."""
        self.count += 1
        self.total += value

    @property
    def value(self) -> float | None:
        """None where there were none. Four digits."""
        return round(self.total / self.count, _DIGITS) if self.count else None


@dataclass
class Histogram:
    """How many numbers lie below the first edge, from one edge to below the next, and from the last edge on."""

    edges: Sequence[float]
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        """Take one more."""
        self.counts[bisect_right(self.edges, value)] += 1


@dataclass
class Frequent(Generic[Key]):
    """How often things occur, of which there may be more kinds than fit in memory.

    Up to `most` kinds the counts are exact. Beyond twice as many the rarer half is forgotten: then is_exact is false,
    and counts are at least what they say.
    """

    most: int = 50_000
    counts: Counter[Key] = field(default_factory=Counter)
    is_exact: bool = True

    def add(self, key: Key) -> None:
        """Take one more."""
        self.counts[key] += 1
        if len(self.counts) > 2 * self.most:
            self.counts = Counter(dict(self.first(self.most)))
            self.is_exact = False

    def first(self, most: int) -> list[tuple[Key, int]]:
        """The most frequent with their counts; of equally frequent ones the first in order."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]

    @property
    def distinct(self) -> int | None:
        """How many kinds there were; None where some were forgotten."""
        return len(self.counts) if self.is_exact else None


@dataclass
class Worst:
    """The `most` worst of many things, worst first, of equals the first. count: how many there were."""

    most: int
    count: int = 0
    _kept: list[tuple[float, int, Any]] = field(default_factory=list)

    def add(self, goodness: float, thing: Any) -> None:
        """Take one more. goodness: the smaller, the worse."""
        self._kept.append((goodness, self.count, thing))
        self.count += 1
        if len(self._kept) > 2 * self.most:
            self._cut()

    def things(self) -> list[Any]:
        """Those that are kept."""
        self._cut()
        return [thing for _, _, thing in self._kept]

    def _cut(self) -> None:
        self._kept = sorted(self._kept, key=lambda row: row[:2])[: self.most]
