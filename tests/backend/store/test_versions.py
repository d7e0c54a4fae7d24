"""Versions that hosts share: two homes and one bucket, everything at once, killed at every step, the store broken."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from gateway import Gateway
from killed import run_in_child
from killed_requests import killed_at
from pointers import fake_pointer
from version_folders import assert_whole, make_checkpoint

from backend.errors import NotFound
from backend.registry import NothingEarlier, PromotionConflict, Registry, RegistryError
from backend.store import versions as shared
from backend.store.bucket import Bucket, FolderBucket, StoreDamaged, StoreError, open_bucket
from backend.store.cache import IDLE_SECONDS
from backend.store.marker import store_of
from backend.store.versions import SharedRegistry
from ris_core import checkpoint_files

Host = Callable[[str], SharedRegistry]

# Each run kills at some steps; `STORE_STRIDE=1` at all.
STRIDE, SEED = int(os.environ.get("STORE_STRIDE", "12")), int(os.environ.get("KILL_SEED", time.time()))


def added(registry: Registry, tmp_path: Path, names: str) -> list[str]:
    """A version for each letter, by name."""
    return [registry.add(7, make_checkpoint(tmp_path / f"new-{name}", name), {"letter": name}).name for name in names]


def test_what_one_host_adds_and_promotes_another_serves(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    (name,) = added(a, tmp_path, "x")
    assert b.current(7) == b.base
    assert [version.name for version in b.versions(7)] == [b.base.name, name]
    a.promote(7, name)
    version = b.current(7)
    assert version.name == name
    assert version.card["letter"] == "x"
    assert version.folder.is_relative_to(tmp_path / "b")
    assert_whole(version.folder, name)
    assert a.pointer(7) == b.pointer(7)
    assert a.projects() == b.projects() == [7]
    assert b.read(7).current.name == a.read(7).current.name == name
    b.rollback(7)
    assert a.current(7) == a.base
    with pytest.raises(NothingEarlier):
        a.rollback(7)


def test_a_version_that_nobody_needs_here_is_not_fetched(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    first, second = added(a, tmp_path, "xy")
    a.promote(7, first)
    a.promote(7, second)
    assert b.current(7).name == second
    assert [path.name for path in (tmp_path / "b" / "project-7" / "versions").iterdir()] == [second]
    assert [version.card.get("letter") for version in b.versions(7)] == [None, "x", "y"]
    previous = b.previous(7)
    assert previous
    assert previous.name == first
    assert_whole(b.version(7, first).folder, first)


def test_the_same_weights_from_two_hosts_are_one_version(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    folder = make_checkpoint(tmp_path / "same", "same")
    barrier = threading.Barrier(2)

    def add(registry: SharedRegistry) -> dict[str, object]:
        barrier.wait(20)
        return dict(registry.add(7, folder, {"by": str(registry.bucket)}).card)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(add, (a, b))
    assert first == second
    assert len(a.versions(7)) == len(b.versions(7)) == 2
    uploads = {name.split("/")[3] for name in a.bucket.list("versions/7")}
    assert len(uploads) == 1


def test_promotions_from_two_hosts_at_once_have_one_order(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    names = added(a, tmp_path, "abcd")
    b.read(7)

    def promote(registry: SharedRegistry, own: list[str]) -> list[tuple[str, str]]:
        won = []
        for number in range(8):
            name, before = own[number % 2], registry.pointer(7).version
            try:
                registry.promote(7, name, instead_of=before)
            except PromotionConflict as conflict:
                assert "is in production now" in str(conflict)
            else:
                won.append((before, name))
        return won

    with ThreadPoolExecutor(2) as threads:
        won = [*threads.submit(promote, a, names[:2]).result(), *threads.submit(promote, b, names[2:]).result()]
        both = list(threads.map(promote, (a, b), (names[:2], names[2:])))
    moves = [move for move in [*won, *both[0], *both[1]] if move[0] != move[1]]
    # Each move that was said to be done is in the one history, and nothing else is.
    earlier = (*a.pointer(7).earlier, a.pointer(7).version)
    history = list(pairwise(earlier))
    # No more than the last 20 steps are kept.
    assert sorted(moves) == sorted(history) or len(moves) > len(history) == 20
    assert a.pointer(7) == b.pointer(7)
    for registry in (a, b):
        assert_whole(registry.current(7).folder, registry.current(7).name)


def test_of_two_hosts_that_promote_at_once_one_wins(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    names = added(a, tmp_path, "ab")
    barrier = threading.Barrier(2)

    def promote(registry: SharedRegistry, name: str) -> str:
        barrier.wait(20)
        try:
            return registry.promote(7, name, instead_of=registry.base.name).name
        except PromotionConflict:
            return ""

    for _ in range(10):
        with ThreadPoolExecutor(2) as threads:
            won = list(filter(None, threads.map(promote, (a, b), names)))
        assert len(won) == 1
        assert a.current(7).name == b.current(7).name == won[0]
        a.promote(7, a.base.name)


def test_two_hosts_that_go_back_at_once_go_back_one_step(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    first, second = added(a, tmp_path, "ab")
    a.promote(7, first)
    a.promote(7, second)

    def go_back(registry: SharedRegistry) -> bool:
        try:
            return registry.rollback(7, instead_of=second).name == first
        except PromotionConflict:
            return False

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(go_back, (a, b, a, b))) == [False, False, False, True]


def test_an_unknown_version_is_not_promoted(host: Host) -> None:
    for name in ("lda-00000000", "", "..", "../../x", "a/b", "\0"):
        with pytest.raises(NotFound, match="has no version"):
            host("a").promote(7, name)
        with pytest.raises(NotFound, match="has no version"):
            host("a").version(7, name)


def test_what_nobody_needs_is_pruned_from_the_store_and_from_every_host(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    names = added(a, tmp_path, "abcde")
    for name in names[:4]:
        a.promote(7, name)
        assert b.current(7).name == name
    assert [version.name for version in b.prune(7, 0, in_use=names[:1])] == [names[1], names[4]]
    uploads = {name.split("/")[2] for name in a.bucket.list("versions/7")}
    assert uploads == {names[0], names[2], names[3]}
    assert [version.name for version in a.versions(7)] == [a.base.name, names[0], names[2], names[3]]
    assert sorted(path.name for path in (tmp_path / "a" / "project-7" / "versions").glob("[!.]*")) == sorted(uploads)
    # Learnt again, it is there again.
    assert_whole(a.add(7, tmp_path / "new-b", {}).folder, names[1])
    assert_whole(b.version(7, names[1]).folder, names[1])


def test_what_is_promoted_at_that_moment_is_not_pruned(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    barrier = threading.Barrier(2)
    promoted = 0
    for letter in "abcdef":
        (name,) = added(a, tmp_path, letter)

        def promote(name: str = name) -> bool:
            barrier.wait(20)
            try:
                return a.promote(7, name).name == name
            except NotFound:
                return False

        def prune() -> None:
            barrier.wait(20)
            b.prune(7, 0)

        with ThreadPoolExecutor(2) as threads:
            happened, pruned = threads.submit(promote), threads.submit(prune)
            pruned.result()
            assert happened.result() is (b.current(7).name == name)
        promoted += happened.result()
        assert_whole(b.current(7).folder, b.current(7).name)
        shutil.rmtree(tmp_path / "a" / "project-7" / "versions" / name, ignore_errors=True)
        a.promote(7, a.base.name)


def test_a_learnt_version_is_pruned_while_another_host_adds_it_again(host: Host, tmp_path: Path) -> None:
    """Whatever comes first, what the record names is whole."""
    a, b = host("a"), host("b")
    (name,) = added(a, tmp_path, "x")
    done = threading.Event()

    def prune() -> None:
        while not done.is_set():
            b.prune(7, 0)

    with ThreadPoolExecutor(1) as threads:
        pruning = threads.submit(prune)
        for _ in range(6):
            a._share(7, name, tmp_path / "new-x", {})
        done.set()
        pruning.result()
    a._share(7, name, tmp_path / "new-x", {})
    assert_whole(host("c").version(7, name).folder, name)


def test_readers_see_whole_versions_while_another_host_writes(host: Host, tmp_path: Path) -> None:
    a = host("a")
    folders = [make_checkpoint(tmp_path / str(n), str(n)) for n in range(8)]
    done = threading.Event()
    seen = []

    def read() -> None:
        b = host("b")
        while not done.is_set():
            version = b.current(7)
            assert_whole(version.folder, version.name)
            seen.append(version.name)
            assert b.pointer(7).version in b.pointer(7).served
            assert b.versions(7)[0] == b.base

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for number, folder in enumerate(folders):
            a.promote(7, a.add(7, folder, {}).name)
            if number % 3 == 2:
                a.rollback(7)
            a.prune(7, 0)
        done.set()
        for reader in readers:
            reader.result()
    assert len(set(seen)) > 2


def test_killed_at_any_step_a_writer_leaves_nothing_torn(tmp_path: Path, shipped: Path) -> None:
    """On a folder, at each step on files: of adding, and of promoting."""
    candidate = make_checkpoint(tmp_path / "candidate", "candidate")
    name = checkpoint_files.version(candidate)
    seen = set()
    for step in range(1 + SEED % STRIDE, 400, STRIDE):
        share = tmp_path / f"share-{step}"
        share.mkdir()

        def act(share: Path = share, step: int = step) -> None:
            writer = SharedRegistry(tmp_path / f"a-{step}", shipped, FolderBucket(share))
            writer.promote(7, writer.add(7, candidate, {"iou": 1}).name)

        code = run_in_child(act, kill_at=step)
        reader = SharedRegistry(tmp_path / f"b-{step}", shipped, FolderBucket(share))
        version = reader.current(7)
        seen.add((len(reader.versions(7)), version != reader.base))
        if version != reader.base:
            assert_whole(version.folder, name)
        # The next writer, on the same host, gets through.
        act()
        assert_whole(reader.current(7).folder, name)
        assert len(reader.versions(7)) == 2
        if code == 0:
            break
        shutil.rmtree(share)
    else:
        pytest.fail("the writer never finished")
    assert {(1, False), (2, True)} <= seen <= {(1, False), (2, False), (2, True)}


@pytest.mark.slow
def test_killed_at_any_request_a_writer_leaves_nothing_torn(tmp_path: Path, shipped: Path, address: str) -> None:
    """On S3: before each request, which is after the one before it."""
    seen = set()
    for step in range(1 + SEED % 3, 61, 3):
        candidate = make_checkpoint(tmp_path / f"candidate-{step}", str(step))
        name = checkpoint_files.version(candidate)
        code = killed_at(step, tmp_path / f"a-{step}", shipped, f"{address}/{step}", candidate)
        reader = SharedRegistry(tmp_path / f"b-{step}", shipped, open_bucket(f"{address}/{step}"))
        version = reader.current(7)
        seen.add((len(reader.versions(7)), version != reader.base))
        if version != reader.base:
            assert_whole(version.folder, name)
        writer = SharedRegistry(tmp_path / f"a-{step}", shipped, open_bucket(f"{address}/{step}"))
        writer.promote(7, writer.add(7, candidate, {}).name)
        assert_whole(reader.current(7).folder, name)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    else:
        pytest.fail("the writer never finished")
    assert {(1, False), (2, True)} <= seen <= {(1, False), (2, False), (2, True)}


def test_what_a_killed_writer_left_is_pruned_a_day_later(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    (name,) = added(a, tmp_path, "x")
    a.promote(7, name)
    a.bucket.upload("versions/7/lda-00000000/0123/model.safetensors", tmp_path / "new-x" / "model.safetensors")
    a.prune(7, 0)
    assert any("lda-00000000" in address for address in a.bucket.list("versions/7"))
    monkeypatch.setattr(shared, "_UPLOAD_SECONDS", -5.0)
    a.prune(7, 0)
    assert {address.split("/")[2] for address in a.bucket.list("versions/7")} == {name}
    assert_whole(host("b").current(7).folder, name)


@pytest.mark.parametrize("fault", ["reset", "403", "500"])
def test_while_the_store_fails_what_is_known_is_served(
    tmp_path: Path, shipped: Path, address: str, gateway: Gateway, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = (SharedRegistry(tmp_path / name, shipped, open_bucket(address)) for name in "abc")
    first, second = added(a, tmp_path, "ab")
    a.promote(7, first)
    assert b.current(7).name == first
    assert b.trouble is None
    gateway.fault = fault
    with caplog.at_level(logging.WARNING):
        assert_whole(b.current(7).folder, first)
    assert "Project 7 goes on with what is known here" in caplog.text
    assert b.trouble
    assert len(b.versions(7)) == 3
    for action in (lambda: b.promote(7, second), lambda: b.rollback(7), lambda: b.version(7, second)):
        with pytest.raises(StoreError):
            action()
    with pytest.raises(StoreError):
        b.add(7, make_checkpoint(tmp_path / "new", "new"), {})
    # Who knows nothing yet doesn't take what every project starts at for what serves.
    with pytest.raises(StoreError):
        c.current(7)
    gateway.fault = None
    a.promote(7, second)
    assert b.current(7).name == c.current(7).name == second
    assert b.trouble is None


def test_an_answer_that_is_lost_costs_nothing(tmp_path: Path, shipped: Path, address: str, gateway: Gateway) -> None:
    """obstore sends the write again, and hears that the object is another: it is the one that was to be."""
    a = SharedRegistry(tmp_path / "a", shipped, open_bucket(address))
    first, second = added(a, tmp_path, "ab")
    for name in (first, second):
        gateway.lose_answers = 1
        a.promote(7, name, instead_of=a.pointer(7).version)
        assert gateway.lose_answers == 0
    assert a.pointer(7).earlier == (a.base.name, first)


def test_what_is_damaged_on_its_way_is_fetched_anew(
    tmp_path: Path, shipped: Path, address: str, gateway: Gateway
) -> None:
    a, b = (SharedRegistry(tmp_path / name, shipped, open_bucket(address)) for name in "ab")
    (name,) = added(a, tmp_path, "x")
    a.promote(7, name)
    gateway.fault, gateway.damage_left = "damage", 1
    assert_whole(b.current(7).folder, name)
    assert gateway.damage_left == 0


def test_a_damaged_object_is_refused(host: Host, tmp_path: Path, bucket: Bucket) -> None:
    a, b = host("a"), host("b")
    first, second = added(a, tmp_path, "xy")
    a.promote(7, first)
    assert b.current(7).name == first
    [weights] = [name for name in bucket.list("versions/7") if f"{second}/" in name and "safetensors" in name]
    (tmp_path / "bad").write_bytes(b"damaged")
    bucket.upload(weights, tmp_path / "bad")
    with pytest.raises(StoreDamaged, match=rf"{second}/.*isn't what was put there"):
        b.promote(7, second)
    a.promote(7, second)
    # Who has it not goes on with what it has, and takes the good one once it is there.
    assert b.current(7).name == first
    assert b.trouble
    bucket.upload(weights, tmp_path / "new-y" / "model.safetensors")
    assert_whole(b.current(7).folder, second)
    bucket.delete(weights)
    # It doesn't take what every project starts at for what serves.
    with pytest.raises(StoreDamaged, match="is missing"):
        host("c").current(7)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"format": "ris-studio record 2"}'])
def test_a_damaged_record_is_named_and_what_is_known_served(host: Host, tmp_path: Path, data: bytes) -> None:
    a, b = host("a"), host("b")
    (name,) = added(a, tmp_path, "x")
    a.promote(7, name)
    b.read(7)
    a.bucket.swap("records/7.json", data, a.bucket.read("records/7.json"))
    assert b.current(7).name == name
    assert "records/7.json isn't what" in str(b.trouble)
    with pytest.raises(StoreDamaged, match=r"records/7.json isn't what"):
        a.promote(7, a.base.name)


@pytest.mark.parametrize("name", ["..", "a/b", "", "a\0"])
def test_names_in_a_record_stay_within_their_folder(host: Host, tmp_path: Path, name: str) -> None:
    a = host("a")
    added(a, tmp_path, "x")
    stored = a.bucket.read("records/7.json")
    assert stored
    content = json.loads(stored.data)
    [entry] = content["versions"].values()
    for versions in ({name: entry}, {"x": entry | {"upload": name}}, {"x": entry | {"files": {name: "0"}}}):
        damaged = json.dumps(content | {"versions": versions, "revision": 9}).encode()
        a.bucket.swap("records/7.json", damaged, a.bucket.read("records/7.json"))
        with pytest.raises(StoreDamaged, match="isn't a name"):
            host("b").current(7)


def test_a_store_that_was_put_back_is_not_taken_for_the_newest(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    first, second = added(a, tmp_path, "xy")
    a.promote(7, first)
    before = a.bucket.read("records/7.json")
    assert before
    a.promote(7, second)
    assert b.current(7).name == second
    a.bucket.swap("records/7.json", before.data, a.bucket.read("records/7.json"))
    c = host("c")
    c.promote(7, c.base.name)
    assert b.current(7).name == second
    assert re.search(r"two histories .* delete .*record.json", str(b.trouble))
    (tmp_path / "b" / "project-7" / "record.json").unlink()
    assert b.current(7) == b.base


def test_two_processes_that_fetch_at_once_get_one_whole_version(host: Host, tmp_path: Path) -> None:
    a = host("a")
    (name,) = added(a, tmp_path, "x")
    a.promote(7, name)
    with ThreadPoolExecutor(6) as threads:
        folders = {version.folder for version in threads.map(lambda _: host("b").current(7), range(6))}
    assert len(folders) == 1
    assert_whole(folders.pop(), name)


def test_what_is_not_used_is_evicted_and_fetched_again(host: Host, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    names = added(a, tmp_path, "abc")
    for name in names:
        a.promote(7, name)
        b.current(7)
    versions = tmp_path / "b" / "project-7" / "versions"
    for folder in versions.iterdir():
        os.utime(folder, (time.time() - 2 * IDLE_SECONDS,) * 2)
    b.pull(7)
    # What serves, and what a rollback goes to.
    assert sorted(path.name for path in versions.glob("[!.]*")) == sorted(names[1:])
    assert_whole(b.version(7, names[0]).folder, names[0])


def test_a_home_is_the_cache_of_one_store(tmp_path: Path, shipped: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    SharedRegistry(tmp_path / "home", shipped, FolderBucket(tmp_path / "one"))
    with pytest.raises(RegistryError, match=r"is a cache of .*one, not of .*other"):
        SharedRegistry(tmp_path / "home", shipped, FolderBucket(tmp_path / "other"))
    assert store_of(tmp_path / "home") == str(tmp_path / "one")
    assert store_of(tmp_path / "elsewhere") is None
    own = Registry(tmp_path / "own", shipped)
    own.add(7, make_checkpoint(tmp_path / "x", "x"), {})
    with pytest.raises(RegistryError, match="lie in no store"):
        SharedRegistry(tmp_path / "own", shipped, FolderBucket(tmp_path / "one"))


def test_a_zero_shot_segmenter_serves_on_all_hosts(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the settings of one host name becomes a version, for others may name another."""
    pointer = fake_pointer("grounding-dino+sam2", tmp_path / "cache", monkeypatch)
    a = SharedRegistry(tmp_path / "a", pointer, bucket)
    b = SharedRegistry(tmp_path / "b", None, bucket)
    learnt = a.add(7, make_checkpoint(tmp_path / "x", "x"), {})
    a.promote(7, learnt.name)
    a.promote(7, a.base.name)
    assert b.current(7).name == a.base.name
    assert b.current(7).card["origin"] == "zero-shot"
    assert b.read(7).start.name == learnt.name
    assert_whole(b.read(7).start.folder, learnt.name)


def test_who_does_not_ask_serves_what_others_brought(host: Host, tmp_path: Path, shipped: Path, bucket: Bucket) -> None:
    a = host("a")
    (name,) = added(a, tmp_path, "x")
    a.promote(7, name)
    quiet = SharedRegistry(tmp_path / "b", shipped, bucket, asks=False)
    assert quiet.current(7) == quiet.base
    host("b").pull(7)
    assert quiet.current(7).name == name
    shutil.rmtree(quiet.current(7).folder)
    with pytest.raises(RegistryError, match="is missing"):
        quiet.current(7)
