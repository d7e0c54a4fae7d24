"""What a runner holds: the chunks that it claimed; and how it tries again. Knows no task and no model."""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from redis.exceptions import RedisError

from backend.batches.store import CLOSING, LEASE_SECONDS, BatchStore, Chunk
from backend.errors import LabelStudioError, LabelStudioNotFound, LabelStudioRefused

_log = logging.getLogger(__name__)

# How long a chunk stays out of reach when its runner dies in an import: as long as Label Studio takes for most of them.
# While the runner lives, it renews the lease for as long as it waits for the answer.
WRITING_SECONDS = 30.0
# Seconds between two attempts.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0

T = TypeVar("T")


class RunnerStopped(Exception):
    """It is others' turn, or the batch has ended: what isn't written is given back."""


class Leases:
    """The chunks that this runner holds; a thread renews them. `over` is set when the batch has ended.

    stop: says whether it is others' turn.
    """

    def __init__(self, batch: str, batches: BatchStore, stop: Callable[[], bool] = lambda: False) -> None:
        self.over = threading.Event()
        self._batch, self._batches, self._stop = batch, batches, stop
        self._owner = secrets.token_hex(8)
        self._held: set[str] = set()
        self._closed = threading.Event()

    def claim(self) -> Chunk | None:
        """A chunk of the batch, see `BatchStore.claim`; renewed from now on. Raises BatchEnded."""
        chunk = self._batches.claim(self._batch, self._owner)
        if chunk:
            self._held.add(chunk.name)
        return chunk

    def begin(self, chunk: str) -> bool:
        """Keep a chunk for the time of a request to Label Studio. False: it isn't ours any more."""
        return self._batches.begin(self._batch, self._owner, chunk, WRITING_SECONDS)

    def finish(self, chunk: str, done: int, skipped: int, failed: Mapping[int, str]) -> bool:
        """Hand a chunk in. False: it isn't ours any more."""
        self._held.discard(chunk)
        return self._batches.finish(self._batch, self._owner, chunk, done, skipped, dict(failed))

    def close(self, missing: Sequence[int], failed: Mapping[int, str]) -> None:
        """Hand the closing in: tasks have failed for good, or are `missing` and queued again, or all is done."""
        self._held.discard(CLOSING)
        if failed:
            self._batches.finish(self._batch, self._owner, CLOSING, -len(failed), 0, dict(failed))
        else:
            self._batches.close(self._batch, self._owner, missing)

    def give_up(self, chunk: str, at_once: bool = True) -> None:
        """Let others have a chunk, see `BatchStore.release`."""
        self._held.discard(chunk)
        self._batches.release(self._batch, self._owner, chunk, at_once)

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew while this is open; what is still held at its end is given back."""
        thread = threading.Thread(target=self._renew, name="leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join()
            with suppress(RedisError):
                for chunk in list(self._held):
                    self.give_up(chunk)

    def _renew(self) -> None:
        while not self._closed.wait(LEASE_SECONDS / 4):
            # Valkey may be back before the leases have run out; if not, somebody else claims the chunks.
            with suppress(RedisError):
                if not self._batches.renew(self._batch, self._owner, list(self._held)):
                    self.over.set()

    def retry(self, call: Callable[[], T]) -> T:
        """Try again what Label Studio can't do at the moment, for as long as the batch runs.

        Returns what `call` does in the end. Raises what is refused for good, or RunnerStopped.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                return call()
            except (LabelStudioNotFound, LabelStudioRefused):
                raise
            except LabelStudioError as error:
                _log.warning("Batch %s waits. %s", self._batch, error)
                self._batches.note(self._batch, f"Waiting: {error}")
            self.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def wait(self, seconds: float = 0) -> None:
        """Wait so long. Raises RunnerStopped as soon as the batch has ended or it is others' turn."""
        if self.over.wait(seconds) or self._stop():
            raise RunnerStopped
