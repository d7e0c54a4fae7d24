"""Wait for the end of a job."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from backend.errors import BackendError, NotFound
from backend.queue.queue import JobQueue

_POLL_SECONDS = 0.3
_ENDED = ("finished", "failed", "stopped", "canceled")


class JobFailed(BackendError, code="job_failed"):
    """A job came to an end without a result."""


def wait(jobs: JobQueue, job: str, on_progress: Callable[[str, float], object]) -> dict[str, Any]:
    """The result of a job, once it has one. `on_progress` hears its stage and the share, 0 to 1, that is done.

    Raises:
        JobFailed: it ended without one.
        NotFound: there is no such job, or its result has expired.
        Unavailable: Valkey can't be reached.
    """
    while (state := jobs.describe(job))["status"] not in _ENDED:
        if state["progress"]:
            on_progress(state["progress"]["stage"], state["progress"]["share"])
        time.sleep(_POLL_SECONDS)
    return _result(job, state)


def _result(job: str, state: Mapping[str, Any]) -> dict[str, Any]:
    if state["status"] != "finished":
        error = state["error"] or {}
        raise JobFailed(f"Job {job} {state['status']}. {error.get('message', 'Its log says why.')}")
    if not isinstance(state["result"], dict):
        raise NotFound(f"Job {job} has finished, but its result has expired.")
    return state["result"]
