"""Keeps a home up to date with its store, in a thread: requests never wait for one. Knows neither HTTP nor models."""

import logging
import threading
from datetime import UTC, datetime

from backend.store.bucket import StoreDamaged, StoreError
from backend.store.versions import SharedRegistry

_log = logging.getLogger(__name__)

FOLLOW_SECONDS = 5.0


class StoreFollower:
    """Asks the store every FOLLOW_SECONDS what has changed: one listing, and what of it is new."""

    def __init__(self, registry: SharedRegistry, seconds: float = FOLLOW_SECONDS) -> None:
        """registry: one that asks the store itself."""
        self._registry, self._seconds = registry, seconds
        self._seen: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="store", daemon=True)
        self._silent_since: datetime | None = None
        self._failures: dict[int, str] = {}
        self._said: str | None = None
        self.has_begun = False

    @property
    def trouble(self) -> str | None:
        """What keeps this home from being up to date; None where nothing does."""
        if self._silent_since:
            return f"{self._said} Since {self._silent_since:%H:%M:%S} UTC what was known then is served."
        return " ".join(self._failures.values()) or None

    def start(self) -> None:
        """Look once, now, then again and again in the background."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        """Bring here what has changed since the last look; what fails is tried again at the next."""
        try:
            changed = self._registry.changed(self._seen)
        except StoreError as error:
            self._note_silence(str(error))
            return
        self._note_answer()
        # What failed, and what somebody deleted here, may be had without a change of the record.
        torn = {project for project in self._registry.projects() if not self._registry.is_whole(project)}
        for project in sorted({*changed, *torn, *self._failures}):
            self._pull(project)
            if project in changed:
                self._seen[project] = changed[project]
        self.has_begun = True

    def _pull(self, project: int) -> None:
        try:
            self._registry.pull(project)
        except (StoreError, StoreDamaged, OSError) as error:
            if self._failures.get(project) != str(error):
                _log.warning("Project %s isn't up to date with the store: %s", project, error)
            self._failures[project] = str(error)
        else:
            if self._failures.pop(project, None):
                _log.info("Project %s is up to date with the store again.", project)

    def _note_silence(self, said: str) -> None:
        if self._said != said:
            _log.warning("%s What is known here is served.", said)
        self._said, self._silent_since = said, self._silent_since or datetime.now(UTC)

    def _note_answer(self) -> None:
        if self._silent_since:
            _log.info("The store answers again.")
        self._said = self._silent_since = None

    def _follow(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a mistake in one look mustn't end the others
                _log.exception("The store couldn't be followed.")
