"""Job functions for the tests of the worker, and a worker that is allowed them. Run: `python jobs_under_test.py`.

Each leaves its traces in files below TRACES, one a call.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from redis import Redis
from rq.job import get_current_job

from backend.jobs.worker import work
from backend.queue.allow_list import GuardedJob
from backend.queue.cancellation import JobStopped, Turn
from backend.queue.queue import connect, min_new_of
from backend.settings import Settings
from ris_core.errors import DatasetError

TRACES = Path(os.environ.get("TRACES", "."))
NAMES = ("add", "fail", "crash", "hold", "hold_once", "pause", "get_on", "grow", "turn", "trigger")


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


def pause() -> str:
    """Runs until it is asked to stop, and ends when the file `go` is there."""
    _leave("pause")
    job = get_current_job()
    assert isinstance(job, GuardedJob)
    while not (TRACES / "go").exists():
        if job.should_stop():
            raise JobStopped
        time.sleep(0.02)
    return "done"


def get_on(tries: int) -> str:
    """Is killed each time, a little further on, and is done at last."""
    _leave("get_on")
    times = len(list(TRACES.glob("get_on.*")))
    from backend.jobs.functions import JobProgress

    JobProgress(get_current_job(), ["reading", "training"])("training", times / 100)
    if times < tries:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def grow(mebibytes: int | None, photos: int) -> None:
    """Takes as much memory as it gets, up to 300 MiB more."""
    from backend.jobs.functions import memory_explained

    _leave("grow")
    settings = Settings(finetune_memory=mebibytes, finetune_photos=photos)
    with memory_explained(settings, get_current_job()):
        hoard = []
        for _ in range(30):
            hoard.append(b"x" * (10 << 20))
            time.sleep(0.05)
    raise DatasetError("It got all that it wanted.")


def turn() -> bool:
    """Whether a runner of a batch would make room at this moment."""
    job = get_current_job()
    assert isinstance(job, GuardedJob)
    return Turn(job.connection, job.worker_name, job.should_stop)()


def trigger(project: int) -> None:
    """Stands for learning; says which job it is before it reads anything."""
    job = get_current_job()
    assert job is not None
    job.connection.hset(job.key, "heard", str(min_new_of(job)))
    _leave("trigger")
    _wait_for(TRACES / "go")


def _leave(name: str) -> None:
    (TRACES / f"{name}.{os.getpid()}.{time.monotonic_ns()}").touch()


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    connection: Redis = connect(os.environ["QUEUE"], patient=True)
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    work(connection, TestedJob, burst="--burst" in sys.argv, only=only)
