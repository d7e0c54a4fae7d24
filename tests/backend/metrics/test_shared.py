"""What processes count comes together in Valkey, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.exceptions import RedisError

from backend.metrics.shared import KEY, Pusher, pushed, pushing, samples_of, together

BUCKETS = (0.1, 1.0, 10.0)


class Process:
    """What one process counts, beside others."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.count = Counter("jobs", "Jobs.", ("kind",), registry=self.registry)
        self.time = Histogram("job_seconds", "Time.", ("kind",), registry=self.registry, buckets=BUCKETS)

    def observe(self, kind: str, value: float) -> None:
        self.count.labels(kind).inc()
        self.time.labels(kind).observe(value)


OBSERVED = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from([0.05, 0.5, 5.0, 50.0])))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OBSERVED, st.integers(1, 5))
def test_together_they_are_what_one_process_would_have_counted(redis: Redis, observed: list, every: int) -> None:
    redis.delete(KEY)
    alone, processes = Process(), [Process() for _ in range(3)]
    # The first of them is asked, and pushes nothing; the others push now and then.
    pushers = [Pusher(redis, process.registry) for process in processes[1:]]
    for number, (which, kind, value) in enumerate(observed):
        alone.observe(kind, value)
        processes[which].observe(kind, value)
        if number % every == 0:
            for pusher in pushers:
                pusher.push()
    for pusher in (*pushers, *pushers):
        pusher.push()

    class Asked:
        def collect(self) -> Iterator:
            return together(processes[0].registry.collect(), pushed(redis))

    text = generate_latest(Asked()).decode()  # type: ignore[arg-type]
    # Read by the client library's own parser, which knows how buckets have to lie.
    shown = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert shown == pytest.approx(samples_of(alone.registry))
    order = [line for line in text.splitlines() if line.startswith('job_seconds_bucket{kind="a"')]
    assert [line.partition('le="')[2].partition('"')[0] for line in order] in ([], ["0.1", "1.0", "10.0", "+Inf"])


def test_while_valkey_is_away_nothing_is_lost(redis: Redis) -> None:
    process = Process()
    process.observe("before", 1)
    pusher = Pusher(redis, process.registry)
    process.observe("a", 1)
    away = Redis(port=1)
    pusher._connection, there = away, pusher._connection
    with pytest.raises(RedisError):
        pusher.push()
    process.observe("a", 1)
    pusher._connection = there
    pusher.push()
    samples = pushed(redis)
    assert samples["jobs_total", (("kind", "a"),)] == 2
    # What was counted before it was made isn't its own.
    assert samples["jobs_total", (("kind", "before"),)] == 0
    away.close()


def test_work_goes_on_without_valkey() -> None:
    with Redis(port=1) as away, pushing(away, seconds=0.01):
        time.sleep(0.05)


_COUNTS = """
import sys, time
from redis import Redis
from backend.metrics import LEARNING_RUNS
from backend.metrics.shared import pushing
with pushing(Redis.from_url(sys.argv[1]), seconds=0.05):
    for _ in range(7):
        LEARNING_RUNS.labels("3", "kept").inc()
    print("counted", flush=True)
    if sys.argv[2] == "waits":
        time.sleep(60)
"""


@pytest.mark.parametrize("end", ["ends", "waits"])
def test_what_was_counted_outlives_its_process(redis: Redis, redis_url: str, end: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _COUNTS, redis_url, end],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])},
    )
    assert process.stdout
    assert process.stdout.readline() == "counted\n"
    if end == "waits":
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert pushed(redis)["ris_learning_runs_total", (("decision", "kept"), ("project", "3"))] == 7
