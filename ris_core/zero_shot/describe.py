"""The zero-shot segmenters for people: what each is good for, costs and demands, and whether it is here. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from ris_core import checkpoint_files
from ris_core.errors import CheckpointError
from ris_core.files import cache
from ris_core.zero_shot_catalogue import CATALOGUE, ZeroShotEntry


@dataclass(frozen=True)
class ZeroShotCard:
    """licences: of its parts. free: whether it may be used without being asked first. disk, memory: in MB, about.

    repositories: on the hub, by part. version: that of the fetched weights, None where they aren't at hand.
    """

    name: str
    good_for: str
    licences: tuple[str, ...]
    free: bool
    gated: bool
    disk: int
    memory: int
    clicks: bool
    repositories: dict[str, str]
    version: str | None


def describe_zero_shot() -> list[ZeroShotCard]:
    """A card each, in the catalogue's order."""
    return [describe(entry) for entry in CATALOGUE.values()]


def describe(entry: ZeroShotEntry) -> ZeroShotCard:
    """The card of one."""
    sources = entry.sources.values()
    return ZeroShotCard(
        name=entry.name,
        good_for=entry.good_for,
        licences=tuple(dict.fromkeys(source.licence for source in sources)),
        free=all(source.free for source in sources),
        gated=entry.gated,
        disk=entry.disk,
        memory=entry.memory,
        clicks=entry.clicks,
        repositories={part: source.repo for part, source in entry.sources.items()},
        version=_version(entry.name),
    )


def _version(name: str) -> str | None:
    """That of the pointer, if the files that it means are there; their content is checked as they are loaded."""
    folder = checkpoint_files.pointer_folder(name)
    try:
        sources = checkpoint_files.read_config(folder)["sources"].values()
        files = [cache() / source["folder"] / file for source in sources for file in source["files"]]
    except (CheckpointError, KeyError, TypeError, AttributeError):
        return None
    return checkpoint_files.version(folder) if all(file.is_file() for file in files) else None
