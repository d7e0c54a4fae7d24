"""Buckets: what a conditional write promises, on a folder and on a real S3 server, and what is said of faults."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway import Gateway
from killed import run_in_child

from backend.store.bucket import Bucket, Changed, FolderBucket, StoreError, check_conditions, open_bucket


def test_what_is_put_is_read(bucket: Bucket, tmp_path: Path) -> None:
    assert bucket.read("a/b") is None
    assert bucket.list("a") == {}
    bucket.swap("a/b", b"first", None)
    stored = bucket.read("a/b")
    assert stored
    assert stored.data == b"first"
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    bucket.upload("a/ü x", tmp_path / "file")
    assert {name: about.size for name, about in bucket.list("a").items()} == {"a/b": 5, "a/ü x": 100_000}
    assert bucket.download("a/ü x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"x" * 100_000
    assert not bucket.download("a/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    bucket.delete("a/b")
    bucket.delete("a/b")
    assert bucket.read("a/b") is None
    assert bucket.list("aa") == {}


def test_a_swap_holds_for_what_was_read_alone(bucket: Bucket) -> None:
    bucket.swap("x", b"1", None)
    first = bucket.read("x")
    with pytest.raises(Changed):
        bucket.swap("x", b"2", None)
    bucket.swap("x", b"2", first)
    for stale in (None, first):
        with pytest.raises(Changed):
            bucket.swap("x", b"3", stale)
    stored = bucket.read("x")
    assert stored
    assert stored.data == b"2"
    bucket.delete("x")
    with pytest.raises(Changed):
        bucket.swap("x", b"3", stored)
    assert bucket.read("x") is None


def test_a_listing_tells_what_changed(bucket: Bucket) -> None:
    bucket.swap("r/1", b"1", None)
    bucket.swap("r/2", b"2", None)
    before = bucket.list("r")
    bucket.swap("r/1", b"9", bucket.read("r/1"))
    after = bucket.list("r")
    assert before["r/1"].tag != after["r/1"].tag
    assert before["r/2"] == after["r/2"]


def test_of_many_swaps_at_once_one_wins(bucket: Bucket) -> None:
    """A counter that many threads raise by one: none of what they add is lost."""
    barrier = threading.Barrier(6)

    def add(_: int) -> int:
        barrier.wait(20)
        lost = 0
        for _ in range(5):
            while True:
                stored = bucket.read("counter")
                try:
                    bucket.swap("counter", str(int(stored.data) + 1 if stored else 1).encode(), stored)
                    break
                except Changed:
                    lost += 1
        return lost

    with ThreadPoolExecutor(6) as threads:
        lost = sum(threads.map(add, range(6)))
    stored = bucket.read("counter")
    assert stored
    assert stored.data == b"30"
    assert lost, "nobody was in anybody's way"


def test_conditional_writes_are_checked(bucket: Bucket) -> None:
    check_conditions(bucket)
    assert bucket.list("probes") == {}


def test_a_store_without_conditional_writes_is_refused(address: str, gateway: Gateway) -> None:
    gateway.fault = "forget conditions"
    with pytest.raises(StoreError, match=r"ignores conditional writes .*Use a store that has them"):
        check_conditions(open_bucket(address))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("reset", "doesn't answer. Check the network"),
        ("403", "credentials are refused. Check AWS_ACCESS_KEY_ID"),
        ("skew", "clock is wrong. Set it"),
        ("500", r"can't be used. It says: .*500"),
    ],
)
def test_faults_are_told_in_words(address: str, gateway: Gateway, fault: str, said: str, tmp_path: Path) -> None:
    bucket = open_bucket(address)
    (tmp_path / "file").write_bytes(b"x")
    bucket.swap("x", b"1", None)
    gateway.fault = fault
    with pytest.raises(StoreError, match=said):
        bucket.read("x")
    with pytest.raises(StoreError, match=said):
        bucket.swap("y", b"1", None)
    gateway.fault = None
    stored = bucket.read("x")
    assert stored
    assert stored.data == b"1"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3:///x", "names no bucket"),
        ("ftp://x/y", "isn't an address of a store"),
        ("s3:/x", "no folder"),
        ("/nowhere/at/all", "There is no folder"),
        ("file:///nowhere/at/all", "There is no folder"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        open_bucket(address).read("x")


@pytest.mark.usefixtures("gateway")
def test_a_bucket_that_is_missing_is_named() -> None:
    bucket = open_bucket("s3://missing-bucket/studio")
    with pytest.raises(StoreError, match="there is no such bucket"):
        bucket.read("x")
    with pytest.raises(StoreError, match="there is no such bucket"):
        bucket.swap("x", b"1", None)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a file where a folder should be")
    with pytest.raises(StoreError, match="can't be used"):
        FolderBucket(tmp_path).swap("x/y", b"1", None)


def test_a_process_that_forked_from_one_that_used_obstore_fails_at_once(address: str) -> None:
    bucket = open_bucket(address)
    bucket.read("x")

    def read() -> None:
        bucket.read("x")

    assert run_in_child(read) == 1
