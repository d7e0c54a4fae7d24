"""The log of events on a real Valkey: what is news, what counts, and what becomes of it while Valkey is away."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from recorded import recorded
from redis import Redis

from backend.labelstudio.webhooks import CREATED, START_TRAINING, UPDATED, Event, read_events
from backend.learning import events
from backend.learning.events import MISSED, EventLog, ProjectCounts
from backend.queue.queue import connect

START = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    """As Label Studio writes a time: a whole second has no fraction."""
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def saved(annotation: int, seconds: float = 0, task: int | None = None, **more: Any) -> Event:
    return Event(more.pop("action", CREATED), task or annotation, annotation, at(seconds), **more)


@pytest.fixture
def log(redis_url: str, tmp_path: Path) -> EventLog:
    return EventLog(connect(redis_url), tmp_path)


@pytest.fixture
def away(tmp_path: Path) -> EventLog:
    """The log of a backend whose Valkey isn't there."""
    return EventLog(connect(f"redis://:secret@127.0.0.1:{free_port()}/0"), tmp_path)


def logged(log: EventLog, project: int = 1) -> list[Event]:
    return [event for _, event in log.events(project)]


def fresh(log: EventLog) -> int:
    return log.changes(1).fresh


def test_repeated_and_overtaken_events_add_nothing(log: EventLog) -> None:
    assert log.append(1, saved(5, 1)) == "new"
    assert log.append(1, saved(5, 1)) == "known"
    assert log.append(1, saved(5, 2.5, action=UPDATED)) == "new"
    # As text, "02:00:02Z" would come after "02:00:02.5Z".
    assert log.append(1, saved(5, 2, action=UPDATED)) == "known"
    assert log.append(1, Event("ANNOTATIONS_DELETED", annotation=5)) == "new"
    assert log.append(1, saved(5, 9, action=UPDATED)) == log.append(1, Event("ANNOTATIONS_DELETED", annotation=5))
    assert [event.updated for event in logged(log)] == [at(1), at(2.5), ""]
    assert log.append(2, saved(5, 1)) == "new", "projects have nothing to do with each other"
    assert log.projects() == {1, 2}


def test_a_thousand_threads_with_the_same_event_add_it_once(log: EventLog) -> None:
    with ThreadPoolExecutor(16) as threads:
        became = list(threads.map(lambda _: log.append(1, saved(5)), range(1000)))
    assert became.count("new") == len(logged(log)) == 1


def test_any_order_counts_the_same(redis_url: str, tmp_path: Path) -> None:
    """40 annotations of 30 tasks, some saved again, some deleted; each event up to three times, in any order."""
    story = [saved(number, number, task=number % 30 + 1) for number in range(1, 41)]
    story += [saved(number, 100 + number, task=number % 30 + 1, action=UPDATED) for number in range(1, 41, 3)]
    story += [Event("ANNOTATIONS_DELETED", annotation=number) for number in range(5, 41, 7)]
    for seed in range(5):
        draw = random.Random(seed)
        log = EventLog(connect(redis_url), tmp_path)
        for event in draw.sample(story * 3, 3 * len(story)):
            log.append(10 + seed, event)
        last = {event.annotation: event for event in logged(log, 10 + seed)}
        truth = {event.annotation: event for event in story}
        assert last == truth, "the last event of each annotation is what was done last"


def test_what_counts_is_tasks(log: EventLog) -> None:
    assert fresh(log) == 0
    for event in (saved(1, task=7), saved(2, task=7), saved(3, task=8)):
        log.append(1, event)
    assert fresh(log) == 2
    # A skip says nothing, unless it takes back what was said.
    log.append(1, saved(4, task=9, cancelled=True))
    log.append(1, saved(14, task=19, action=MISSED, cancelled=True))
    assert fresh(log) == 2
    log.append(1, saved(5, task=10, action=UPDATED, cancelled=True))
    assert fresh(log) == 3
    # Label Studio doesn't say of which task an annotation was that is deleted; the log may know.
    log.append(1, Event("ANNOTATIONS_DELETED", annotation=3))
    assert fresh(log) == 3
    log.append(1, Event("ANNOTATIONS_DELETED", annotation=6))
    log.append(1, Event("TASKS_DELETED", task=11))
    assert fresh(log) == 5
    assert not log.changes(1).forced
    log.append(1, Event(START_TRAINING))
    assert (fresh(log), log.changes(1).forced) == (5, True)


def test_a_learning_takes_care_of_what_is_logged_by_then(log: EventLog) -> None:
    log.append(1, saved(1))
    log.append(1, saved(2))
    first = log.changes(1).first
    log.begin(1, "learn-1-aa")
    log.append(1, saved(3))
    found = log.changes(1)
    assert (found.fresh, found.pending, found.job, found.since) == (1, 2, "learn-1-aa", first)
    log.end(1, 0)
    found = log.changes(1)
    assert (found.fresh, found.pending, found.job, found.since) == (1, 0, "", None)
    assert found.first is not None
    assert first is not None
    assert found.first >= first


def test_what_was_too_little_to_learn_from_still_counts(log: EventLog) -> None:
    log.append(1, saved(1))
    first = log.changes(1).first
    log.begin(1, "a")
    log.end(1, 1)
    log.append(1, saved(2))
    found = log.changes(1)
    assert (found.fresh, found.pending, found.since) == (1, 1, first)


def test_after_a_learning_that_failed_all_of_it_counts_again(log: EventLog) -> None:
    log.append(1, saved(1))
    log.begin(1, "a")
    log.append(1, saved(2))
    log.end(1, None)
    assert (log.changes(1).fresh, log.changes(1).pending) == (1, 1)
    log.begin(1, "b")
    found = log.changes(1)
    assert (found.fresh, found.pending, found.job) == (0, 2, "b")


def test_a_second_try_after_a_kill_is_about_the_same(log: EventLog) -> None:
    log.append(1, saved(1))
    log.begin(1, "a")
    log.begin(1, "a")
    assert (log.changes(1).fresh, log.changes(1).pending) == (0, 1)


def test_asking_is_about_the_events_so_far(log: EventLog) -> None:
    log.append(1, saved(1))
    log.note_queued(1, log.changes(1))
    assert log.changes(1).queued == pytest.approx(time.time(), abs=5)
    log.append(1, saved(2))
    assert log.changes(1).queued == 0


def test_what_was_seen_is_kept(log: EventLog) -> None:
    assert log.last_probe(1) == (None, float("inf"))
    log.note_probe(1)
    seen, age = log.last_probe(1)
    assert (seen, age < 5) == (None, True)
    log.note_probe(1, ProjectCounts(3, 2, at(0)))
    assert log.last_probe(1)[0] == ProjectCounts(3, 2, at(0))


def test_the_log_is_bounded_and_forgets(log: EventLog, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 100)
    for number in range(1, 1001):
        log.append(1, saved(number))
    # Valkey drops whole blocks of a hundred.
    assert 100 <= len(logged(log)) <= 200
    log.begin(1, "a")
    keys = set(redis.scan_iter("ris:events:1*"))
    assert len(keys) == 3
    assert all(0 < redis.ttl(key) <= events.KEPT_SECONDS for key in keys)


def test_without_valkey_events_wait_in_a_file(log: EventLog, away: EventLog, tmp_path: Path) -> None:
    story = [saved(1), saved(2, cancelled=True), Event(START_TRAINING), Event("ANNOTATIONS_DELETED", annotation=1)]
    assert {away.append(1, event) for event in story} == {"spooled"}
    assert away.append(2, saved(3)) == "spooled"
    assert log.unspool() == 5
    assert logged(log) == story
    assert logged(log, 2) == [saved(3)]
    assert log.unspool() == 0
    assert (tmp_path / "spool" / "events.lock").stat().st_size == 0
    # Nobody else needs to know when who did what.
    away.append(1, saved(4))
    assert (tmp_path / "spool" / "events.jsonl").stat().st_mode & 0o077 == 0


def test_a_kill_in_the_middle_of_reading_back_costs_nothing(log: EventLog, away: EventLog, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        away.append(1, saved(number))
    folder = tmp_path / "spool"
    (folder / "events.jsonl").rename(folder / "events.reading.jsonl")
    log.append(1, saved(1))
    # Another is killed while it writes its line.
    away.append(1, saved(4))
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"project": 1, "act')
    assert log.unspool() == 3
    assert log.unspool() == 1
    assert [event.annotation for event in logged(log)] == [1, 2, 3, 4]


def test_valkey_going_away_while_reading_back_loses_nothing(log: EventLog, away: EventLog) -> None:
    away.append(1, saved(1))
    with pytest.raises(Exception, match="refused"):
        away.unspool()
    assert log.unspool() == 1


def test_nothing_but_ids_times_and_actions_is_kept(log: EventLog, redis: Redis, away: EventLog, tmp_path: Path) -> None:
    body = recorded("webhook-annotation-created")["body"]
    body["project"]["token"] = body["task"]["data"]["image"] = body["annotation"]["unique_id"] = "s3cr3t"
    for place in (log, away):
        for event in read_events(body):
            place.append(1, event)
    kept = [json.dumps(str(redis.xrange(key) if redis.type(key) == b"stream" else key)) for key in redis.scan_iter()]
    kept += [file.read_text() for file in (tmp_path / "spool").iterdir()]
    assert len(kept) > 3
    assert not any("s3cr3t" in text for text in kept)


def test_appending_takes_milliseconds(log: EventLog) -> None:
    def timed(make: Callable[[int], Event]) -> float:
        times = []
        for number in range(1, 101):
            start = time.thread_time()
            log.append(1, make(number))
            times.append(time.thread_time() - start)
        return sorted(times)[-1]

    assert timed(saved) < 0.05
