"""`ris finetune` and `export`: wait for the worker's job, then say what came of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from backend.queue.queue import JobQueue

Run = Callable[..., tuple[int, str, str]]
OUTCOME = {
    "decision": "promoted",
    "reason": "It is better.",
    "expressions": [{"task": 5, "prompt": "the [/red] cat", "before": 0.5, "after": 0.75}],
}
REPORT = {"images": 2, "annotations": 3, "refs": 4, "skipped": [{"task": 9, "reason": "Its picture is gone."}]}


@pytest.fixture
def worker(
    redis: Redis, redis_url: str, tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractContextManager[None]]:
    """While it is open, the next job comes to its end with this result, or fails with this message."""
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    monkeypatch.setenv("RIS_HOME", str(tmp_path))

    def end(result: object, message: str) -> None:
        while not (waiting := JobQueue(redis).recent()):
            time.sleep(0.02)
        job = Job.fetch(waiting[0]["id"], redis, JSONSerializer)
        if message:
            job.meta["error"] = {"message": message}
            job.save_meta()
        else:
            Result.create(job, Result.Type.SUCCESSFUL, ttl=60, return_value=result)
        job.set_status(JobStatus.FAILED if message else JobStatus.FINISHED)

    @contextmanager
    def at_work(result: object = None, message: str = "") -> Iterator[None]:
        thread = threading.Thread(target=end, args=(result, message))
        thread.start()
        yield
        thread.join()
        redis.flushall()

    return at_work


def test_learning_says_what_it_came_to(worker: Callable[..., AbstractContextManager[None]], run_ris: Run) -> None:
    with worker(OUTCOME):
        code, printed, _ = run_ris("finetune", "--project", "7")
    assert code == 0
    assert printed.startswith("promoted: It is better.\n")
    for cell in ("5", "the [/red] cat", "0.50", "0.75"):
        assert cell in printed
    with worker(OUTCOME):
        assert json.loads(run_ris("finetune", "--project", "7", "--json")[1]) == OUTCOME


def test_an_export_says_where_it_is_and_what_was_left_out(
    worker: Callable[..., AbstractContextManager[None]], run_ris: Run, tmp_path: Path
) -> None:
    with worker(REPORT):
        code, printed, _ = run_ris("export", "--project", "7")
    assert (code, printed.splitlines()) == (
        0,
        [
            f"2 images, 3 masks, 4 expressions in {tmp_path / 'exports' / 'project-7-coco'}",
            "Left out: task 9. Its picture is gone.",
        ],
    )
    with worker(REPORT):
        assert json.loads(run_ris("export", "--project", "7", "--name", "mine", "--json")[1]) == REPORT


def test_a_job_that_fails_says_why(worker: Callable[..., AbstractContextManager[None]], run_ris: Run) -> None:
    with worker(message="Memory ran out."):
        code, printed, error = run_ris("finetune", "--project", "7")
    assert (code, printed) == (1, "")
    assert error.endswith("failed. Memory ran out.\n")
