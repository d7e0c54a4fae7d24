"""Model versions of each project: immutable folders, and one pointer to the version in production.

    <root>/project-7/versions/lda-1a2b3c4d/   a checkpoint and its record (version.json); never changed again
    <root>/project-7/production.json          {"version": "lda-1a2b3c4d", ...}; replaced in one step

Every project starts at the shipped model, the base version, which stays where it is. Readers take no lock and
never see a half-written version or pointer. Knows nothing of what a checkpoint holds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.errors import BackendError, NotFound
from backend.locks import exclusive
from ris_core import checkpoint
from ris_core.files import atomic_dir, atomic_write

_RECORD = "version.json"
_POINTER = "production.json"


class RegistryError(BackendError):
    """A version's folder or a pointer isn't what the registry once wrote."""

    code = "registry_damaged"


class PromotionConflict(BackendError):
    """Another version was promoted since the caller looked."""

    code = "promotion_conflict"
    status = 409


@dataclass(frozen=True)
class Version:
    """A version of the model. `card` is the JSON given when it was added, plus "added", a UTC time."""

    name: str
    folder: Path
    card: Mapping[str, Any] = field(default_factory=dict, compare=False)


class Registry:
    """The versions of all projects, below one folder. Safe for any number of threads and processes."""

    def __init__(self, root: Path, shipped: Path | None = None) -> None:
        self._root = root
        self._shipped = shipped

    @cached_property
    def base(self) -> Version:
        """The shipped model, looked up once. Raises CheckpointError if there is none."""
        folder = self._shipped or checkpoint.shipped()
        return Version(checkpoint.version(folder), folder, {"origin": "shipped"})

    def current(self, project: int) -> Version:
        """The version in production: the base version until another is promoted. Raises RegistryError."""
        return self._version(project, self._production(project))

    def moved(self, project: int) -> datetime | None:
        """When a version last went into production; None if none ever did. Raises RegistryError."""
        pointer = _read_json(self._folder(project) / _POINTER)
        return None if pointer is None else datetime.fromisoformat(str(pointer.get("promoted")))

    def version(self, project: int, name: str) -> Version:
        """A version by its name. Raises NotFound."""
        try:
            return self._version(project, name)
        except RegistryError:
            known = ", ".join(version.name for version in self.versions(project))
            raise NotFound(f"Project {project} has no version {name}. It has {known}.") from None

    def versions(self, project: int) -> list[Version]:
        """The base version, then the project's own, oldest first."""
        own = [self._version(project, folder.name) for folder in _subfolders(self._versions(project))]
        return [self.base, *sorted(own, key=lambda version: (str(version.card.get("added")), version.name))]

    def projects(self) -> list[int]:
        """The projects that have versions of their own."""
        found = (folder.name.removeprefix("project-") for folder in _subfolders(self._root))
        return sorted(int(name) for name in found if name.isdecimal())

    def add(self, project: int, checkpoint_folder: Path, card: Mapping[str, Any]) -> Version:
        """Copy a checkpoint in as a version of its own, named by its content. Again: nothing changes."""
        name = checkpoint.version(checkpoint_folder)
        if name == self.base.name:
            return self.base
        with self._writing(project):
            self._sweep(project)
            folder = self._versions(project) / name
            if not folder.exists():
                self._write(folder, checkpoint_folder, card)
        return self._version(project, name)

    def promote(self, project: int, name: str, instead_of: str | None = None) -> Version:
        """Put a version into production, from the next prediction on; the base version's name takes all back.

        Raises:
            NotFound: the project has no version of that name.
            PromotionConflict: `instead_of` is given, and isn't the version in production any more.
        """
        version = self.version(project, name)
        with self._writing(project):
            previous = self._production(project)
            if instead_of not in (None, previous):
                raise PromotionConflict(
                    f"{name} was to replace {instead_of} in project {project}, "
                    f"but {previous} is in production now. Compare them again."
                )
            pointer = {"version": name, "previous": previous, "promoted": _now()}
            atomic_write(self._folder(project) / _POINTER, _json(pointer))
        return version

    def learning(self, project: int) -> AbstractContextManager[None]:
        """Hold this while the project's model learns: one learner a project, whoever started it."""
        return exclusive(self._folder(project) / "learning.lock")

    def _production(self, project: int) -> str:
        pointer = _read_json(self._folder(project) / _POINTER)
        return self.base.name if pointer is None else str(pointer.get("version"))

    def _write(self, folder: Path, checkpoint_folder: Path, card: Mapping[str, Any]) -> None:
        with atomic_dir(folder) as temporary:
            shutil.copytree(checkpoint_folder, temporary, dirs_exist_ok=True)
            (temporary / _RECORD).write_bytes(_json({**card, "added": _now()}))

    def _sweep(self, project: int) -> None:
        # Nobody else writes while the lock is held, so hidden folders are what killed writers left.
        for folder in self._versions(project).glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _version(self, project: int, name: str) -> Version:
        if name == self.base.name:
            return self.base
        folder = self._versions(project) / name
        card = _read_json(folder / _RECORD) if _is_plain(name) else None
        if card is None:
            raise RegistryError(
                f"Version {name} of project {project} is missing from the model registry. "
                f"Put its folder back, or promote {self.base.name}."
            )
        return Version(name, folder, card)

    def _writing(self, project: int) -> AbstractContextManager[None]:
        return exclusive(self._folder(project) / "writing.lock")

    def _folder(self, project: int) -> Path:
        return self._root / f"project-{int(project)}"

    def _versions(self, project: int) -> Path:
        return self._folder(project) / "versions"


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RegistryError(
            f"{path.name} of {path.parent.name} isn't what the registry wrote. Restore it, or delete it."
        )
    return content


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat()
