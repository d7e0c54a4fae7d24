"""Whether this process' job should stop: its worker says so over a pipe, and whoever works in steps asks `asked()`.

A signal would be lost between the job's fork and its first line; what is in a pipe waits there. The pipe also ties the
process to its worker: it ends when the worker is gone, however that went. Knows nothing of what jobs do.
"""

from __future__ import annotations

import os
import signal
import threading

STOP = b"stop"
_asked = threading.Event()


class JobStopped(Exception):
    """The job has stopped since its worker does, and what it did is kept: it goes back into its queue."""


def asked() -> bool:
    """Whether the job should stop as soon as it has saved what it did."""
    return _asked.is_set()


def listen(reader: int) -> None:
    """From now on hear what is written to the other end of a pipe, and kill this process group when that is closed."""
    threading.Thread(target=_hear, args=(reader,), daemon=True).start()


def _hear(reader: int) -> None:
    while os.read(reader, len(STOP)):
        _asked.set()
    os.killpg(0, signal.SIGKILL)
