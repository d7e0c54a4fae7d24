"""Locks between processes of one machine. The kernel frees them when their holder dies, however it dies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from backend.errors import Unavailable

# What is held for moments is waited for closely, a learning of minutes isn't.
_POLL_SECONDS, _CALLBACK_SECONDS = 0.02, 0.5


@contextmanager
def exclusive(path: Path, refusal: str | None = None, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock that `path` stands for, waiting as long as it takes. Threads exclude each other too.

    waiting: is called again and again while somebody else holds it; what it raises ends the wait.
    Raises Unavailable instead of waiting if there is a `refusal`, the sentence to say so.
    """

    def is_given_up() -> bool:
        if waiting:
            waiting()
        return False

    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = _CALLBACK_SECONDS if waiting else _POLL_SECONDS
    # The file stays: a lock on one that was removed excludes nobody. One thread may take the lock, another release it.
    lock = FileLock(path, preserve_lock_file=True, thread_local=False, poll_interval=seconds)
    try:
        lock.acquire(blocking=not refusal, cancel_check=is_given_up)
    except Timeout:
        raise Unavailable(str(refusal)) from None
    try:
        yield
    finally:
        lock.release()
