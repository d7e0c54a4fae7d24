"""A project's versions of the model: list them, change the one in production, compare two, delete what nothing needs.

What follows a promotion is done by workers: a job that makes predictions anew (rollout.py) is queued here. Knows no
Label Studio.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.datasets.snapshots import newest_snapshot, prune_snapshots, spare_snapshots
from backend.errors import Unavailable
from backend.learning.finetune import Comparison, compare_versions, worked_before
from backend.learning.gate import Compared, Verdict, judge
from backend.queue.queue import JobQueue
from backend.registry import Registry, Version
from ris_core.data import Sample
from ris_core.evaluation.contact_sheet import contact_sheet
from ris_core.evaluation.evaluate import answers
from ris_core.images import write_image
from ris_core.inference.predictor import Predictor

# What a card says of where a version came from and what the gate said.
_SHOWN = ("added", "origin", "base", "snapshot", "decision", "reason", "gate", "before", "after")
# Expressions on each sheet of a comparison: two answers each, two a row.
_A_SHEET = 6
# A snapshot that was used so recently may be in use: an export copies it, a comparison reads it.
_IN_USE_SECONDS = 3600


@dataclass(frozen=True)
class ProductionChange:
    """A project's version in production, and the one before the change: the same where nothing changed."""

    project: int
    version: str
    before: str

    @property
    def changed(self) -> bool:
        return self.version != self.before

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "changed": self.changed}


@dataclass(frozen=True)
class VersionComparison:
    """Two versions on the held-out expressions of a snapshot. pictures: better.jpg, worse.jpg, as far as there are."""

    snapshot: Path
    versions: tuple[Version, Version]
    answered: Comparison
    verdict: Verdict
    pictures: tuple[Path, ...] = ()

    @property
    def changed(self) -> list[Compared]:
        """The expressions whose score changed, what changed most first."""
        changed = [expression for expression in self.answered.expressions if _gain(expression)]
        return sorted(changed, key=lambda expression: (-abs(_gain(expression)), expression.task, expression.prompt))

    def as_json(self) -> dict[str, Any]:
        before, after = self.versions
        return {
            "snapshot": self.snapshot.name,
            "before": {"version": before.name, **self.answered.before.figures},
            "after": {"version": after.name, **self.answered.after.figures},
            "gate": self.verdict.as_json(),
            "expressions": [expression.as_json() for expression in self.answered.expressions],
            "pictures": [str(path) for path in self.pictures],
        }


@dataclass(frozen=True)
class Spare:
    """What a project can do without. bytes: what deleting it frees. named, since: what else may stay, and why."""

    versions: tuple[Version, ...]
    snapshots: tuple[Path, ...]
    bytes: int
    named: frozenset[str]
    since: float

    def as_json(self) -> dict[str, Any]:
        versions = [{"name": version.name, "added": version.card.get("added")} for version in self.versions]
        return {"versions": versions, "snapshots": [folder.name for folder in self.snapshots], "bytes": self.bytes}


def describe(registry: Registry, project: int) -> dict[str, Any]:
    """A project's versions for JSON, oldest first: where each came from, what the gate said, what serves now."""
    current, served = registry.current(project).name, registry.served(project)
    rows = [
        {
            "name": version.name,
            **{name: version.card.get(name) for name in _SHOWN},
            "production": version.name == current,
            "served": version.name in served,
        }
        for version in registry.versions(project)
    ]
    return {"project": project, "production": current, "since": registry.since(project), "versions": rows}


def promote(registry: Registry, project: int, name: str, queue: JobQueue | None) -> ProductionChange:
    """Put a version into production, whatever the gate said of it, and have predictions made anew.

    Args:
        name: as the registry or as Label Studio has it.
        queue: None where there is none; workers then see to the predictions within a minute of theirs.

    Raises:
        NotFound: the project has no such version.
        RegistryError: a version's folder or the pointer is damaged.
    """
    before = registry.current(project).name
    version = registry.promote(project, _plain(name)).name
    _refresh_soon(queue, project)
    return ProductionChange(project, version, before)


def rollback(registry: Registry, project: int, queue: JobQueue | None) -> ProductionChange:
    """Put the version before the one in production back, and have predictions made anew; `queue` as in `promote`.

    Raises NothingEarlier, PromotionConflict, RegistryError.
    """
    before = registry.production(project)
    # Two people who go back at once mean the same step.
    version = registry.rollback(project, instead_of=before).name
    _refresh_soon(queue, project)
    return ProductionChange(project, version, before)


def compare(
    registry: Registry,
    home: Path,
    project: int,
    names: tuple[str, str],
    needed: int,
    pictures: Path | None = None,
    on_progress: Callable[[str, float], None] = lambda stage, share: None,
) -> VersionComparison:
    """Have two versions answer the held-out expressions of the newest snapshot, and ask the gate about the second.

    Args:
        needed: held-out expressions that the gate asks for.
        pictures: a folder for sheets of what changed most.

    Raises:
        NotFound: the project has no version of that name.
        DatasetError, ImageError: it has no snapshot, or a damaged one.
        CheckpointError: a version can't be loaded.
    """
    before, after = (registry.version(project, _plain(name)) for name in names)
    snapshot = newest_snapshot(home, project)
    answered = compare_versions(before.folder, after.folder, snapshot, on_progress)
    verdict = judge(answered.expressions, needed, worked_before(before))
    sheets = draw(pictures, (before, after), answered) if pictures else []
    return VersionComparison(snapshot, (before, after), answered, verdict, tuple(sheets))


def draw(folder: Path, versions: tuple[Version, Version], answered: Comparison) -> list[Path]:
    """Write better.jpg and worse.jpg, what the second version gained and lost most, with both answers side by side.

    One of them is left out where nothing changed that way. Returns the files.
    """
    predictors = [Predictor.load(version.folder) for version in versions]
    written = []
    for name, samples in _changed_most(answered).items():
        shown = [answer for sample in samples for predictor in predictors for answer in answers(predictor, [sample])]
        if shown:
            path = folder / f"{name}.jpg"
            title = f"{name}: each first by {versions[0].name}, then by {versions[1].name}"
            write_image(path, contact_sheet(shown, title))
            written.append(path)
    return written


def prune(registry: Registry, home: Path, project: int, keep: int, delete: bool) -> Spare:
    """What nothing needs any more; it is gone if `delete`. Raises Unavailable while the project learns."""
    busy = (
        f"Project {project} is learning, and may need what would be deleted. "
        "Nothing was deleted; try again when it has ended."
    )
    with registry.learning(project, busy):
        spare = find_spare(registry, home, project, keep)
        if delete:
            registry.prune(project, keep)
            prune_snapshots(home, project, spare.named, spare.since)
    return spare


def find_spare(registry: Registry, home: Path, project: int, keep: int) -> Spare:
    """What `prune` would delete: see `Registry.prune`, and the snapshots that no version left was made from.

    The newest snapshot stays, and so does one that was used within the last hour.
    """
    versions = registry.prunable(project, keep)
    left = [version for version in registry.versions(project) if version not in versions]
    named = frozenset(str(version.card.get("snapshot")) for version in left)
    since = time.time() - _IN_USE_SECONDS
    unnamed = spare_snapshots(home, project, named, since)
    freed = sum(map(_bytes, [*(version.folder for version in versions), *unnamed]))
    return Spare(tuple(versions), tuple(unnamed), freed, named, since)


def _refresh_soon(queue: JobQueue | None, project: int) -> None:
    """Have predictions made anew at once. Where Valkey is away, workers see to it within a minute of theirs."""
    if queue:
        with suppress(Unavailable):
            queue.refresh(project)


def _plain(name: str) -> str:
    """Label Studio shows a version's name with a digest of the prompts behind a dot; the registry knows the first."""
    return name.partition(".")[0] or name


def _gain(expression: Compared) -> float:
    return expression.after - expression.before


def _changed_most(answered: Comparison) -> dict[str, list[Sample]]:
    gains = [_gain(expression) for expression in answered.expressions]
    order = sorted(range(len(gains)), key=gains.__getitem__)
    better = [number for number in reversed(order) if gains[number] > 0][:_A_SHEET]
    worse = [number for number in order if gains[number] < 0][:_A_SHEET]
    return {
        name: [answered.before.samples[number] for number in chosen]
        for name, chosen in (("better", better), ("worse", worse))
    }


def _bytes(folder: Path) -> int:
    """A file that has another name elsewhere, such as a picture, stays on the disk."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)
