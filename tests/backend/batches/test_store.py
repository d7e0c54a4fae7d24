"""Batches in a real Valkey: what is claimed, lost, handed in, cancelled and tried again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from backend.batches import store
from backend.batches.store import CLOSING, Batch, BatchEnded, BatchSpec, BatchStore, Chunk, chunk_size
from backend.errors import NotFound

SPEC = BatchSpec(project=3, model="lda-1a2b3c4d", version="lda-1a2b3c4d.3fa2c1", prompts=(("the cat", None),))


@pytest.fixture
def batches(redis: Redis) -> BatchStore:
    return BatchStore(redis)


@pytest.fixture
def make(batches: BatchStore) -> Callable[[int], str]:
    return lambda tasks: batches.create(SPEC, range(1, tasks + 1)).id


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LEASE_SECONDS", 0.05)


def claim(batches: BatchStore, batch: str, owner: str = "me") -> Chunk:
    chunk = batches.claim(batch, owner)
    assert chunk is not None
    return chunk


def work_off(batches: BatchStore, batch: str, owner: str = "me") -> list[int]:
    """Claim and hand in all that there is; which tasks that were."""
    tasks: list[int] = []
    while (chunk := claim(batches, batch, owner)).name != CLOSING:
        tasks += chunk.tasks
        assert batches.finish(batch, owner, chunk.name, done=len(chunk.tasks))
    assert batches.close(batch, owner)
    return tasks


def test_what_was_asked_for_is_kept(batches: BatchStore) -> None:
    made = batches.create(SPEC, [4, 5, 4])
    assert batches.get(made.id) == made
    assert (made.spec, made.state, made.total, made.handled) == (SPEC, "running", 2, 0)
    assert sorted(batches.tasks(made.id)) == [4, 5]


def test_each_task_is_claimed_once_and_then_the_batch_is_done(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(40)
    assert work_off(batches, batch) == list(range(1, 41))
    ended = batches.get(batch)
    assert (ended.state, ended.done, ended.handled) == ("done", 40, 40)
    assert batches.running() == []


def test_many_owners_share_the_tasks_without_overlap(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(1000)

    def run(owner: int) -> list[int]:
        tasks: list[int] = []
        while (chunk := batches.claim(batch, str(owner))) and chunk.name != CLOSING:
            tasks += chunk.tasks
            batches.finish(batch, str(owner), chunk.name, done=len(chunk.tasks))
        return tasks

    with ThreadPoolExecutor(8) as threads:
        shares = list(threads.map(run, range(8)))
    assert sorted(task for share in shares for task in share) == list(range(1, 1001))
    assert batches.get(batch).done == 1000


def test_while_others_hold_what_is_left_there_is_nothing_to_claim(
    batches: BatchStore, make: Callable[[int], str]
) -> None:
    batch = make(5)
    chunk = claim(batches, batch, "first")
    assert batches.claim(batch, "second") is None
    batches.finish(batch, "first", chunk.name, done=5)
    assert claim(batches, batch, "second").name == CLOSING


@pytest.mark.usefixtures("short_leases")
def test_the_chunk_of_a_dead_owner_is_claimed_again_and_its_late_word_does_not_count(
    batches: BatchStore, make: Callable[[int], str]
) -> None:
    batch = make(5)
    chunk = claim(batches, batch, "dead")
    assert batches.claim(batch, "living") is None
    time.sleep(0.06)
    assert claim(batches, batch, "living") == chunk
    assert not batches.begin(batch, "dead", chunk.name, 30)
    assert not batches.finish(batch, "dead", chunk.name, done=5)
    batches.release(batch, "dead", chunk.name)
    assert batches.claim(batch, "third") is None
    assert batches.finish(batch, "living", chunk.name, done=5)
    assert batches.get(batch).done == 5


@pytest.mark.usefixtures("short_leases")
def test_a_lease_that_is_renewed_lasts(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(5)
    chunk = claim(batches, batch)
    for _ in range(4):
        time.sleep(0.03)
        assert batches.renew(batch, "me", [chunk.name])
    assert batches.claim(batch, "other") is None


@pytest.mark.usefixtures("short_leases")
def test_a_chunk_that_is_being_written_is_out_of_reach_for_longer(
    batches: BatchStore, make: Callable[[int], str]
) -> None:
    batch = make(5)
    chunk = claim(batches, batch, "dies writing")
    assert batches.begin(batch, "dies writing", chunk.name, 0.3)
    # A renewal that comes after it doesn't shorten it.
    batches.renew(batch, "dies writing", [chunk.name])
    batches.release(batch, "dies writing", chunk.name, at_once=False)
    time.sleep(0.1)
    assert batches.claim(batch, "other") is None
    time.sleep(0.25)
    assert claim(batches, batch, "other") == chunk


def test_what_is_given_back_is_claimed_at_once(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(5)
    chunk = claim(batches, batch)
    batches.release(batch, "me", chunk.name)
    assert claim(batches, batch, "other") == chunk


@pytest.mark.usefixtures("short_leases")
def test_a_task_that_kills_whoever_works_on_it_fails_alone(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(3)
    done: list[int] = []
    while (chunk := batches.claim(batch, "me")) is None or chunk.name != CLOSING:
        if chunk is None or 2 in chunk.tasks:
            time.sleep(0.06)
            continue
        done += chunk.tasks
        batches.finish(batch, "me", chunk.name, done=len(chunk.tasks))
    assert sorted(done) == [1, 3]
    ended = batches.get(batch, reasons=True)
    assert (ended.failed, list(ended.reasons)) == (1, [2])
    assert "dies" in ended.reasons[2]


def test_failures_are_kept_with_their_reasons_and_tried_again_by_resume(
    batches: BatchStore, make: Callable[[int], str]
) -> None:
    batch = make(3)
    chunk = claim(batches, batch)
    batches.finish(batch, "me", chunk.name, done=1, skipped=1, failed={3: "The image is damaged." + "x" * 1000})
    claim(batches, batch)
    batches.close(batch, "me")
    ended = batches.get(batch, reasons=True)
    assert (ended.state, ended.done, ended.skipped, ended.failed) == ("done", 1, 1, 1)
    assert ended.reasons[3].startswith("The image is damaged.")
    assert len(ended.reasons[3]) < 500
    assert batches.failures(batch, [1, 2, 3]) == {3}
    assert (batches.resume(batch).state, batches.get(batch).failed) == ("running", 0)
    assert claim(batches, batch).tasks == (3,)


def test_the_closing_queues_what_is_missing_again(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(3)
    chunk = claim(batches, batch)
    batches.finish(batch, "me", chunk.name, done=3)
    assert claim(batches, batch).name == CLOSING
    assert batches.close(batch, "me", missing=[2])
    again = batches.get(batch)
    assert (again.state, again.done, again.rounds) == ("running", 2, 1)
    assert work_off(batches, batch) == [2]
    assert batches.get(batch).done == 3


def test_a_cancelled_batch_gives_nothing_and_takes_nothing_until_it_is_resumed(
    batches: BatchStore, make: Callable[[int], str], redis: Redis
) -> None:
    batch = make(40)
    chunk = claim(batches, batch)
    assert batches.cancel(batch, "Not now.").note == "Not now."
    with pytest.raises(BatchEnded):
        batches.claim(batch, "other")
    assert not batches.begin(batch, "me", chunk.name, 30)
    assert not batches.renew(batch, "me", [chunk.name])
    assert not batches.add(batch, [99])
    assert 0 < redis.ttl(f"ris:batch:{batch}") <= store.KEPT_SECONDS
    batches.release(batch, "me", chunk.name)
    assert batches.resume(batch).note == ""
    assert redis.ttl(f"ris:batch:{batch}") == -1
    assert work_off(batches, batch) == list(range(1, 41))


def test_a_batch_whose_runners_all_die_ends_with_a_sentence(
    batches: BatchStore, make: Callable[[int], str], redis: Redis
) -> None:
    """Those that end by themselves, or hand a chunk in, don't count."""
    batch = make(40)
    for _ in range(2 * store.MOST_DEATHS):
        assert batches.start_run(batch)
        batches.end_run(batch)
    for _ in range(store.MOST_DEATHS):
        assert batches.start_run(batch)
    chunk = claim(batches, batch)
    assert batches.finish(batch, "me", chunk.name, done=len(chunk.tasks))
    batches.end_run(batch)
    for _ in range(store.MOST_DEATHS):
        assert batches.start_run(batch)
    assert not batches.start_run(batch)
    ended = batches.get(batch)
    assert (ended.state, ended.done) == ("cancelled", len(chunk.tasks))
    assert ended.note.startswith("Its worker died 24 times in a row before it had done anything: see the worker's log.")
    assert 0 < redis.ttl(f"ris:batch:{batch}") <= store.KEPT_SECONDS
    assert not batches.start_run(batch)
    batches.resume(batch)
    assert batches.start_run(batch)
    assert work_off(batches, batch) == list(range(1 + len(chunk.tasks), 41))


def test_tasks_join_a_running_batch_once(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(2)
    assert batches.missing(batch, [2, 3]) == [3]
    assert batches.add(batch, [2, 3])
    assert batches.get(batch).total == 3
    assert work_off(batches, batch) == [1, 2, 3]


def test_tasks_that_join_during_the_closing_are_done_too(batches: BatchStore, make: Callable[[int], str]) -> None:
    batch = make(1)
    batches.finish(batch, "me", claim(batches, batch).name, done=1)
    assert claim(batches, batch).name == CLOSING
    batches.add(batch, [7])
    batches.close(batch, "me")
    assert batches.get(batch).state == "running"
    assert work_off(batches, batch) == [7]


def test_a_batch_whose_listing_broke_off_never_runs_and_vanishes(batches: BatchStore, redis: Redis) -> None:
    def listing() -> object:
        yield 1
        raise ConnectionError

    with pytest.raises(ConnectionError):
        batches.create(SPEC, listing())  # type: ignore[arg-type]
    assert list(batches.all()) == []
    assert all(0 < redis.ttl(key) <= 3600 for key in redis.keys("ris:batch:*"))


def test_thousands_of_tasks_are_read_page_by_page(batches: BatchStore, redis: Redis) -> None:
    held = []

    def ids() -> object:
        for number in range(5000):
            if number % 1000 == 0:
                held.append(redis.dbsize())
            yield number + 1

    made = batches.create(SPEC, ids())  # type: ignore[arg-type]
    assert made.total == 5000
    # What came before was in Valkey before the rest was asked for.
    assert held[-1] > held[0]


def test_unknown_batches_are_said_to_be(batches: BatchStore) -> None:
    for call in (batches.get, batches.cancel, batches.resume):
        with pytest.raises(NotFound, match="ris jobs"):
            call("nowhere")


def test_a_note_says_what_it_waits_for_until_a_chunk_is_handed_in(
    batches: BatchStore, make: Callable[[int], str]
) -> None:
    batch = make(2)
    batches.note(batch, "Waiting: Label Studio can't be reached.")
    assert "Waiting" in batches.get(batch).note
    batches.finish(batch, "me", claim(batches, batch).name, done=2)
    assert batches.get(batch).note == ""


@pytest.mark.parametrize(("tasks", "size"), [(1, 16), (1000, 16), (2000, 31), (100_000, 512)])
def test_chunks_grow_with_the_batch_within_bounds(tasks: int, size: int) -> None:
    assert chunk_size(tasks) == size


@given(st.integers(1, 5000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_chunks_are_small_so_that_runners_end_together(batches: BatchStore, tasks: int) -> None:
    batch = batches.create(SPEC, range(1, tasks + 1)).id
    sizes = []
    while (chunk := claim(batches, batch)).name != CLOSING:
        sizes.append(len(chunk.tasks))
        batches.finish(batch, "me", chunk.name, done=len(chunk.tasks))
    assert sum(sizes) == tasks
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= chunk_size(tasks)
    # Never more than a quarter of what is left, rounded up, nor less than 8 unless that is all.
    left = tasks
    for size in sizes:
        assert size == min(left, chunk_size(tasks), max(8, -(-left // 4)))
        left -= size
    # Imports are what it costs: about as many more as a quarter is taken off before 8 are left.
    assert len(sizes) <= tasks / chunk_size(tasks) + 14


STORED = {
    "state": "running",
    "order": '{"project": 3, "model": "lda-1a2b3c4d", "version": "lda-1a2b3c4d.3fa2c1", "prompts": [["the cat", null], '
    '["a dog", "dog"]], "force": true, "origin": "promotion", "view": 7}',
    "created": "1795811774.801558",
    "started": "1795811774.80207",
    "updated": "1795811784.80207",
    "size": "16",
    "sequence": "2",
    "total": "40",
    "done": "14",
    "skipped": "1",
    "failed": "1",
    "note": "Waiting: Label Studio can't be reached.",
}
"""A batch's record as the first release wrote it: the names outlive an upgrade."""


def test_a_batch_begun_before_an_upgrade_goes_on(batches: BatchStore, redis: Redis) -> None:
    batch, key = "5325ef71", "ris:batch:5325ef71"
    redis.hset(key, mapping=STORED)
    redis.hset(f"{key}:chunks", mapping={"2": "17,18,19", "2:owner": "dead", "2:claims": "1"})
    redis.hset(f"{key}:failed", "16", "The image is damaged.")
    redis.zadd(f"{key}:leases", {"2": 1795811780.803147 - 1e9})
    redis.sadd(f"{key}:tasks", *range(1, 24))
    redis.rpush(f"{key}:todo", 20, 21, 22, 23)
    redis.zadd("ris:batches", {batch: 1795811774.801558})

    (running,) = batches.running()
    prompts = (("the cat", None), ("a dog", "dog"))
    assert running.spec == BatchSpec(3, SPEC.model, SPEC.version, prompts, force=True, origin="promotion", view=7)
    assert (running.total, running.handled, running.seconds) == (40, 16, pytest.approx(10))
    assert batches.get(batch, reasons=True).reasons == {16: "The image is damaged."}
    assert work_off(batches, batch) == [17, 18, 19, 20, 21, 22, 23]
    assert batches.get(batch).state == "done"
    assert 0 < redis.ttl(key) <= store.KEPT_SECONDS


def test_what_is_stored_is_what_the_first_release_reads(batches: BatchStore, redis: Redis) -> None:
    batch = batches.create(BatchSpec(3, SPEC.model, SPEC.version, (("the cat", None), ("a dog", "dog")), True), [1]).id
    batches.finish(batch, "me", claim(batches, batch).name, skipped=1, failed={1: "The image is damaged."})
    claim(batches, batch)
    batches.note(batch, "Waiting")
    record = {name.decode(): value.decode() for name, value in redis.hgetall(f"ris:batch:{batch}").items()}
    assert record.keys() == STORED.keys()
    assert json.loads(record["order"]).keys() == json.loads(STORED["order"]).keys()
    assert redis.hgetall(f"ris:batch:{batch}:chunks").keys() == {b"closing", b"closing:owner", b"closing:claims"}
    parts = {key.decode().removeprefix(f"ris:batch:{batch}") for key in redis.keys("*")}
    assert parts == {"", ":chunks", ":failed", ":leases", ":tasks", "ris:batches"}


def test_a_batch_as_json_has_its_rate_and_the_time_left() -> None:
    batch = Batch("b", SPEC, "running", 0.0, total=100, done=20, skipped=30, seconds=10.0)
    assert (batch.as_json()["rate"], batch.as_json()["seconds_left"]) == (2.0, 25.0)
    assert Batch("b", SPEC, "running", 0.0, total=1).as_json()["seconds_left"] is None
    # The fields of what was asked for stand beside its own.
    assert (batch.as_json()["project"], batch.as_json()["version"]) == (3, SPEC.version)
    assert not {"spec", "order"} & batch.as_json().keys()


def test_all_batches_are_listed_in_few_round_trips_and_those_that_ran_out_are_forgotten(
    batches: BatchStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PAGE", 10)
    made = [batches.create(SPEC, [task]).id for task in range(1, 36)]
    assert [batch.id for batch in batches.all()] == made[::-1]
    assert list(batches.all()) == [batches.get(name) for name in made[::-1]]
    redis.delete(f"ris:batch:{made[7]}", f"ris:batch:{made[30]}")
    left = [name for name in made[::-1] if name not in (made[7], made[30])]
    before = redis.info("stats")["total_reads_processed"]
    assert [batch.id for batch in batches.all()] == left
    # One for the names, four of pages, two forgotten; a read of the server's may hold but a part of a page.
    assert redis.info("stats")["total_reads_processed"] - before < 20
    assert redis.zcard("ris:batches") == 33
