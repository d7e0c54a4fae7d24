"""The queue on a real Valkey: nothing is learnt twice, no trigger is lost, and an absent Valkey is a sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError
from redis import Redis
from rq.job import JobStatus

from backend.errors import NotFound, Unavailable
from backend.queue.names import BATCHES, TRAINING
from backend.queue.queue import (
    EXPORT_SECONDS,
    FAILURE_SECONDS,
    LEARN_SECONDS,
    RESULT_SECONDS,
    RETRIES,
    JobQueue,
    Ticket,
    connect,
    min_new_of,
    open_queue,
)
from backend.settings import Settings

HERE = Path(__file__).parent


@pytest.fixture
def jobs(redis_url: str) -> JobQueue:
    return JobQueue(connect(redis_url), learn="jobs_under_test.trigger")


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "QUEUE": redis_url, "TRACES": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(HERE.parent / "jobs" / "jobs_under_test.py")], env=environment, stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait()


def runs(folder: Path) -> int:
    return len(list(folder.glob("trigger.*")))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_finished(jobs: JobQueue, job: str) -> bool:
    return bool(jobs.describe(job)["status"] == "finished")


def test_a_thousand_events_at_once_make_one_job(jobs: JobQueue, redis: Redis) -> None:
    with ThreadPoolExecutor(16) as threads:
        tickets = list(threads.map(lambda _: jobs.learn(7), range(1000)))
    assert len({ticket.job for ticket in tickets}) == 1
    assert sum(ticket.new for ticket in tickets) == 1
    assert len(open_queue(redis, name=TRAINING)) == 1


def test_projects_do_not_wait_for_each_other(jobs: JobQueue) -> None:
    assert jobs.learn(1).job != jobs.learn(2).job


def test_events_during_a_run_make_exactly_one_more(
    jobs: JobQueue, redis: Redis, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    first = jobs.learn(7)
    until(lambda: runs(tmp_path) == 1)
    with ThreadPoolExecutor(8) as threads:
        tickets = list(threads.map(lambda _: jobs.learn(7), range(1000)))
    assert {ticket.job for ticket in tickets} != {first.job}
    assert len({ticket.job for ticket in tickets}) == 1
    (tmp_path / "go").touch()
    until(lambda: is_finished(jobs, tickets[0].job))
    assert runs(tmp_path) == 2
    assert len(open_queue(redis, name=TRAINING)) == 0


def test_however_it_is_asked_one_learning_waits_and_it_suits_the_most_modest(jobs: JobQueue, redis: Redis) -> None:
    def least() -> int | None:
        job = open_queue(redis, name=TRAINING).fetch_job(first.job)
        assert job is not None
        return min_new_of(job)

    first = jobs.learn(7)
    assert least() is None
    for asked, expected in ((3, 3), (5, 3), (None, 3), (1, 1)):
        assert jobs.learn(7, asked).job == first.job
        assert least() == expected
    assert jobs.learn(7, min_new=0) == Ticket(first.job, new=False)
    assert least() == 0
    other = jobs.learn(8, min_new=0)
    assert other.new
    assert open_queue(redis, name=TRAINING).get_job_ids() == [first.job, other.job]


def test_what_a_learning_is_content_with_is_never_lost(
    jobs: JobQueue, redis: Redis, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Each is asked for while the worker takes jobs as fast as it can: a job that has started didn't hear it."""
    (tmp_path / "go").touch()
    for _ in range(30):
        jobs.learn(7)
        asked = jobs.learn(7, min_new=0)
        until(lambda asked=asked: is_finished(jobs, asked.job))
        assert redis.hget(f"rq:job:{asked.job}", "heard") == b"0"


def test_an_event_while_the_job_starts_is_never_lost(
    jobs: JobQueue, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Events without a pause, while the worker takes jobs as fast as it can: the last event still gets its run."""
    (tmp_path / "go").touch()
    stop = threading.Event()

    def hail() -> None:
        while not stop.is_set():
            jobs.learn(7)

    hailing = [threading.Thread(target=hail) for _ in range(2)]
    for thread in hailing:
        thread.start()
    until(lambda: runs(tmp_path) >= 5)
    stop.set()
    for thread in hailing:
        thread.join()
    before = time.monotonic_ns()
    last = jobs.learn(7)
    until(lambda: is_finished(jobs, last.job))
    started = [int(path.name.rsplit(".", 1)[1]) for path in tmp_path.glob("trigger.*")]
    assert max(started) > before


def test_a_job_that_is_lost_from_valkey_does_not_block_the_next(jobs: JobQueue, redis: Redis) -> None:
    lost = jobs.learn(7)
    redis.delete(f"rq:job:{lost.job}")
    assert jobs.learn(7).new


def test_time_outs_and_lifetimes_are_set_on_purpose(redis: Redis) -> None:
    jobs, training, rest = JobQueue(redis), open_queue(redis, name=TRAINING), open_queue(redis)
    assert Settings(finetune_seconds=21_600).finetune_seconds < LEARN_SECONDS
    with pytest.raises(ValidationError):
        Settings(finetune_seconds=21_601)
    learning, exporting = training.fetch_job(jobs.learn(7).job), rest.fetch_job(jobs.export(7, "mine", {}).job)
    for job, seconds in ((learning, LEARN_SECONDS), (exporting, EXPORT_SECONDS)):
        assert job is not None
        assert (job.timeout, job.result_ttl, job.failure_ttl) == (seconds, RESULT_SECONDS, FAILURE_SECONDS)
        assert job.retries_left == RETRIES


def test_a_job_is_described_as_json(redis_url: str) -> None:
    jobs = JobQueue(connect(redis_url))
    ticket = jobs.learn(7)
    described = jobs.describe(ticket.job)
    assert described["status"] == JobStatus.QUEUED.value
    assert described["function"] == "learn"
    assert described["arguments"] == [7]
    assert described["result"] is None
    assert described["error"] is None


def test_a_forged_job_is_described_without_its_content(jobs: JobQueue, redis: Redis) -> None:
    forged = open_queue(redis).enqueue("os.system", "true")
    assert jobs.describe(forged.id)["error"]["code"] == "forbidden_job"
    assert "os.system" not in str(jobs.describe(forged.id))


@pytest.mark.parametrize("job_id", ["learn-7-00000000", "../etc", "a" * 10_000, "\n"])
def test_an_unknown_job_is_not_found(jobs: JobQueue, job_id: str) -> None:
    with pytest.raises(NotFound) as raised:
        jobs.describe(job_id)
    assert len(str(raised.value)) < 300


def test_without_valkey_the_sentence_says_that_nothing_is_lost() -> None:
    jobs = JobQueue(connect("redis://:secret-pass@127.0.0.1:1/0"))
    for attempt in (lambda: jobs.learn(7), lambda: jobs.export(7, "x", {}), lambda: jobs.describe("x")):
        with pytest.raises(Unavailable, match="safe in Label Studio") as raised:
            attempt()
        assert "secret-pass" not in str(raised.value)


def test_a_wrong_password_is_an_absent_valkey(redis_url: str) -> None:
    with pytest.raises(Unavailable):
        JobQueue(connect(redis_url.replace("valkey-pass", "wrong"))).learn(7)


def test_a_silent_valkey_is_given_up_within_a_webhooks_second() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        jobs = JobQueue(connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        start = time.monotonic()
        with pytest.raises(Unavailable):
            jobs.learn(7)
        assert time.monotonic() - start < 0.95


def test_of_a_batch_one_runner_waits_however_often_it_is_asked_for(jobs: JobQueue, redis: Redis) -> None:
    with ThreadPoolExecutor(16) as threads:
        tickets = list(threads.map(lambda _: jobs.prelabel("1a2b3c4d"), range(100)))
    assert len({ticket.job for ticket in tickets}) == 1
    waiting = open_queue(redis, name=BATCHES)
    assert waiting.get_job_ids() == [tickets[0].job]
    # Learning and exports have their own queue, which workers look at first.
    assert len(open_queue(redis)) == 0
    # One that runs doesn't count: whoever joins may help.
    job = waiting.fetch_job(tickets[0].job)
    assert job is not None
    job.set_status(JobStatus.STARTED)
    waiting.remove(job)
    assert jobs.prelabel("1a2b3c4d").new
    assert jobs.prelabel("other").new


def test_recent_jobs_are_those_that_wait_run_or_ended(jobs: JobQueue) -> None:
    asked = [jobs.learn(1).job, jobs.export(2, "out", {}).job, jobs.prelabel("1a2b3c4d").job]
    assert [(job["id"], job["status"]) for job in jobs.recent()] == [(job, "queued") for job in asked]
    assert jobs.workers() == {"training": 0, "batches": 0}
