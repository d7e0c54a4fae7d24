"""One learner a project among all hosts: a lock in Valkey, renewed while its holder lives. Knows no model."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis import Redis
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from backend.errors import Unavailable

_log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.5


class Turns:
    """The locks. After the death of a holder's host its project is free once LEASE_SECONDS are over."""

    def __init__(self, connection: Redis, lease: float = LEASE_SECONDS) -> None:
        self._connection, self._lease = connection, lease

    @contextmanager
    def hold(
        self, project: int, refusal: str | None = None, waiting: Callable[[], object] | None = None
    ) -> Iterator[None]:
        """Hold a project's lock; the parameters are those of `locks.exclusive`. Raises Unavailable as that does."""
        lock: Lock = self._connection.lock(f"ris:learner:{int(project)}", timeout=self._lease, thread_local=False)
        while not lock.acquire(blocking=False):
            if refusal:
                raise Unavailable(refusal)
            if waiting:
                waiting()
            time.sleep(_POLL_SECONDS)
        over = threading.Event()
        thread = threading.Thread(target=self._renew, args=(project, lock, over), name="turn", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            # It may have run out, and runs out by itself where Valkey is away.
            with suppress(LockError, RedisError):
                lock.release()

    def _renew(self, project: int, lock: Lock, over: threading.Event) -> None:
        while not over.wait(self._lease / 4):
            try:
                lock.reacquire()
            except LockError:
                # Promotions exclude each other without it: what two learners cost is work.
                _log.warning("Project %s may be learnt on another host too: Valkey forgot that it is here.", project)
                return
            except RedisError as error:
                _log.warning("Valkey doesn't answer while project %s is learnt: %s", project, error)
