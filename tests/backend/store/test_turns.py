"""One learner a project among hosts, on a real Valkey: killed holders make way, and waiting ends when it should."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from backend.errors import Unavailable
from backend.store.bucket import FolderBucket
from backend.store.turns import Turns
from backend.store.versions import SharedRegistry


def test_one_of_two_hosts_learns_at_a_time(redis: Redis, tmp_path: Path, shipped: Path) -> None:
    (tmp_path / "share").mkdir()
    bucket = FolderBucket(tmp_path / "share")
    a, b = (SharedRegistry(tmp_path / name, shipped, bucket, Turns(redis)) for name in "ab")
    order: list[str] = []

    def learn_second() -> None:
        with b.learning(7):
            order.append("second")

    with ThreadPoolExecutor(1) as threads:
        with a.learning(7):
            with pytest.raises(Unavailable, match="It learns"), b.learning(7, "It learns"):
                pytest.fail("two learn")
            second = threads.submit(learn_second)
            with b.learning(8):
                time.sleep(0.2)
            order.append("first")
        second.result()
    assert order == ["first", "second"]


def test_a_turn_outlasts_its_lease_while_its_holder_lives(redis: Redis) -> None:
    with Turns(redis, lease=0.4).hold(7):
        time.sleep(1.2)
        with pytest.raises(Unavailable), Turns(redis).hold(7, "taken"):
            pytest.fail("two hold it")


def test_a_holder_that_died_makes_way(redis: Redis) -> None:
    assert redis.lock("ris:learner:7", timeout=0.3).acquire()
    waited = threading.Event()
    with Turns(redis).hold(7, waiting=waited.set):
        assert waited.is_set()


def test_who_waits_may_give_up(redis: Redis) -> None:
    class GivenUp(Exception):
        pass

    def give_up() -> None:
        raise GivenUp

    with Turns(redis).hold(7), pytest.raises(GivenUp), Turns(redis).hold(7, waiting=give_up):
        pytest.fail("two hold it")
    with Turns(redis).hold(7, "free again"):
        pass
