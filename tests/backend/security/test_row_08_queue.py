"""Row 8, the queue: what isn't a signed job of ours doesn't run, and costs nothing but itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis
from rq import Queue, Retry
from rq.job import Job

from backend.queue.allow_list import GuardedJob
from backend.queue.mending import is_job, mend
from backend.queue.queue import JobQueue, KeptQueue, open_queue
from backend.queue.signature import Signer
from backend.settings import Settings

SECRET = "hook-secret"
HERE = Path(__file__).parents[1]
# Each example empties the database itself.
again = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
Burst = Callable[[], str]


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_queue(redis, Job)


@pytest.fixture
def burst(redis_url: str, tmp_path: Path) -> Burst:
    """Runs the worker of jobs_under_test until its queues are empty -> its log."""

    def run() -> str:
        command = [sys.executable, str(HERE / "jobs" / "jobs_under_test.py"), "--burst"]
        environment = {**os.environ, "QUEUE": redis_url, "TRACES": str(tmp_path), "RIS_HOME": str(tmp_path / "home")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def good(queue: Queue) -> Job:
    return queue.enqueue("jobs_under_test.add", args=(3, 4), retry=Retry(max=2))


ENTRIES = {
    "not UTF-8": b"\xff\xfe\x80",
    "empty": b"",
    "a colon": b"a:b",
    "zero bytes": b"\0\0",
    "a line break": b"learn-1\nlearn-2",
    "a megabyte": b"a" * 1_000_000,
    "a megabyte that isn't text": b"\xff" * 1_000_000,
    "no such job": b"learn-7-00000000",
}


def test_each_entry_costs_itself_alone(redis: Redis, queue: Queue, burst: Burst) -> None:
    for entry in ENTRIES.values():
        redis.rpush(queue.key, entry)
    job = good(queue)
    assert "unhandled exception" not in burst()
    assert job.return_value(refresh=True) == {"sum": 7}
    assert redis.llen(queue.key) == redis.llen(queue.intermediate_queue_key) == 0


def test_what_a_killed_worker_had_taken_costs_itself_alone(redis: Redis, queue: Queue, burst: Burst) -> None:
    """The next worker puts back what lies there, before it works."""
    redis.rpush(queue.intermediate_queue_key, *ENTRIES.values())
    job = good(queue)
    burst()
    assert job.return_value(refresh=True) == {"sum": 7}
    burst()
    assert redis.llen(queue.key) == redis.llen(queue.intermediate_queue_key) == 0


def test_registries_and_lists_of_workers_may_hold_anything(redis: Redis, queue: Queue, burst: Burst) -> None:
    for registry in (queue.started_job_registry, queue.finished_job_registry, queue.failed_job_registry):
        redis.zadd(registry.key, dict.fromkeys(ENTRIES.values(), 1.0))
    redis.sadd("rq:workers", b"\xff", b"nonsense", b"rq:worker:\xff")
    redis.sadd(f"rq:workers:{queue.name}", b"\xff", b"nonsense", "rq:worker:odd")
    redis.hset("rq:worker:odd", mapping={"last_heartbeat": b"\xff", "birth": "x", "pid": "y", "queues": b"\xff"})
    redis.sadd("ris:events:projects", b"\xff", "abc", "9" * 5000)
    job = good(queue)
    burst()
    assert job.return_value(refresh=True) == {"sum": 7}


@pytest.mark.parametrize("kind", ["string", "list", "set", "hash"])
def test_keys_of_another_kind_are_made_room_for(redis: Redis, queue: Queue, burst: Burst, kind: str) -> None:
    write = {
        "string": lambda key: redis.set(key, "x"),
        "list": lambda key: redis.rpush(key, "x"),
        "set": lambda key: redis.sadd(key, "x"),
        "hash": lambda key: redis.hset(key, "x", "y"),
    }[kind]
    for key in (queue.intermediate_queue_key, queue.started_job_registry.key, queue.failed_job_registry.key):
        write(key)
    write("rq:job:odd")
    redis.rpush(queue.key, "odd")
    job = good(queue)
    burst()
    assert job.return_value(refresh=True) == {"sum": 7}


def test_a_queue_of_another_kind_is_made_room_for(redis: Redis, queue: Queue, burst: Burst) -> None:
    redis.set(queue.key, "no list")
    burst()
    job = good(queue)
    burst()
    assert job.return_value(refresh=True) == {"sum": 7}


FIELDS = (
    *("data", "created_at", "timeout", "result_ttl", "failure_ttl", "status", "origin", "meta", "result", "exc_info"),
    *("retries_left", "retry_intervals", "repeats_left", "dependency_ids", "enqueued_at", "webhooks", "description"),
    *("last_heartbeat", "success_callback_name", "success_callback_timeout", "worker_name", "group_id"),
)
VALUES = (b"\xff\xfe", b"", b"-1", b"9" * 5000, b"[" * 100_000, b"NaN", b"{}", zlib.compress(b"\0" * 1000))


def test_each_damaged_field_costs_its_job_alone(redis: Redis, queue: Queue, burst: Burst) -> None:
    for field in FIELDS:
        for value in VALUES:
            broken = queue.enqueue("jobs_under_test.add", args=(1, 2))
            redis.hset(broken.key, field, value)
    bare = queue.enqueue("jobs_under_test.add", args=(1, 2))
    redis.delete(bare.key)
    redis.hset(bare.key, "status", "queued")
    job = good(queue)
    log = burst()
    assert job.return_value(refresh=True) == {"sum": 7}, log[-3000:]
    assert "unhandled exception" not in log
    assert redis.llen(queue.key) == 0


def test_a_job_of_many_megabytes_is_dropped_unread(redis: Redis, queue: Queue, burst: Burst) -> None:
    large = queue.enqueue("jobs_under_test.add", args=(1, 2))
    redis.hset(large.key, "data", b"x" * (20 << 20))
    job = good(queue)
    assert "larger than 16 MiB" in burst()
    assert job.return_value(refresh=True) == {"sum": 7}


@again
@given(st.lists(st.binary(max_size=12), max_size=8))
def test_random_entries_are_never_taken_for_jobs(redis: Redis, entries: list[bytes]) -> None:
    redis.flushall()
    queue = open_queue(redis)
    if entries:
        redis.rpush(queue.key, *entries)
        redis.zadd(queue.started_job_registry.key, dict.fromkeys(entries, 1.0))
    assert KeptQueue.dequeue_any([queue], None, redis) is None
    mend(queue)
    assert redis.llen(queue.intermediate_queue_key) == 0
    JobQueue(redis).recent()


@again
@given(st.dictionaries(st.sampled_from([*FIELDS, "signature"]), st.binary(max_size=40), min_size=1))
def test_random_records_are_dropped_or_refused(redis: Redis, fields: dict[str, bytes]) -> None:
    """As a process reads them that signs its jobs: the backend and both workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuardedJob, "signer", Signer(SECRET))
        redis.flushall()
        queue = open_queue(redis)
        redis.hset("rq:job:odd", mapping=fields)
        redis.rpush(queue.key, "odd")
        taken = KeptQueue.dequeue_any([queue], None, redis)
        assert taken is None or taken[0].refusal
        redis.rpush(queue.key, "odd")
        assert JobQueue(redis).recent() == [] or taken


def test_a_job_of_ours_is_signed_and_runs_on(redis: Redis, signing: Signer) -> None:
    ticket = JobQueue(redis).export(7, "mine", {})
    job = GuardedJob.fetch(ticket.job, redis, open_queue(redis).serializer)
    assert job.refusal is None
    assert job.args == [7, "mine", {}]
    # A worker writes the record anew, and another one has to believe it.
    job.save()
    again = GuardedJob.fetch(ticket.job, redis, open_queue(redis).serializer)
    assert again.refusal is None


def forged(redis: Redis, queue: Queue) -> dict[str, str]:
    """Jobs as somebody makes them who has the queue's password, but not the secret; by what is wrong -> id."""
    jobs = JobQueue(redis)
    ours = jobs.export(7, "mine", {}).job
    record = redis.hgetall(f"rq:job:{ours}")
    redis.delete(queue.key)
    payload = zlib.compress(json.dumps(["backend.jobs.functions.export", None, [8, "theirs", {}], {}]).encode())
    forgeries: dict[str, dict[bytes, bytes]] = {
        "unsigned": {name: value for name, value in record.items() if name != b"signature"},
        "other payload": record | {b"data": payload},
        "other id": record,
        "signed with another secret": record | {b"signature": Signer("guess").sign("export-7-forged3", payload)},
        "signature cut": record | {b"signature": record[b"signature"][:-1]},
        "signature that isn't text": record | {b"signature": b"\xff" * 64},
        "a bomb": record | {b"data": zlib.compress(b"\0" * (1 << 24), 9)},
    }
    same_id = {"other payload", "unsigned", "signature cut"}
    ids = {}
    for number, (what, fields) in enumerate(forgeries.items()):
        name = f"export-7-forged{number}"
        if what in same_id:
            name = jobs.export(7, f"mine{number}", {}).job
            redis.delete(queue.key, f"rq:job:{name}")
        redis.hset(f"rq:job:{name}", mapping=fields)
        ids[what] = name
    for name in ids.values():
        redis.rpush(queue.key, name)
    return ids


def test_forged_jobs_are_refused_by_their_signature(
    redis: Redis, redis_url: str, signing: Signer, tmp_path: Path
) -> None:
    queue = open_queue(redis)
    ids = forged(redis, queue)
    log = run_production_worker(redis_url, tmp_path)
    for what, name in ids.items():
        assert redis.hget(f"rq:job:{name}", "status") == b"failed", what
        assert f"{name} isn't run: it isn't signed" in log, what
    assert SECRET not in log
    assert not (tmp_path / "exports").exists()


def run_production_worker(redis_url: str, home: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    environment |= {"RIS_REDIS_URL": redis_url, "RIS_HOME": str(home), "RIS_WEBHOOK_SECRET": SECRET}
    imports = "from backend.jobs.worker import run_worker; from backend.settings import load;"
    command = [sys.executable, "-c", f"{imports} run_worker(load(), burst=True)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_of_a_forged_job_nothing_is_parsed(redis: Redis, signing: Signer) -> None:
    """Not even decompressed: there is no payload left to look at."""
    queue = open_queue(redis)
    ids = forged(redis, queue)
    job = GuardedJob.fetch(ids["a bomb"], redis, queue.serializer)
    assert job.refusal
    assert job.data == b""
    assert job.timeout is None


def test_a_job_of_before_the_update_is_said_to_be_that(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was queued unsigned. It is refused, and `ris jobs` says so; learning and batches are queued anew."""
    ticket = JobQueue(redis).learn(7)
    monkeypatch.setattr(GuardedJob, "signer", Signer(SECRET))
    assert JobQueue(redis).describe(ticket.job)["error"] == {"code": "forbidden_job"}
    job = GuardedJob.fetch(ticket.job, redis, open_queue(redis).serializer)
    assert "queued before an update" in str(job.refusal)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_a_signature_is_of_one_id_and_one_payload(one: bytes, other: bytes) -> None:
    signer = Signer(SECRET)
    assert signer.is_ours("a", one, signer.sign("a", one))
    assert signer.is_ours("a", other, signer.sign("a", one)) == (one == other)
    assert not signer.is_ours("b", one, signer.sign("a", one))
    assert not Signer("other").is_ours("a", one, signer.sign("a", one))


def test_the_key_is_neither_in_valkey_nor_the_secret_itself(
    redis: Redis, make_settings: Callable[..., Settings], signing: Signer
) -> None:
    import hashlib
    import hmac

    assert Signer.from_settings(make_settings()).sign("a", b"x") == signing.sign("a", b"x")
    naive = hmac.new(SECRET.encode(), b"a\0x", hashlib.sha256).hexdigest().encode()
    assert signing.sign("a", b"x") != naive
    JobQueue(redis).export(7, "mine", {})
    stored = b"".join(part for key in redis.keys("rq:job:*") for pair in redis.hgetall(key).items() for part in pair)
    assert SECRET.encode() not in stored


def test_names_of_jobs_are_rqs_own() -> None:
    assert is_job(b"learn-7-0a1b2c3d")
    assert not any(map(is_job, (b"", b"a b", b"a\n", b"\xff", b"a" * 201)))
