"""Which pictures a report shows: those with something to look at, then a sample of all labels and splits.

Nothing is left to chance: the sample is decided by the SHA-256 of the tasks' numbers.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from backend.datasets.dataset import DatasetImage
from backend.datasets.report.figures import Finding
from backend.datasets.report.tallies import Worst
from ris_core.files import sha256

MOST_SHOWN = 60
# So that a sample of the others is always left.
_MOST_WITH_REASONS = 40
REASONS = ("problem", "in two splits", "empty", "duplicate", "tiny", "specks", "overlap", "low IoU")
"""Why a picture is shown, in the order in which they take turns."""

_Thing = TypeVar("_Thing")


class Selection:
    """Takes all pictures, keeps the numbers of few. Memory grows with the labels alone."""

    def __init__(self, problems: Collection[int], leaks: Collection[int]) -> None:
        """Both: tasks, that have problems, and whose photo is in another split too."""
        self._tasks = {"problem": problems, "in two splits": leaks}
        self._reasons = {reason: Worst(MOST_SHOWN) for reason in REASONS}
        self._strata: dict[tuple[str, int | None], Worst] = {}

    def add(self, image: DatasetImage, findings: Iterable[Finding]) -> None:
        """Take a picture with what was found in it."""
        for reason, tasks in self._tasks.items():
            if image.number in tasks:
                self._reasons[reason].add(image.number, image.number)
        for finding in findings:
            self._reasons[finding.kind].add(finding.goodness, image.number)
        labels: set[int | None] = {*image.categories.values()} or {None}
        for label in labels:
            stratum = self._strata.setdefault((image.split, label), Worst(MOST_SHOWN))
            stratum.add(_chance(image.number), image.number)

    def chosen(self) -> dict[int, list[str]]:
        """The tasks to show, in order, each with the reasons; a task of the sample has none."""
        reasons: dict[int, list[str]] = {}
        kept = [[(task, reason) for task in worst.things()] for reason, worst in self._reasons.items()]
        for task, reason in _in_turn(kept):
            if task in reasons or len(reasons) < _MOST_WITH_REASONS:
                known = reasons.setdefault(task, [])
                known.extend([reason] if reason not in known else [])
        strata = sorted(self._strata.items(), key=lambda item: _chance(*item[0]))
        for task in _in_turn([stratum.things() for _, stratum in strata]):
            if len(reasons) < MOST_SHOWN:
                reasons.setdefault(task, [])
        return reasons


def _in_turn(rows: Sequence[Sequence[_Thing]]) -> Iterator[_Thing]:
    """The first of each, the second of each, and so on."""
    for turn in range(max(map(len, rows), default=0)):
        yield from (row[turn] for row in rows if turn < len(row))


def _chance(*parts: object) -> int:
    return int(sha256("/".join(map(str, parts)).encode())[:12], 16)
