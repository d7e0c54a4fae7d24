"""Model versions of each project: immutable folders, and one pointer to the version in production.

    <root>/project-7/versions/lda-1a2b3c4d/   a checkpoint and its record (version.json); never changed again
    <root>/project-7/production.json          {"version": "lda-1a2b3c4d", ...}; replaced in one step

Every project starts at the base version, which stays where it is: the shipped model, or what the settings name. Readers
take no lock and never see a half-written version or pointer: writers exclude each other, write aside and rename. One
that is killed leaves at most a hidden folder, which the next one removes. Of what a checkpoint holds it knows no more
than whether that can be trained: a zero-shot segmenter can't.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from backend.errors import BackendError, NotFound
from backend.locks import exclusive
from ris_core import checkpoint_files
from ris_core.files import atomic_dir, atomic_write

RECORD = "version.json"
"""The file of a version that is its card."""
_POINTER = "production.json"
ZERO_SHOT = "zero-shot"
"""The origin, on its card, of a version that is a zero-shot segmenter."""
# So often one can go back, and so many versions are known to have served: a pointer stays a few kilobytes.
_STEPS, _SERVED = 20, 100


class RegistryError(BackendError, code="registry_damaged"):
    """A version's folder or a pointer isn't what the registry once wrote."""


class PromotionConflict(BackendError, code="promotion_conflict", status=409):
    """Another version was promoted since the caller looked."""


class NothingEarlier(BackendError, code="no_earlier_version", status=409):
    """There is no version to go back to."""


@dataclass(frozen=True)
class Version:
    """A version of the model. `card` is the JSON given when it was added, plus "added", a UTC time."""

    name: str
    folder: Path
    card: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Pointer:
    """What production.json says. Names of versions, newest last.

    promoted: when `version` was put there, a UTC time; None if none ever was. earlier: what was in production before,
    as far as nobody went back from it. served: all that are or ever were, the last 100.
    """

    version: str
    promoted: str | None = None
    earlier: tuple[str, ...] = ()
    served: tuple[str, ...] = ()

    def to(self, name: str, earlier: tuple[str, ...]) -> Pointer:
        """The pointer after a move to `name`."""
        served = (*(other for other in self.served if other != name), name)
        return Pointer(name, _now(), earlier[-_STEPS:], served[-_SERVED:])


@dataclass(frozen=True)
class ProjectVersions:
    """What the registry holds of a project at one moment.

    versions: those that come with the installation, the base version first, then the project's own, oldest first.
    since, served, earlier: as of `Pointer`.
    """

    project: int
    production: str
    since: str | None
    served: tuple[str, ...]
    versions: tuple[Version, ...]
    earlier: tuple[str, ...] = ()

    @property
    def base(self) -> Version:
        """What the project started at."""
        return self.versions[0]

    @property
    def shipped(self) -> Version:
        """The base version, or where that is a zero-shot segmenter the shipped model, which is listed beside it."""
        return next(version for version in self.versions if not checkpoint_files.is_zero_shot(version.folder))

    @property
    def start(self) -> Version:
        """What learning goes on from. Raises RegistryError if the version in production is missing.

        The version in production. While a zero-shot segmenter serves, the last one before it that can be trained: that
        was good enough once, and nobody took it back. Else `shipped`.
        """
        by_name = {version.name: version for version in self.versions}
        for name in (self.current.name, *reversed(self.earlier)):
            version = by_name.get(name)
            if version and not checkpoint_files.is_zero_shot(version.folder):
                return version
        return self.shipped

    @property
    def current(self) -> Version:
        """The version in production. Raises RegistryError if its folder is missing."""
        for version in self.versions:
            if version.name == self.production:
                return version
        raise missing(self.project, self.production, self.base)


class Registry:
    """The versions of all projects, below one folder. Safe for any number of threads and processes."""

    def __init__(self, root: Path, shipped: Path | None = None) -> None:
        self._root = root
        self._shipped = shipped

    @cached_property
    def base(self) -> Version:
        """What projects start at, looked up once. Raises CheckpointError if it is missing."""
        folder = self._shipped or checkpoint_files.shipped()
        return _given(folder)

    @cached_property
    def given(self) -> tuple[Version, ...]:
        """What comes with the installation: the base version, and the shipped model where that can't be trained."""
        if not checkpoint_files.is_zero_shot(self.base.folder):
            return (self.base,)
        return self.base, _given(checkpoint_files.shipped())

    @property
    def trouble(self) -> str | None:
        """What keeps this from knowing what other hosts did; None where nothing does, or there are none."""
        return None

    def current(self, project: int) -> Version:
        """The version in production: the base version until another is promoted. Raises RegistryError."""
        name = self.pointer(project).version
        try:
            return self._version(project, name)
        except RegistryError:
            # Production may have moved on, and the version been pruned, since the pointer was read.
            moved = self.pointer(project).version
            if moved == name:
                raise
            return self._version(project, moved)

    def pointer(self, project: int) -> Pointer:
        """Which version is in production, whether its folder is there or not. Raises RegistryError."""
        content = _read_json(self._folder(project) / _POINTER)
        if content is None:
            return Pointer(self.base.name, served=(self.base.name,))
        version, promoted = str(content.get("version")), str(content.get("promoted"))
        if "earlier" in content and "served" in content:
            return Pointer(version, promoted, tuple(content["earlier"]), tuple(content["served"]))
        # Earlier releases kept no more than the one before.
        previous = content.get("previous", self.base.name)
        return Pointer(version, promoted, (previous,), (previous, version))

    def previous(self, project: int) -> Version | None:
        """What `rollback` would go back to. Raises RegistryError."""
        earlier = _steps(self.pointer(project), partial(self._is_there, project))
        return self._version(project, earlier[-1]) if earlier else None

    def version(self, project: int, name: str) -> Version:
        """A version by its name. Raises NotFound."""
        try:
            return self._version(project, name)
        except RegistryError:
            names = ", ".join(version.name for version in self.versions(project))
            raise NotFound(f"Project {project} has no version {name}. It has {names}.") from None

    def find(self, project: int, name: str) -> Version:
        """`version`, or by the name of a zero-shot segmenter that which is fetched: it becomes one of the project's.

        Raises NotFound, CheckpointError if that segmenter isn't fetched.
        """
        if name not in checkpoint_files.ZERO_SHOT:
            return self.version(project, name)
        return self.add(project, checkpoint_files.find(name), {"origin": ZERO_SHOT})

    def versions(self, project: int) -> list[Version]:
        """Those of `given`, then the project's own, oldest first."""
        own, given = [], {version.name for version in self.given}
        for folder in _subfolders(self._versions(project)):
            if folder.name in given:
                continue
            try:
                own.append(self._version(project, folder.name))
            except RegistryError:
                # Else it was pruned meanwhile.
                if folder.exists():
                    raise
        return [*self.given, *sorted(own, key=lambda version: (str(version.card.get("added")), version.name))]

    def read(self, project: int) -> ProjectVersions:
        """All of it at one moment. Raises RegistryError."""
        while True:
            pointer, versions = self.pointer(project), tuple(self.versions(project))
            # Else production has moved on in between, and a version may have been pruned.
            if self.pointer(project) == pointer:
                return ProjectVersions(
                    project, pointer.version, pointer.promoted, pointer.served, versions, pointer.earlier
                )

    def projects(self) -> list[int]:
        """The projects that have versions of their own."""
        names = (folder.name.removeprefix("project-") for folder in _subfolders(self._root))
        return sorted(int(name) for name in names if name.isdecimal())

    def add(self, project: int, checkpoint_folder: Path, card: Mapping[str, Any]) -> Version:
        """Copy a checkpoint in as a version of its own, named by its content. Again: nothing changes."""
        name = checkpoint_files.version(checkpoint_folder)
        for version in self.given:
            if name == version.name:
                return version
        with self._writing(project):
            self._sweep(project)
            folder = self._versions(project) / name
            if not folder.exists():
                write_version(folder, checkpoint_folder, card)
        return self._version(project, name)

    def promote(self, project: int, name: str, instead_of: str | None = None) -> Version:
        """Put a version into production, from the next prediction on.

        Raises NotFound if the project has no such version, PromotionConflict if `instead_of` isn't in production now.
        """
        with self._writing(project):
            # Looked up in here, where nobody can prune it any more.
            version, pointer = self.version(project, name), self.pointer(project)
            moved = promoted(project, pointer, name, instead_of)
            if moved != pointer:
                self._point(project, moved)
        return version

    def rollback(self, project: int, instead_of: str | None = None) -> Version:
        """Put the version before the one in production back; again: the one before that. Returns what serves now.

        Raises NothingEarlier if none was, or none of those is there any more, and PromotionConflict as `promote` does:
        who asks twice goes back once.
        """
        with self._writing(project):
            moved = rolled_back(project, self.pointer(project), partial(self._is_there, project), instead_of)
            self._point(project, moved)
        return self._version(project, moved.version)

    def prunable(self, project: int, keep: int, in_use: Collection[str] = ()) -> list[Version]:
        """What `prune` would delete, oldest first. Raises RegistryError."""
        versions, previous = self.read(project), self.previous(project)
        current = versions.current
        needed = {current.name, current.card.get("base"), current.card.get("start"), versions.start.name, *in_use}
        needed |= {previous.name} if previous else set()
        own = versions.versions[len(self.given) :]
        spare = [version for version in own if version.name not in needed]
        return spare[: max(0, len(spare) - keep)]

    def prune(self, project: int, keep: int, in_use: Collection[str] = ()) -> list[Version]:
        """Delete all but the newest `keep` versions; returns those that are gone.

        Those `in_use` by name, the version in production, those that it was trained from and compared with, the one
        that `rollback` goes back to and the one that learning goes on from stay in any case, and don't count. Who has a
        version's files open can go on reading them.
        """
        with self._writing(project):
            self._sweep(project)
            gone = self.prunable(project, keep, in_use)
            for version in gone:
                # In one step, so that nobody finds half a version.
                version.folder.rename(version.folder.with_name(f".{version.name}.pruned"))
            self._sweep(project)
        return gone

    def learning(
        self, project: int, refusal: str | None = None, waiting: Callable[[], None] | None = None
    ) -> AbstractContextManager[None]:
        """Hold this while the project's model learns: one learner a project, whoever started it; see `exclusive`."""
        return exclusive(self._folder(project) / "learning.lock", refusal, waiting)

    def learning_state(self, project: int) -> AbstractContextManager[None]:
        """Hold this while learning reads and writes what it goes by beside versions: where hosts share that."""
        return nullcontext()

    def _point(self, project: int, pointer: Pointer) -> None:
        # What the settings name today they needn't name tomorrow, and a zero-shot segmenter is a few hundred bytes.
        for version in self.given:
            folder = self._versions(project) / version.name
            is_named = version.name in (pointer.version, *pointer.earlier)
            if is_named and checkpoint_files.is_zero_shot(version.folder) and not folder.exists():
                write_version(folder, version.folder, version.card)
        atomic_write(self._folder(project) / _POINTER, _json(asdict(pointer)))

    def _sweep(self, project: int) -> None:
        # Nobody else writes while the lock is held, so hidden folders are what killed writers left.
        for folder in self._versions(project).glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _version(self, project: int, name: str) -> Version:
        for version in self.given:
            if name == version.name:
                return version
        folder = self._versions(project) / name
        card = _read_json(folder / RECORD) if _is_plain(name) else None
        if card is None:
            raise missing(project, name, self.base)
        return Version(name, folder, card)

    def _is_there(self, project: int, name: str) -> bool:
        try:
            self._version(project, name)
        except RegistryError:
            return False
        return True

    def _writing(self, project: int) -> AbstractContextManager[None]:
        return exclusive(self._folder(project) / "writing.lock")

    def _folder(self, project: int) -> Path:
        return self._root / f"project-{int(project)}"

    def _versions(self, project: int) -> Path:
        return self._folder(project) / "versions"


def promoted(project: int, pointer: Pointer, name: str, instead_of: str | None) -> Pointer:
    """The pointer once `name` is in production. Raises PromotionConflict as `Registry.promote` does."""
    _check_unmoved(project, pointer, name, instead_of)
    return pointer if name == pointer.version else pointer.to(name, (*pointer.earlier, pointer.version))


def rolled_back(
    project: int, pointer: Pointer, is_there: Callable[[str], bool], instead_of: str | None = None
) -> Pointer:
    """The pointer after a step back to a version that is there. Raises as `Registry.rollback` does."""
    earlier = _steps(pointer, is_there)
    if not earlier:
        raise NothingEarlier(
            f"Project {project} has no version before {pointer.version} to go back to. "
            f"`ris versions --project {project}` lists those that `ris promote` can put into production."
        )
    _check_unmoved(project, pointer, earlier[-1], instead_of)
    return pointer.to(earlier[-1], earlier[:-1])


def _steps(pointer: Pointer, is_there: Callable[[str], bool]) -> tuple[str, ...]:
    """Where a rollback can go: the last of them next."""
    earlier = pointer.earlier
    while earlier and (earlier[-1] == pointer.version or not is_there(earlier[-1])):
        earlier = earlier[:-1]
    return earlier


def _given(folder: Path) -> Version:
    origin = ZERO_SHOT if checkpoint_files.is_zero_shot(folder) else "shipped"
    return Version(checkpoint_files.version(folder), folder, {"origin": origin})


def write_version(folder: Path, checkpoint_folder: Path, card: Mapping[str, Any]) -> None:
    """Write a copy of a checkpoint with its record, whole or not at all. Raises FileExistsError if it is there."""
    with atomic_dir(folder) as temporary:
        shutil.copytree(checkpoint_folder, temporary, dirs_exist_ok=True)
        (temporary / RECORD).write_bytes(_json({**card, "added": _now()}))


def missing(project: int, name: str, base: Version) -> RegistryError:
    """What is raised where a version isn't there."""
    return RegistryError(
        f"Version {name} of project {project} is missing from the model registry. "
        f"Put its folder back, or promote {base.name}."
    )


def _check_unmoved(project: int, pointer: Pointer, name: str, instead_of: str | None) -> None:
    if instead_of not in (None, pointer.version):
        raise PromotionConflict(
            f"{name} was to replace {instead_of} in project {project}, "
            f"but {pointer.version} is in production now. Compare them again."
        )


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
