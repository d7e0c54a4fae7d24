"""Job functions for the tests of the worker, and a worker that is allowed them. Run: `python jobs_under_test.py`.

Each leaves its traces in files below TRACES, one a call.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from redis import Redis
from rq.job import get_current_job

from backend.jobs.guard import GuardedJob
from backend.jobs.queue import connect
from backend.jobs.worker import work
from ris_core.errors import DatasetError

TRACES = Path(os.environ.get("TRACES", "."))
NAMES = ("add", "fail", "crash", "hold", "hold_once", "trigger")


class TestedJob(GuardedJob):
    __test__ = False
    allowed = frozenset(f"jobs_under_test.{name}" for name in NAMES)


def add(first: int, second: int) -> dict[str, int]:
    _leave("add")
    return {"sum": first + second}


def fail() -> None:
    _leave("fail")
    raise DatasetError("Project 7 has no picture left. Upload some.")


def crash() -> None:
    _leave("crash")
    os.kill(os.getpid(), 9)


def hold() -> None:
    """Runs until somebody writes the file `go`."""
    _leave("hold")
    _wait_for(TRACES / "go")
    _leave("held")


def hold_once() -> str:
    """Runs for ever the first time."""
    _leave("hold_once")
    if len(list(TRACES.glob("hold_once.*"))) == 1:
        _wait_for(TRACES / "never")
    return "done"


def trigger(project: int) -> None:
    """Stands for learning; says which job it is before it reads anything."""
    job = get_current_job()
    assert job is not None
    _leave("trigger")
    _wait_for(TRACES / "go")


def _leave(name: str) -> None:
    (TRACES / f"{name}.{os.getpid()}.{time.monotonic_ns()}").touch()


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    connection: Redis = connect(os.environ["QUEUE"], patient=True)
    work(connection, TestedJob, burst="--burst" in sys.argv)
