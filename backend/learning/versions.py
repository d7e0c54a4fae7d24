"""A project's versions of the model: list them, change the one in production, delete what nothing needs.

What follows a promotion is done by workers: a job that makes predictions anew (rollout.py) is queued here. Knows
neither Label Studio nor what a checkpoint holds.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.datasets.snapshots import prune_snapshots, spare_snapshots
from backend.learning.rollout import refresh_soon
from backend.queue.queue import JobQueue
from backend.registry import Registry, Version

# What a card says of where a version came from and what the gate said.
_SHOWN = ("added", "origin", "base", "start", "snapshot", "decision", "reason", "gate", "before", "after")
# A snapshot that was used so recently may be in use: an export copies it, a comparison reads it.
_IN_USE_SECONDS = 3600


@dataclass(frozen=True)
class ProductionChange:
    """A project's version in production, the one before the change, and whether that is another."""

    project: int
    version: str
    before: str
    changed: bool


@dataclass(frozen=True)
class Spare:
    """What a project can do without. bytes: what deleting it frees."""

    versions: tuple[Version, ...]
    snapshots: tuple[Path, ...]
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """Versions by name and time, snapshots by id."""
        versions = [{"name": version.name, "added": version.card.get("added")} for version in self.versions]
        return {"versions": versions, "snapshots": [folder.name for folder in self.snapshots], "bytes": self.bytes}


def describe(registry: Registry, project: int) -> dict[str, Any]:
    """A project's versions for JSON, oldest first: where each came from, what the gate said, what serves now."""
    versions = registry.read(project)
    current = versions.current.name
    rows = [
        {
            "name": version.name,
            **{name: version.card.get(name) for name in _SHOWN},
            "production": version.name == current,
            "served": version.name in versions.served,
        }
        for version in versions.versions
    ]
    return {"project": project, "production": current, "since": versions.since, "versions": rows}


def promote(
    registry: Registry, project: int, name: str, queue: JobQueue | None, instead_of: str | None = None
) -> ProductionChange:
    """Put a version into production, whatever the gate said of it, and have predictions made anew.

    instead_of: what has to be in production now, else PromotionConflict is raised. [whatever is]
    name: as the registry or as Label Studio has it, or that of a zero-shot segmenter, which becomes a version then.
    queue: None where there is none; workers then see to the predictions within a minute of theirs. Raises NotFound,
    RegistryError, or CheckpointError if that segmenter isn't fetched.
    """
    before = registry.current(project).name
    version = registry.promote(project, registry.find(project, plain_name(name)).name, instead_of).name
    refresh_soon(queue, project)
    return ProductionChange(project, version, before, version != before)


def rollback(
    registry: Registry, project: int, queue: JobQueue | None, instead_of: str | None = None
) -> ProductionChange:
    """Put the version before the one in production back, and have predictions made anew; the rest as in `promote`.

    Raises NothingEarlier, PromotionConflict, RegistryError.
    """
    # Two people who go back at once mean the same step.
    before = instead_of or registry.pointer(project).version
    version = registry.rollback(project, instead_of=before).name
    refresh_soon(queue, project)
    return ProductionChange(project, version, before, version != before)


def prune(registry: Registry, home: Path, project: int, keep: int, delete: bool, in_use: Collection[str] = ()) -> Spare:
    """What nothing needs any more: see `Registry.prune`, and the snapshots that no version left was made from.

    The newest snapshot stays, and so do one that was used within the last hour, and versions `in_use`. `delete`: what
    is returned is gone. Raises Unavailable while the project learns.
    """
    busy = (
        f"Project {project} is learning, and may need what would be deleted. "
        "Nothing was deleted; try again when it has ended."
    )
    since = time.time() - _IN_USE_SECONDS
    with registry.learning(project, busy):
        versions = registry.prunable(project, keep, in_use)
        left = [version for version in registry.versions(project) if version not in versions]
        named = {str(version.card.get("snapshot")) for version in left}
        unnamed = spare_snapshots(home, project, named, since)
        freed = sum(map(_bytes, [*(version.folder for version in versions), *unnamed]))
        if delete:
            registry.prune(project, keep, in_use)
            prune_snapshots(home, project, named, since)
    return Spare(tuple(versions), tuple(unnamed), freed)


def plain_name(name: str) -> str:
    """Label Studio shows a version's name with a digest of the prompts behind a dot; the registry knows the first."""
    return name.partition(".")[0] or name


def _bytes(folder: Path) -> int:
    """A file that has another name elsewhere, such as a picture, stays on the disk."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)
