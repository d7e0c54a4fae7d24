"""Whether this process's job should stop: its worker says so over a pipe, and whoever works in steps asks.

A signal would be lost between the job's fork and its first line; what is in a pipe waits there. The pipe also ties the
process to its worker: it ends when the worker is gone, however that went. Knows nothing of what jobs do.
"""

import os
import signal
import threading

STOP = b"stop"


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
