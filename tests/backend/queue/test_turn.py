"""When a runner makes room: by the clock, for other jobs of its worker, and when it is to stop."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Worker

from backend.queue import cancellation
from backend.queue.cancellation import Turn
from backend.queue.names import BATCHES, NAME, TRAINING
from backend.queue.queue import JobQueue


def serve(redis: Redis, *queues: str) -> str:
    """A worker of these queues -> its name."""
    redis.hset(f"{Worker.redis_worker_namespace_prefix}w", "queues", ",".join(queues))
    return "w"


@pytest.mark.parametrize(
    ("queues", "is_over"), [((NAME, TRAINING, BATCHES), True), ((NAME, BATCHES), False), ((), False)]
)
def test_a_learning_is_waited_for_by_none_but_its_own_worker(
    redis: Redis, queues: tuple[str, ...], is_over: bool
) -> None:
    worker = serve(redis, *queues)
    JobQueue(redis).prelabel("a")
    assert not Turn(redis, worker, lambda: False)()
    JobQueue(redis).learn(7)
    assert Turn(redis, worker, lambda: False)() is is_over


def test_a_slice_comes_to_its_end(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "SLICE_SECONDS", 0.0)
    assert Turn(redis, None, lambda: False)()


def test_a_job_that_is_to_stop_makes_room_at_once_and_one_that_made_room_keeps_to_it(redis: Redis) -> None:
    stops = [False]
    its_turn = Turn(redis, serve(redis, NAME), lambda: stops[0])
    assert not its_turn()
    stops[0] = True
    assert its_turn()
    JobQueue(redis).export(7, "mine", {})
    later = Turn(redis, serve(redis, NAME), lambda: False)
    assert later()
    redis.flushall()
    assert later()
