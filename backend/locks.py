"""Locks between processes of one machine. The kernel frees them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import Unavailable


@contextmanager
def exclusive(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock that `path` stands for, waiting as long as it takes. Threads exclude each other too.

    Raises Unavailable instead of waiting if there is a `refusal`, the sentence to say so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise Unavailable(str(refusal)) from None
        yield
    finally:
        # Closing frees the lock; the file stays, for a lock on a removed file excludes nobody.
        os.close(descriptor)
