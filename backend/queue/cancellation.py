"""Whether this process's job should stop, or make room for others: whoever works in steps asks.

A worker says over a pipe that its job is to stop: a signal would be lost between the job's fork and its first line,
what is in a pipe waits there. The pipe also ties the process to its worker: it ends when the worker is gone, however
that went. Knows nothing of what jobs do.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

from redis import Redis
from rq import Worker

from backend.queue.names import NAME, TRAINING
from backend.queue.queue import open_queue

STOP = b"stop"
# A runner works this long, or until a job waits that its worker would do first; then it is the turn of that.
SLICE_SECONDS = 300.0
_POLL_SECONDS = 1.0


class JobStopped(Exception):
    """The job has stopped since its worker does, and what it did is kept: it goes back into its queue."""


class Cancellation:
    """Called, says whether to stop as soon as what was done is saved.

    From its making on it hears what is written to the other end of a pipe, and kills this process group when that is
    closed.
    """

    def __init__(self, reader: int) -> None:
        self._requested = threading.Event()
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()

    def __call__(self) -> bool:
        return self._requested.is_set()

    def _listen(self, reader: int) -> None:
        while os.read(reader, len(STOP)):
            self._requested.set()
        os.killpg(0, signal.SIGKILL)


class Turn:
    """Called, says whether it is over: its time is, others wait for the same worker, or the job is to stop.

    worker: the name of the worker that runs the job; None outside of one.
    """

    def __init__(self, connection: Redis, worker: str | None, should_stop: Callable[[], bool]) -> None:
        self._end = time.monotonic() + SLICE_SECONDS
        self._first = [
            open_queue(connection, name=name) for name in _served(connection, worker) if name in (NAME, TRAINING)
        ]
        self._should_stop = should_stop
        self._polled, self._is_over = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._is_over and now - self._polled >= _POLL_SECONDS:
            self._polled = now
            self._is_over = now >= self._end or any(queue.count for queue in self._first)
        return self._is_over or self._should_stop()


def _served(connection: Redis, worker: str | None) -> list[str]:
    """The queues of a worker."""
    names = connection.hget(f"{Worker.redis_worker_namespace_prefix}{worker}", "queues")
    return names.decode().split(",") if isinstance(names, bytes) else []
