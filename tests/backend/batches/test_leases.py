"""Leases that are lost, and Label Studio away for a while."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from batch_world import World
from labelstudio.site import Answer
from redis import Redis
from shelf import data

from backend.batches import leases as module
from backend.batches.leases import Leases, RunnerStopped
from backend.batches.runner import run
from backend.batches.store import BatchSpec, BatchStore
from backend.errors import LabelStudioRefused

FAILURES: dict[str, Answer] = {
    "500 before": Answer(500),
    "503 before": Answer(503),
    "429 before": Answer(429),
    "401 before": Answer(401),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_label_studio_failing_is_waited_out(world: World, failure: str) -> None:
    world.shelf.fill(data(20))
    left = [3]

    def fail() -> Answer | None:
        left[0] -= 1
        return FAILURES[failure] if left[0] > 0 else None

    world.shelf.before = fail
    batch = world.done(world.submit(20))
    assert (batch.state, batch.done, batch.note) == ("done", 20, "")
    assert world.shelf.counts(world.version) == [1] * 20


def test_a_batch_that_waits_for_label_studio_says_so_and_can_be_cancelled(world: World) -> None:
    world.shelf.fill(data(3))
    world.shelf.before = lambda: Answer(503)
    batch = world.submit(3)
    runner = threading.Thread(target=run, args=(batch, world.services))
    runner.start()
    end = time.monotonic() + 30
    while "Waiting: Label Studio failed" not in world.batches.get(batch).note:
        assert time.monotonic() < end
        time.sleep(0.02)
    world.batches.cancel(batch)
    runner.join(10)
    assert not runner.is_alive()
    assert world.shelf.counts(world.version) == [0] * 3
    world.shelf.before = lambda: None
    world.batches.resume(batch)
    assert (world.done(batch).done, world.shelf.counts(world.version)) == (3, [1] * 3)


def test_whoever_lost_its_chunk_writes_nothing(world: World, redis: Redis) -> None:
    """The first stalls before it writes, longer than its lease, and another takes its chunk."""
    world.shelf.fill(data(5))
    batch = world.submit(5)
    stolen = []
    begin = world.batches.begin

    def stall(name: str, owner: str, chunk: str, seconds: float) -> bool:
        if not stolen:
            stolen.append(chunk)
            redis.hset(f"ris:batch:{batch}:chunks", f"{chunk}:owner", "another")
            redis.zadd(f"ris:batch:{batch}:leases", {chunk: time.time() + 1})
        return begin(name, owner, chunk, seconds)

    world.batches.begin = stall  # type: ignore[method-assign]
    ended = world.done(batch)
    assert (ended.state, ended.done) == ("done", 5)
    assert world.shelf.counts(world.version) == [1] * 5
    assert world.shelf.imports == 1


def test_a_slow_import_keeps_its_chunk_from_another_runner_however_long_it_takes(world: World) -> None:
    """Three times as long as a chunk stays out of reach when its runner dies."""
    world.shelf.fill(data(8))
    batch, slow = world.submit(8), threading.Event()

    def take_long() -> None:
        if not slow.is_set():
            slow.set()
            time.sleep(3 * module.WRITING_SECONDS)

    world.shelf.before = take_long
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(run, batch, world.services)
        assert slow.wait(60)
        run(batch, world.services)
        first.result()
    assert world.batches.get(batch).state == "done"
    assert world.shelf.imports == 1
    # None was written and deleted again.
    [(last,)] = world.shelf.rows("SELECT seq FROM sqlite_sequence WHERE name = 'prediction'")
    assert (last, world.shelf.counts(world.version)) == (8, [1] * 8)


def test_what_is_held_at_the_end_is_given_back(redis: Redis) -> None:
    batches = BatchStore(redis)
    batch = batches.create(BatchSpec(3, "lda-1a2b3c4d", "lda-1a2b3c4d.3fa2c1"), range(1, 41)).id
    leases = Leases(batch, batches)
    with leases.renewing():
        first, second = leases.claim(), leases.claim()
        assert first is not None
        assert second is not None
        assert leases.finish(first.name, done=16, skipped=0, failed={})
    assert batches.claim(batch, "other") == second


def test_leases_are_over_once_the_batch_has_ended(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.1)
    batches = BatchStore(redis)
    batch = batches.create(BatchSpec(3, "lda-1a2b3c4d", "lda-1a2b3c4d.3fa2c1"), [1]).id
    leases = Leases(batch, batches)
    with leases.renewing():
        batches.cancel(batch)
        with pytest.raises(RunnerStopped):
            leases.wait(30)


def test_what_is_refused_for_good_is_not_tried_again(redis: Redis) -> None:
    leases, calls = Leases("batch", BatchStore(redis)), []

    def refuse() -> None:
        calls.append(1)
        raise LabelStudioRefused("No.")

    with pytest.raises(LabelStudioRefused):
        leases.retry(refuse)
    assert calls == [1]
