"""`ris jobs`, `job`, `finetune` and `export` on a real Valkey: what waits, runs and has ended, in words and as JSON."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from backend.batches.service import BatchService
from backend.batches.store import BatchSpec, BatchStore
from backend.cli import exports
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.selection import POLICIES
from backend.queue.allow_list import GuardedJob
from backend.queue.queue import JobQueue
from backend.queue.signature import Signer
from backend.terminal import out

Run = Callable[..., tuple[int, str, str]]
OUTCOME = {
    "decision": "promoted",
    "reason": "It is better.",
    "expressions": [{"task": 5, "prompt": "the [/red] cat", "before": 0.5, "after": 0.75}],
}
REPORT = {
    **{"images": 2, "annotations": 3, "refs": 4, "left_out": {"expressions that mean several objects": 5}},
    "problems": {"image": 1, "region": 2},
    "listed": [{"kind": "image", "task": 9, "message": "Its picture is gone.", "annotation": None, "region": ""}],
}


@pytest.fixture
def queue(
    redis: Redis, redis_url: str, clean_environment: None, signing: Signer, monkeypatch: pytest.MonkeyPatch
) -> JobQueue:
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    monkeypatch.setenv("RIS_WEBHOOK_SECRET", "hook-secret")
    return JobQueue(redis)


@pytest.fixture
def mark(redis: Redis) -> Callable[..., None]:
    """Give a job the record that a worker leaves in it."""

    def write(name: str, status: JobStatus, result: object = None, **meta: object) -> None:
        job = GuardedJob.fetch(name, redis, JSONSerializer)
        job.meta.update(meta)
        job.save_meta()
        job.set_status(status)
        if result is not None:
            Result.create(job, Result.Type.SUCCESSFUL, ttl=60, return_value=result)

    return write


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setattr(out, "width", 80)


@pytest.mark.usefixtures("narrow")
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
    assert "Waits for [/data]." in " ".join(printed.replace("│", " ").split())
    assert "Workers: 0 for training, 0 for batches." in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.usefixtures("narrow")
def test_what_came_of_each_job_is_listed(queue: JobQueue, mark: Callable[..., None], run_ris: Run) -> None:
    learning, exporting, running = queue.learn(7).job, queue.export(7, "mine", {}).job, queue.learn(8).job
    mark(learning, JobStatus.FINISHED, {"decision": "rejected", "reason": "It is worse than what is there."})
    mark(exporting, JobStatus.FAILED, error={"message": "Label Studio can't be reached."})
    mark(running, JobStatus.STARTED, progress={"stage": "training", "share": 0.45})
    code, printed, _ = run_ris("jobs")
    words = " ".join(printed.replace("│", " ").split())
    assert code == 0
    assert "training 45%" in words
    assert max(map(len, printed.splitlines())) <= 80
    assert all(name in printed for name in (learning, exporting, running))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--format", "cocoa"), "There is no export format 'cocoa'. Choose from coco,"),
        (("--name", "../outside"), "'../outside' can't name an export."),
    ],
)
def test_an_export_that_cant_be_made_isnt_queued(
    queue: JobQueue, run_ris: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    code, printed, err = run_ris("export", "--project", "7", *arguments)
    assert (code, printed) == (1, "")
    assert err.startswith(f"ris: {sentence}")
    assert queue.recent() == []


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
            lambda queue: queue.export(7, "mine", {}),
            {"images": 2, "annotations": 3, "refs": 4, "out": "/home/exports/mine"},
            "exports project 7 to mine",
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
    job = queue.export(7, "mine", {}).job
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


@pytest.fixture
def worker(
    redis: Redis, redis_url: str, tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractContextManager[None]]:
    """While it is open, the next job comes to its end with this result, or fails with this message."""
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    monkeypatch.setenv("RIS_WEBHOOK_SECRET", "hook-secret")
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
            "Left out: 5 expressions that mean several objects. `--format coco` has all.",
            "Task 9: Its picture is gone.",
            "And 2 further problems, in report.json.",
        ],
    )
    with worker(REPORT):
        assert json.loads(run_ris("export", "--project", "7", "--name", "mine", "--json")[1]) == REPORT


def test_a_job_that_fails_says_why(worker: Callable[..., AbstractContextManager[None]], run_ris: Run) -> None:
    with worker(message="Memory ran out."):
        code, printed, error = run_ris("finetune", "--project", "7")
    assert (code, printed) == (1, "")
    assert error.endswith("failed. Memory ran out.\n")


def test_the_help_of_an_export_names_all_there_is() -> None:
    formats, policies = (re.findall(r"[a-z]+(?:-[a-z]+)*", text) for text in (exports._FORMATS, exports._POLICIES))
    assert set(EXPORT_FORMATS) <= set(formats)
    assert set(POLICIES) <= set(policies)
