"""How annotators took the predictions, as a project's snapshots tell it: now, and from snapshot to snapshot.

Reads files below home alone, and so costs Label Studio nothing. A snapshot never changes: what was read of one is kept
in memory, whole for the last two, in figures for the last hundred.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.datasets.acceptance import Answered, figures
from backend.datasets.annotations import Edit
from backend.datasets.dataset import DatasetImage, Instance, Ref, read_dataset_folder
from backend.datasets.snapshots import snapshots
from backend.labelstudio.label_config import UNLABELLED

# Snapshots that a history goes back.
LONGEST = 40

_ABSENT = ""


@dataclass(frozen=True, eq=False)
class SnapshotExpression:
    """A sentence about a picture of a snapshot. answered: with what was done to the prediction for it."""

    image: DatasetImage
    ref: Ref
    answered: Answered

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What the sentence means."""
        return tuple(instance for instance in self.image.instances if instance.number in self.ref.instances)

    @property
    def fingerprint(self) -> tuple[int, str, tuple[str, ...]]:
        """Task, sentence and masks: another as soon as a person changes one of them."""
        runs = sorted(str(instance.rle["counts"]) for instance in self.instances)
        return self.image.number, self.ref.sentence, tuple(runs)


@dataclass(frozen=True)
class Moment:
    """A snapshot in a project's history. time: when it was made or asked for last, in seconds of the epoch.

    figures: `acceptance.figures` of the expressions that are new or changed since the snapshot before it.
    """

    snapshot: str
    time: float
    figures: Mapping[str, Any]


@lru_cache(maxsize=2)
def read_expressions(folder: Path) -> tuple[SnapshotExpression, ...]:
    """The expressions of a snapshot, by rising task. Raises DatasetError if it is damaged."""
    dataset = read_dataset_folder(folder)
    names = {category.number: category.name for category in dataset.categories}
    return tuple(
        SnapshotExpression(image, ref, _answered(image, ref, names)) for image in dataset.images() for ref in image.refs
    )


def find_expression(folder: Path, number: int) -> SnapshotExpression | None:
    """The expression of that number in a snapshot; None if there is none."""
    return next((expression for expression in read_expressions(folder) if expression.ref.number == number), None)


@lru_cache(maxsize=100)
def snapshot_figures(folder: Path) -> Mapping[str, Any]:
    """`acceptance.figures` of all expressions of a snapshot. Raises DatasetError if it is damaged."""
    return figures([expression.answered for expression in read_expressions(folder)])


def by_label(expressions: Iterable[SnapshotExpression]) -> dict[str, dict[str, Any]]:
    """`acceptance.figures` by label, the most frequent first, of those the worst predicted."""
    return _grouped(expressions, lambda answered: answered.label)


def by_prompt(expressions: Iterable[SnapshotExpression]) -> dict[str, dict[str, Any]]:
    """`acceptance.figures` by sentence, in the same order."""
    return _grouped(expressions, lambda answered: answered.prompt)


def history(home: Path, project: int) -> list[Moment]:
    """The last `LONGEST` snapshots of a project, oldest first. Raises DatasetError if one is damaged."""
    folders = list(reversed(snapshots(home, project)[:LONGEST]))
    before: list[Path | None] = [None, *folders[:-1]]
    return [
        Moment(folder.name, folder.stat().st_mtime, _news(previous, folder))
        for previous, folder in zip(before, folders, strict=True)
    ]


@lru_cache(maxsize=100)
def _news(previous: Path | None, folder: Path) -> Mapping[str, Any]:
    known = {expression.fingerprint for expression in read_expressions(previous)} if previous else set()
    new = [expression for expression in read_expressions(folder) if expression.fingerprint not in known]
    return figures([expression.answered for expression in new])


def _answered(image: DatasetImage, ref: Ref, names: Mapping[int, str]) -> Answered:
    meant = [instance for instance in image.instances if instance.number in ref.instances]
    label = names.get(meant[0].category, UNLABELLED) if meant else _ABSENT
    versions = [str(version) for instance in meant if (version := instance.provenance.get("model_version"))]
    edit = _edit(ref.told, versions[0] if versions else None)
    return Answered(image.number, ref.sentence, label, not meant, edit)


def _edit(told: Mapping[str, Any], version: str | None) -> Edit:
    """What a snapshot says of the edit. Of what is absent it doesn't say whether that was predicted but by the IoU."""
    origin, iou = str(told.get("origin", "manual")), told.get("iou")
    if origin == "absent":
        return Edit("manual" if iou is None else "accepted", iou)
    return Edit(origin, iou, version=version)  # type: ignore[arg-type]


def _grouped(expressions: Iterable[SnapshotExpression], key: Callable[[Answered], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Answered]] = defaultdict(list)
    for expression in expressions:
        groups[key(expression.answered)].append(expression.answered)
    rows = {name: figures(group) for name, group in groups.items()}
    return dict(sorted(rows.items(), key=lambda row: (-row[1]["expressions"], _iou(row[1]), row[0])))


def _iou(row: Mapping[str, Any]) -> float:
    """What nothing is known of comes last."""
    return 2.0 if row["iou"] is None else float(row["iou"])
