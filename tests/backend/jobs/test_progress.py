"""What a job's record says of how far it got, and when that gives it its tries back."""

from __future__ import annotations

import pytest
from ports import free_port
from redis import Redis
from rq import Retry
from rq.job import Job

from backend.jobs.functions import JobProgress
from backend.queue.queue import RETRIES, connect, open_queue

STAGES = ("reading", "training")


@pytest.fixture
def job(redis: Redis) -> Job:
    return open_queue(redis, Job).enqueue("jobs_under_test.add", args=(1, 2), retry=Retry(max=1))


def test_it_is_kept_in_whole_percents(job: Job) -> None:
    JobProgress(job, STAGES)("training", 0.504)
    assert job.get_meta(refresh=True)["progress"] == {"stage": "training", "share": 0.5}


def test_only_who_gets_further_than_ever_gets_all_tries_back(job: Job, redis: Redis) -> None:
    JobProgress(job, STAGES)("reading", 0.5)
    job.refresh()
    assert job.retries_left == RETRIES
    for stage, share, left in (("reading", 0.4, 1), ("reading", 0.5, 1), ("training", 0.0, RETRIES)):
        redis.hset(job.key, "retries_left", 1)
        JobProgress(job, STAGES)(stage, share)
        assert int(redis.hget(job.key, "retries_left") or 0) == left, (stage, share)


def test_without_a_job_or_without_valkey_work_goes_on(job: Job) -> None:
    JobProgress(None, STAGES)("reading", 0.0)
    job.connection = connect(f"redis://127.0.0.1:{free_port()}/0")
    JobProgress(job, STAGES)("reading", 0.0)
