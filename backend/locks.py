"""Locks between processes of one machine. The kernel frees them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import Unavailable

_LOOK_SECONDS = 0.5


@contextmanager
def exclusive(path: Path, refusal: str | None = None, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock that `path` stands for, waiting as long as it takes. Threads exclude each other too.

    waiting: is called again and again while somebody else holds it; what it raises ends the wait.
    Raises Unavailable instead of waiting if there is a `refusal`, the sentence to say so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _lock(descriptor, wait=not (refusal or waiting)):
            if refusal:
                raise Unavailable(refusal)
            if waiting:
                waiting()
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        # Closing frees the lock; the file stays, for a lock on a removed file excludes nobody.
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
