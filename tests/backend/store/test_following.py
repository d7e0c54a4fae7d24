"""A home that follows its store: it is up to date soon, asks little, and goes on while the store is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway import Gateway
from redis import Redis
from version_folders import assert_whole, make_checkpoint

from backend.store.bucket import StoreError, open_bucket
from backend.store.following import StoreFollower
from backend.store.versions import SharedRegistry
from backend.web import ready

_SECONDS = 30


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def a(tmp_path: Path, shipped: Path, address: str) -> SharedRegistry:
    """The other host."""
    return SharedRegistry(tmp_path / "a", shipped, open_bucket(address))


@pytest.fixture
def follower(tmp_path: Path, shipped: Path, address: str) -> StoreFollower:
    return StoreFollower(SharedRegistry(tmp_path / "b", shipped, open_bucket(address)), seconds=0.05)


@pytest.fixture
def b(tmp_path: Path, shipped: Path, address: str, follower: StoreFollower) -> SharedRegistry:
    return SharedRegistry(tmp_path / "b", shipped, open_bucket(address), follower=follower)


def test_what_is_promoted_elsewhere_serves_soon(
    a: SharedRegistry, b: SharedRegistry, follower: StoreFollower, tmp_path: Path
) -> None:
    follower.start()
    try:
        for letter in "xy":
            name = a.add(7, make_checkpoint(tmp_path / letter, letter), {}).name
            a.promote(7, name)
            until(lambda name=name: b.current(7).name == name)  # type: ignore[misc]
            assert_whole(b.current(7).folder, name)
    finally:
        follower.stop()


def test_reading_asks_nobody_and_a_look_is_one_request(
    a: SharedRegistry, b: SharedRegistry, follower: StoreFollower, gateway: Gateway, tmp_path: Path
) -> None:
    for project in (7, 8, 9):
        name = a.add(project, make_checkpoint(tmp_path / str(project), str(project)), {}).name
        a.promote(project, name)
    follower.look()
    assert b.projects() == [7, 8, 9]
    gateway.requests.clear()
    for project in (7, 8, 9, 10):
        for read in (b.current, b.pointer, b.versions, b.previous, b.read):
            read(project)
    assert gateway.requests == []
    follower.look()
    assert [method for method, _ in gateway.requests] == ["GET"]
    a.rollback(8)
    gateway.requests.clear()
    follower.look()
    assert [path.rpartition("/")[2] for _, path in gateway.requests[1:]] == ["8.json"]
    assert b.current(8) == b.base


def test_while_the_store_is_away_ready_says_so(
    a: SharedRegistry, b: SharedRegistry, follower: StoreFollower, gateway: Gateway, tmp_path: Path, redis: Redis
) -> None:
    name = a.add(7, make_checkpoint(tmp_path / "x", "x"), {}).name
    a.promote(7, name)
    follower.look()
    assert ready.check(b, redis) == {"ready": True, "serving": {"others": b.base.name, "7": name}}
    gateway.fault = "reset"
    follower.look()
    answer = ready.check(b, redis)
    assert answer["serving"] == {"others": b.base.name, "7": name}
    assert "doesn't answer" in str(answer["store"])
    assert "UTC what was known then is served" in str(answer["store"])
    gateway.fault = None
    follower.look()
    assert "store" not in ready.check(b, redis)


def test_a_home_that_has_never_heard_of_its_store_answers_nothing(
    b: SharedRegistry, follower: StoreFollower, gateway: Gateway
) -> None:
    gateway.fault = "reset"
    follower.look()
    with pytest.raises(StoreError, match="doesn't answer"):
        b.current(7)
    gateway.fault = None
    follower.look()
    assert b.current(7) == b.base


def test_one_project_that_cannot_be_had_holds_nobody_up(
    a: SharedRegistry, b: SharedRegistry, follower: StoreFollower, tmp_path: Path
) -> None:
    for project in (7, 8):
        a.add(project, make_checkpoint(tmp_path / str(project), str(project)), {})
    first = a.bucket.read("records/7.json")
    a.bucket.swap("records/7.json", b"damaged", first)
    follower.look()
    assert len(b.versions(8)) == 2
    assert "records/7.json isn't what" in str(b.trouble)
    a.bucket.swap("records/7.json", first.data if first else b"", a.bucket.read("records/7.json"))
    follower.look()
    assert len(b.versions(7)) == 2
    assert b.trouble is None


def test_what_was_deleted_by_hand_comes_back(
    a: SharedRegistry, b: SharedRegistry, follower: StoreFollower, tmp_path: Path
) -> None:
    name = a.add(7, make_checkpoint(tmp_path / "x", "x"), {}).name
    a.promote(7, name)
    follower.look()
    b.current(7).folder.rename(tmp_path / "gone")
    follower.look()
    assert_whole(b.current(7).folder, name)
