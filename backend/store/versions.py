"""The model registry of several hosts: the truth lies in a bucket, and the home folder is a cache of it.

    <root>/store.json                           the bucket's address
    <root>/project-7/record.json                the project's record, as the bucket had it last

A change reads the record, and replaces it if nobody else has meanwhile; else it begins anew with what is there then. So
all changes of a project have one order, whoever makes them. A record comes here only after the version that it puts
into production: whoever looks, finds it. Killed anywhere, a writer leaves files that no record names, which `prune`
deletes a day later.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from backend.errors import NotFound
from backend.locks import exclusive
from backend.registry import (
    NothingEarlier,
    Pointer,
    ProjectVersions,
    Registry,
    RegistryError,
    Version,
    missing,
    promoted,
    rolled_back,
    write_version,
)
from backend.store.bucket import Bucket, Changed, Stored, StoreDamaged, StoreError, check_conditions
from backend.store.cache import VersionCache
from backend.store.marker import claim
from backend.store.record import (
    RECORDS,
    Entry,
    Record,
    parse_record,
    project_of,
    record_name,
    upload_prefix,
    versions_prefix,
)
from backend.store.turns import Turns
from ris_core import checkpoint_files
from ris_core.files import atomic_write, sha256

_log = logging.getLogger(__name__)

# So long what a home knows is taken for what the bucket says.
FRESH_SECONDS = 5.0
# Files that no record names may be on their way for so long.
_UPLOAD_SECONDS = 86_400.0
_TRIES = 30
_RECORD = "record.json"


class Follower(Protocol):
    """What keeps a home up to date, so that nobody else in its process has to ask the store."""

    @property
    def trouble(self) -> str | None:
        """As `Registry.trouble`."""

    @property
    def has_begun(self) -> bool:
        """Whether the store has answered once, so that what isn't known here isn't there."""


class LearningState(Protocol):
    """What a trainer on another host needs to go on, beside versions."""

    def fetch(self, project: int, snapshot: str | None = None) -> None:
        """Bring here what the store has, with that snapshot if it has it. Raises StoreError, StoreDamaged."""

    def keep(self, project: int) -> None:
        """Put into the store what is here. Raises StoreError."""

    def prune(self, project: int, named: Collection[str]) -> None:
        """Delete from the store what isn't needed any more but for the snapshots named. Raises StoreError."""


class SharedRegistry(Registry):
    """A registry whose versions and pointers other hosts share. Safe for any number of threads and processes.

    Where the store fails, what reads goes on with what is known here, and says so in the log; what writes raises
    StoreError. Raises RegistryError at once if the home is another store's, or has versions that lie in none.
    """

    def __init__(
        self,
        root: Path,
        shipped: Path | None,
        bucket: Bucket,
        turns: Turns | None = None,
        state: LearningState | None = None,
        *,
        follower: Follower | None = None,
        asks: bool = True,
    ) -> None:
        """turns: of learners. state: what they share. follower: asks the store in place of this.

        asks: whether what is read may come from the store.
        """
        super().__init__(root, shipped)
        self.bucket = bucket
        self._cache = VersionCache(root, bucket)
        self._turns, self._state, self._follower = turns, state, follower
        self._asks = asks and follower is None
        self._asked: dict[int, float] = {}
        self._checked = False
        self._failing: str | None = None
        claim(root, bucket.address)

    @property
    def trouble(self) -> str | None:
        """As `Registry.trouble`."""
        return self._follower.trouble if self._follower else self._failing

    def pointer(self, project: int) -> Pointer:
        """As `Registry.pointer`."""
        return self._pointer(self._record(project))

    def current(self, project: int) -> Version:
        """As `Registry.current`."""
        version = super().current(project)
        if not self._is_here(project, version):
            raise missing(project, version.name, self.base)
        return version

    def previous(self, project: int) -> Version | None:
        """As `Registry.previous`; its files may not be here."""
        record = self._record(project)
        with suppress(NothingEarlier):
            moved = rolled_back(project, self._pointer(record), lambda name: self._names(record, name))
            return self._listed(project, record, moved.version)
        return None

    def versions(self, project: int) -> list[Version]:
        """As `Registry.versions`; their files may not be here, `version` brings them."""
        given = {version.name for version in self.given}
        while True:
            record = self._record(project)
            try:
                own = [self._listed(project, record, name) for name in record.versions if name not in given]
            except RegistryError:
                # Else some of them were pruned meanwhile.
                if self._known(project) == record:
                    raise
            else:
                return [*self.given, *own]

    def read(self, project: int) -> ProjectVersions:
        """As `Registry.read`; the files of the version in production and of that to learn from are here."""
        while True:
            versions = super().read(project)
            needed = [versions.current, versions.start]
            absent = [version for version in needed if not self._is_here(project, version)]
            if not absent:
                return versions
            for version in absent:
                self._cache.fetch(project, version.name, self._entry(project, version.name))

    def projects(self) -> list[int]:
        """As `Registry.projects`."""
        return [project for project in super().projects() if (self._folder(project) / _RECORD).exists()]

    def add(self, project: int, checkpoint_folder: Path, card: Mapping[str, Any]) -> Version:
        """As `Registry.add`, for all hosts. Raises StoreError."""
        name = checkpoint_files.version(checkpoint_folder)
        for version in self.given:
            if name == version.name:
                return version
        self._share(project, name, checkpoint_folder, card)
        return self._version(project, name)

    def promote(self, project: int, name: str, instead_of: str | None = None) -> Version:
        """As `Registry.promote`, for all hosts. Raises StoreError, after which it may have happened or not."""

        def move(record: Record) -> Record:
            if not self._names(record, name):
                names = ", ".join([*(version.name for version in self.given), *record.versions])
                raise NotFound(f"Project {project} has no version {name}. It has {names}.")
            if name in record.versions:
                # What nobody can fetch mustn't serve.
                self._cache.fetch(project, name, record.versions[name])
            pointer = self._pointer(record)
            moved = promoted(project, pointer, name, instead_of)
            return record if moved == pointer else replace(record, pointer=moved)

        self._keep_given(project, name)
        self._change(project, move)
        return self._version(project, name)

    def rollback(self, project: int, instead_of: str | None = None) -> Version:
        """As `Registry.rollback`, for all hosts. Raises StoreError, after which it may have happened or not."""

        def move(record: Record) -> Record:
            pointer = self._pointer(record)
            return replace(
                record, pointer=rolled_back(project, pointer, lambda name: self._names(record, name), instead_of)
            )

        moved = self._change(project, move).pointer
        assert moved
        return self._version(project, moved.version)

    def prune(self, project: int, keep: int, in_use: Collection[str] = ()) -> list[Version]:
        """As `Registry.prune`, for all hosts. Raises StoreError."""
        gone: list[Version] = []
        uploads: set[tuple[str, str]] = set()

        def forget(record: Record) -> Record:
            self._mirror(project, record)
            # Whoever promotes one of these at this moment changes the record, and this begins anew.
            gone[:] = self.prunable(project, keep, in_use)
            names = {version.name for version in gone}
            uploads.clear()
            uploads.update((name, record.versions[name].upload) for name in names)
            left = {name: entry for name, entry in record.versions.items() if name not in names}
            return replace(record, versions=left) if names else record

        record = self._change(project, forget)
        self._delete_unnamed(project, record, uploads)
        if self._state:
            snapshots = {str(version.card.get("snapshot")) for version in self.versions(project)}
            self._state.prune(project, snapshots)
        return gone

    @contextmanager
    def learning(
        self, project: int, refusal: str | None = None, waiting: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """As `Registry.learning`, among all hosts."""
        with ExitStack() as stack:
            stack.enter_context(super().learning(project, refusal, waiting))
            if self._turns:
                stack.enter_context(self._turns.hold(project, refusal, waiting))
            # What another learner did last has to be known here.
            self._asked.pop(project, None)
            yield

    @contextmanager
    def learning_state(self, project: int) -> Iterator[None]:
        """As `Registry.learning_state`. Raises StoreError at its begin; at its end that is only logged."""
        if self._state is None:
            yield
            return
        cards = [version.card for version in self.versions(project)]
        self._state.fetch(project, next((card["snapshot"] for card in reversed(cards) if card.get("snapshot")), None))
        try:
            yield
        finally:
            try:
                self._state.keep(project)
            except StoreError as error:
                # The next learner of this host puts it there.
                _log.warning("What learning in project %s goes by isn't in the store yet: %s", project, error)

    def pull(self, project: int) -> None:
        """Bring what the store says of a project here. Raises StoreError, StoreDamaged."""
        while (record := self._latest(project)) != Record():
            try:
                self._mirror(project, record)
            except StoreDamaged:
                # Else what it names was pruned meanwhile.
                if self._latest(project) == record:
                    raise
            else:
                return

    def is_whole(self, project: int) -> bool:
        """Whether the version that serves, as far as is known here, is here."""
        record = self._known(project)
        name = self._pointer(record).version
        return name not in record.versions or self._cache.has(project, name)

    def changed(self, seen: Mapping[int, str]) -> dict[int, str]:
        """The projects whose records are others than those `seen`, as this returned them. Raises StoreError."""
        listed = {project_of(name): about.tag for name, about in self.bucket.list(RECORDS).items()}
        return {project: tag for project, tag in listed.items() if project and seen.get(project) != tag}

    def _record(self, project: int) -> Record:
        """What is known of a project. Raises StoreError if nothing is, and the store doesn't answer."""
        if self._asks and time.monotonic() - self._asked.get(project, -FRESH_SECONDS) >= FRESH_SECONDS:
            self._ask(project)
        record = self._known(project)
        if record == Record() and self._follower and not self._follower.has_begun:
            raise StoreError(self._follower.trouble or f"The store {self.bucket.address} hasn't answered yet.")
        return record

    def _ask(self, project: int) -> None:
        try:
            self.pull(project)
        except (StoreError, StoreDamaged) as error:
            self._failing = str(error)
            # What every project starts at is no answer here: this one may have learnt long ago.
            if self._known(project) == Record():
                raise
            _log.warning("Project %s goes on with what is known here: %s", project, error)
        else:
            self._failing = None
        self._asked[project] = time.monotonic()

    def _known(self, project: int) -> Record:
        path = self._folder(project) / _RECORD
        try:
            return parse_record(path.read_bytes(), str(path))
        except FileNotFoundError:
            return Record()
        except StoreDamaged:
            raise RegistryError(f"{path} is damaged. Delete it: it is fetched anew.") from None

    def _change(self, project: int, change: Callable[[Record], Record]) -> Record:
        """Replace a project's record by what `change` makes of it -> what is there then. Raises what `change` does."""
        if not self._checked:
            check_conditions(self.bucket)
            self._checked = True
        for attempt in range(_TRIES):
            stored = self.bucket.read(record_name(project))
            before = self._parsed(project, stored)
            try:
                after = change(before)
            except StoreDamaged:
                # Else what it looked for was pruned meanwhile.
                if self._latest(project) == before:
                    raise
                continue
            if after == before:
                return self._mirror(project, before)
            after = after.next()
            try:
                self.bucket.swap(record_name(project), after.as_bytes(), stored)
            except Changed:
                # The answer to our own write may have been lost, and it was sent again.
                if self._latest(project).change == after.change:
                    return self._mirror(project, after)
                time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
            else:
                return self._mirror(project, after)
        raise StoreError(f"Project {project} is being changed by others all the time. Nothing was done; try again.")

    def _mirror(self, project: int, record: Record) -> Record:
        """Make a record the one that is known here, once what it needs is here. Raises StoreError, StoreDamaged."""
        path = self._folder(project) / _RECORD
        with exclusive(self._folder(project) / "writing.lock"):
            for name, entry in record.versions.items():
                self._cache.fetch_card(project, name, entry)
            serving = record.versions.get(record.pointer.version) if record.pointer else None
            if record.pointer and serving:
                self._cache.fetch(project, record.pointer.version, serving)
            known = self._known(project)
            if known.revision < record.revision:
                atomic_write(path, record.as_bytes())
            elif known != record and known.revision == record.revision:
                raise StoreDamaged(
                    f"{path} and {self._address(project)} are two histories of the project. If the store was put back "
                    f"to an earlier state, delete {path}."
                )
            self._cache.evict(project, record if known.revision <= record.revision else known)
        return record

    def _share(self, project: int, name: str, checkpoint_folder: Path, card: Mapping[str, Any]) -> None:
        if name in self._latest(project).versions:
            return
        with TemporaryDirectory(dir=self._cache.arriving(), prefix="sharing.") as temporary:
            folder = Path(temporary) / name
            write_version(folder, checkpoint_folder, card)
            files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
            entry = Entry(secrets.token_hex(8), files)
            for file in files:
                self.bucket.upload(f"{upload_prefix(project, name, entry)}/{file}", folder / file)
            record = self._change(project, lambda record: record.with_version(name, entry))
            if record.versions[name] != entry:
                # Another host was first; the weights are the same.
                self._delete_files(project, name, entry)

    def _latest(self, project: int) -> Record:
        return self._parsed(project, self.bucket.read(record_name(project)))

    def _parsed(self, project: int, stored: Stored | None) -> Record:
        return parse_record(stored.data, self._address(project)) if stored else Record()

    def _keep_given(self, project: int, name: str) -> None:
        # What the settings name today they needn't name tomorrow, and a zero-shot segmenter is a few hundred bytes.
        for version in self.given:
            is_named = version.name in (name, self.pointer(project).version)
            if is_named and checkpoint_files.is_zero_shot(version.folder):
                self._share(project, version.name, version.folder, version.card)

    def _pointer(self, record: Record) -> Pointer:
        return record.pointer or Pointer(self.base.name, served=(self.base.name,))

    def _names(self, record: Record, name: str) -> bool:
        return name in record.versions or any(name == version.name for version in self.given)

    def _entry(self, project: int, name: str) -> Entry:
        entry = self._record(project).versions.get(name)
        if entry is None:
            raise missing(project, name, self.base)
        return entry

    def _version(self, project: int, name: str) -> Version:
        for version in self.given:
            if name == version.name:
                return version
        entry = self._entry(project, name)
        if self._asks:
            self._cache.fetch(project, name, entry)
        return self._listed(project, self._record(project), name)

    def _is_here(self, project: int, version: Version) -> bool:
        return version in self.given or version.folder == self._versions(project) / version.name

    def _is_there(self, project: int, name: str) -> bool:
        return self._names(self._record(project), name)

    def _listed(self, project: int, record: Record, name: str) -> Version:
        """As `VersionCache.listed`. Raises RegistryError."""
        for version in self.given:
            if name == version.name:
                return version
        if name not in record.versions:
            raise missing(project, name, self.base)
        try:
            return self._cache.listed(project, name, record.versions[name])
        except FileNotFoundError:
            # It was pruned since the record was read.
            raise missing(project, name, self.base) from None

    def _delete_unnamed(self, project: int, record: Record, gone: Collection[tuple[str, str]]) -> None:
        """Delete what no record names: the uploads that are `gone`, by version, and what killed writers left."""
        prefix, old = versions_prefix(project), datetime.now(UTC) - timedelta(seconds=_UPLOAD_SECONDS)
        for address, about in self.bucket.list(prefix).items():
            name, _, rest = address.removeprefix(f"{prefix}/").partition("/")
            entry, upload = record.versions.get(name), rest.partition("/")[0]
            is_named = entry is not None and entry.upload == upload
            if (name, upload) in gone or (about.written < old and not is_named):
                self.bucket.delete(address)

    def _delete_files(self, project: int, name: str, entry: Entry) -> None:
        for file in entry.files:
            self.bucket.delete(f"{upload_prefix(project, name, entry)}/{file}")

    def _address(self, project: int) -> str:
        return f"{self.bucket.address}/{record_name(project)}"
