"""`ris jobs` and `job` on a real Valkey: what waits, runs and has ended, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from backend.batches.service import BatchService
from backend.batches.store import BatchSpec, BatchStore
from backend.queue.queue import JobQueue

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def queue(redis: Redis, redis_url: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> JobQueue:
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    return JobQueue(redis)


@pytest.fixture
def mark(redis: Redis) -> Callable[..., None]:
    """Give a job the record that a worker leaves in it."""

    def write(name: str, status: JobStatus, result: object = None, **meta: object) -> None:
        job = Job.fetch(name, redis, JSONSerializer)
        job.meta.update(meta)
        job.save_meta()
        job.set_status(status)
        if result is not None:
            Result.create(job, Result.Type.SUCCESSFUL, ttl=60, return_value=result)

    return write


def test_batches_and_jobs_are_listed(queue: JobQueue, redis: Redis, run_ris: Run) -> None:
    batch = BatchService(redis, queue).submit(BatchSpec(3, "lda-1", "lda-1.a"), range(1, 6))
    BatchStore(redis).note(batch.id, "Waits for [/data].")
    listed = json.loads(run_ris("jobs", "--json")[1])
    assert [(row["id"], row["state"], row["total"]) for row in listed["batches"]] == [(batch.id, "running", 5)]
    [job] = listed["jobs"]
    assert (job["function"], job["status"], job["arguments"]) == ("prelabel", "queued", [batch.id])
    assert listed["workers"] == {"training": 0, "batches": 0}
    code, printed, _ = run_ris("jobs")
    assert code == 0
    assert f"prelabel-{batch.id}" in printed
    assert "0:00 ago" in printed
    assert "Waits for [/data]." in printed
    assert "Workers: 0 for training, 0 for batches." in printed


def test_what_was_left_out_is_listed_as_json(queue: JobQueue, redis: Redis, run_ris: Run) -> None:
    batches = BatchStore(redis)
    batch = BatchService(redis, queue).submit(BatchSpec(3, "lda-1", "lda-1.a"), [2])
    chunk = batches.claim(batch.id, "me")
    assert chunk is not None
    batches.finish(batch.id, "me", chunk.name, failed={2: "Its picture is gone."})
    [listed] = json.loads(run_ris("jobs", "--json")[1])["batches"]
    assert listed["reasons"] == {"2": "Its picture is gone."}


def test_a_job_that_waits_and_one_that_runs(queue: JobQueue, mark: Callable[..., None], run_ris: Run) -> None:
    job = queue.learn(7).job
    code, printed, _ = run_ris("job", job)
    assert code == 0
    what, how, when = printed.splitlines()
    assert what == f"Job {job} learns from the corrections of project 7."
    assert how == "It waits for a worker."
    assert when.startswith("It was queued 20") and when.endswith(" UTC.")
    mark(job, JobStatus.STARTED, progress={"stage": "training", "share": 0.45})
    assert "It runs: training, 45% done.\n" in run_ris("job", job)[1]


@pytest.mark.parametrize(
    ("order", "result", "what", "sentence"),
    [
        (
            lambda queue: queue.learn(7),
            {"decision": "promoted", "reason": "It is better."},
            "learns from the corrections of project 7",
            "promoted: It is better.",
        ),
        (
            lambda queue: queue.export(7, "coco", "mine"),
            {"images": 2, "annotations": 3, "refs": 4, "out": "/home/exports/mine"},
            "exports project 7 as coco to mine",
            "2 images, 3 masks, 4 expressions in /home/exports/mine.",
        ),
        (
            lambda queue: queue.prelabel("ab12"),
            {"batch": "ab12", "chunks": 1, "tasks": 8, "seconds": 2.4},
            "works on batch ab12",
            "8 tasks in 2 s.",
        ),
        (
            lambda queue: queue.refresh(7),
            {"state": "running"},
            "looks whether project 7 is to be predicted anew",
            "Predictions: running.",
        ),
    ],
    ids=["learn", "export", "prelabel", "refresh"],
)
def test_what_came_of_a_job(
    queue: JobQueue,
    mark: Callable[..., None],
    run_ris: Run,
    order: Callable[[JobQueue], Any],
    result: dict[str, object],
    what: str,
    sentence: str,
) -> None:
    job = order(queue).job
    mark(job, JobStatus.FINISHED, result)
    lines = run_ris("job", job)[1].splitlines()
    assert lines[:2] == [f"Job {job} {what}.", "It has finished."]
    assert lines[-1] == sentence


def test_a_job_that_failed_says_why(queue: JobQueue, mark: Callable[..., None], run_ris: Run) -> None:
    job = queue.learn(7).job
    mark(job, JobStatus.FAILED, error={"code": "out_of_memory", "message": "Memory ran out [while] learning."})
    lines = run_ris("job", job)[1].splitlines()
    assert (lines[1], lines[-1]) == ("It has failed.", "Memory ran out [while] learning.")


def test_a_job_as_json(queue: JobQueue, mark: Callable[..., None], run_ris: Run) -> None:
    job = queue.export(7, "coco", "mine").job
    code, printed, _ = run_ris("job", job, "--json")
    assert (code, json.loads(printed)) == (0, queue.describe(job))


def test_a_job_that_is_none_of_ours(queue: JobQueue, redis: Redis, run_ris: Run) -> None:
    foreign = Job.create("os.system", args=("true",), connection=redis, serializer=JSONSerializer)
    foreign.save()
    foreign.set_status(JobStatus.QUEUED)
    code, printed, _ = run_ris("job", foreign.id)
    assert (code, printed.splitlines()[0]) == (0, f"Job {foreign.id} is none of ours, and isn't run.")


def test_a_job_that_is_not_there(queue: JobQueue, run_ris: Run) -> None:
    code, printed, error = run_ris("job", "nowhere")
    assert (code, printed) == (1, "")
    assert error.startswith("ris: There is no job 'nowhere'")
