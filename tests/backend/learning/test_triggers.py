"""When a project learns, on a real Valkey and beside a Label Studio over HTTP: triggers, lost events, failures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from annotated import annotation, task
from labelstudio.site import Site
from ports import free_port
from redis import Redis
from rq.job import Job
from studio import PROJECT, TOKEN, Studio, running

from backend.home import interface_file, project_env_file
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.webhooks import CREATED, START_TRAINING, UPDATED, Event
from backend.learning import triggers
from backend.learning.events import MISSED, UNKNOWN, Changes, EventLog, ProjectCounts
from backend.learning.triggers import PROBE_SECONDS, Reconciler, sufficient, tick
from backend.queue.names import TRAINING
from backend.queue.queue import JobQueue, Ticket, connect, min_new_of, open_queue
from backend.settings import Settings

MakeSettings = Callable[..., Settings]
START = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def submitted(number: int, seconds: float, **more: Any) -> dict[str, Any]:
    """Task `number` with an annotation of that id."""
    return task(number, annotation(number, updated_at=at(seconds), **more))


@pytest.fixture
def settings(make_settings: MakeSettings, redis_url: str, site: Site) -> Settings:
    limits = {"finetune_min_new": 3, "finetune_minutes": 30, "finetune_least_new": 2}
    return make_settings(redis_url=redis_url, label_studio_url=site.url, label_studio_token=TOKEN, **limits)


# Photos that nobody has annotated: in a project of a few, fewer corrections are enough.
UNTOUCHED = [task(number) for number in range(900, 910)]


@pytest.fixture
def log(redis_url: str, settings: Settings) -> EventLog:
    return EventLog(connect(redis_url), settings.home)


@pytest.fixture
def ours(redis_url: str, log: EventLog, settings: Settings) -> Reconciler:
    return Reconciler(log, JobQueue(connect(redis_url)), settings.of_project)


def waiting(redis: Redis) -> list[tuple[Any, int | None]]:
    """The project of each learning that waits, and how many new corrections suffice for it."""
    return [(job.args[0], min_new_of(job)) for job in open_queue(redis, name=TRAINING).jobs]


def logged(log: EventLog) -> list[Event]:
    return [event for _, event in log.events(PROJECT)]


def asked(site: Site) -> list[str]:
    return [path for path in site.paths() if path == "/api/tasks/"]


# Triggers


@pytest.mark.parametrize(
    ("changed", "running", "least"),
    [
        ({}, False, None),
        ({"fresh": 2}, False, None),
        ({"fresh": 3}, False, 3),
        ({"fresh": 2, "pending": 1}, False, 3),
        # A learning is at work on those.
        ({"fresh": 2, "pending": 1}, True, None),
        ({"fresh": 2, "first": 1799.0}, False, None),
        ({"fresh": 2, "first": 1800.0}, False, 2),
        ({"fresh": 1, "first": 9000.0}, False, None),
        ({"pending": 2, "since": 9000.0}, False, 2),
        ({"pending": 2, "since": 9000.0}, True, None),
        # What came since then isn't as old.
        ({"pending": 2, "since": 9000.0, "fresh": 2, "first": 60.0}, True, None),
        ({"pending": 1, "since": 9000.0, "fresh": 1, "first": 60.0}, False, 2),
        ({"fresh": 5, "first": 9000.0}, False, 2),
        ({"forced": True}, False, 1),
        ({"forced": True, "fresh": 5, "first": 9000.0}, True, 1),
        ({"unknown": True}, False, 3),
    ],
    ids=lambda value: "-".join(f"{name}={of:g}" for name, of in value.items()) if isinstance(value, dict) else None,
)
def test_what_it_takes(changed: dict[str, Any], running: bool, least: int | None, settings: Settings) -> None:
    quiet = {"fresh": 0, "first": None, "pending": 0, "since": None, "job": "", "queued": 0.0}
    ages = {name: 10_000 - changed[name] for name in ("first", "since") if name in changed}
    flags = {"forced": False, "unknown": False, "mark": "0"}
    changes = Changes(now=10_000.0, **{**quiet, **flags, **changed, **ages})
    assert sufficient(changes, running, settings) == least


def test_time_alone_teaches_nothing_unless_it_is_set(settings: Settings) -> None:
    changes = Changes(10_000.0, 2, 0.0, 0, None, "", 0.0, False, False, "0")
    assert sufficient(changes, False, settings) == 2
    assert sufficient(changes, False, settings.model_copy(update={"finetune_minutes": 0})) is None


@pytest.mark.parametrize(
    ("fresh", "tasks", "least"),
    [(3, 7, 3), (2, 7, None), (3, 5, 3), (4, 12, None), (6, 12, 6), (9, 1000, None), (10, 1000, 10), (9, None, None)],
)
def test_in_a_small_project_half_of_the_tasks_are_enough(fresh: int, tasks: int | None, least: int | None) -> None:
    settings = Settings(finetune_min_new=10, finetune_least_new=3)
    changes = Changes(10_000.0, fresh, 9_999.0, 0, None, "", 0.0, False, False, "0")
    assert sufficient(changes, False, settings, tasks) == least


def test_events_are_logged_until_they_are_enough(ours: Reconciler, redis: Redis) -> None:
    receipts = [ours.receive(PROJECT, [Event(CREATED, number, number, at(0))]) for number in (1, 2, 2, 3, 3, 4)]
    assert [receipt.logged for receipt in receipts] == [1, 1, 0, 1, 0, 1]
    assert [bool(receipt.ticket) for receipt in receipts] == [False, False, False, True, False, True]
    assert waiting(redis) == [(PROJECT, 3)]
    # The one that waits already is content with less from now on.
    assert receipts[3].ticket is not None
    assert ours.receive(PROJECT, [Event(START_TRAINING)]).ticket == Ticket(receipts[3].ticket.job, new=False)
    assert waiting(redis) == [(PROJECT, 1)]


@pytest.fixture
def learns(ours: Reconciler, log: EventLog, redis: Redis) -> Job:
    """The job of a learning that is at work on three corrections; two more have come since."""
    for number in (1, 2, 3):
        ticket = ours.receive(PROJECT, [Event(CREATED, number, number, at(0))]).ticket
    assert ticket is not None
    log.begin(PROJECT, ticket.job)
    job = open_queue(redis, name=TRAINING).fetch_job(ticket.job)
    assert job is not None
    job.set_status("started")
    more = [ours.receive(PROJECT, [Event(CREATED, number, number, at(0))]).ticket for number in (4, 5)]
    assert more == [None, None]
    return job


def test_events_during_a_learning_wait_for_its_end(ours: Reconciler, learns: Job) -> None:
    assert (ticket := ours.receive(PROJECT, [Event(CREATED, 6, 6, at(0))]).ticket)
    assert ticket.job != learns.id


def test_what_a_learning_was_about_that_is_gone_counts_again(ours: Reconciler, learns: Job, redis: Redis) -> None:
    assert ours.queue_if_due(PROJECT) is None
    redis.delete(learns.key)
    assert ours.queue_if_due(PROJECT)
    assert (PROJECT, 3) in waiting(redis)


def test_the_same_changes_ask_again_only_after_a_while(
    ours: Reconciler, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.receive(PROJECT, [Event(START_TRAINING)])
    open_queue(redis, name=TRAINING).empty()
    assert ours.queue_if_due(PROJECT) is None
    monkeypatch.setattr(triggers, "QUEUE_AGAIN_SECONDS", 0)
    assert ours.queue_if_due(PROJECT)
    assert waiting(redis) == [(PROJECT, 1)]


def test_valkey_going_away_in_between_leaves_it_to_a_later_tick(
    settings: Settings, log: EventLog, ours: Reconciler, redis: Redis
) -> None:
    nowhere = JobQueue(connect(f"redis://127.0.0.1:{free_port()}/0"))
    heard = Reconciler(log, nowhere, settings.of_project).receive(PROJECT, [Event(START_TRAINING)])
    assert (heard.logged, heard.degraded, heard.ticket) == (1, True, None)
    assert ours.queue_if_due(PROJECT)
    assert waiting(redis) == [(PROJECT, 1)]


def test_a_thousand_duplicates_of_one_event_lead_to_one_training(
    settings: Settings, log: EventLog, redis_url: str, tmp_path: Path
) -> None:
    """Before, while and after a real worker trains."""
    jobs = JobQueue(connect(redis_url), learn="jobs_under_test.trigger")
    ours = Reconciler(log, jobs, lambda project: settings.model_copy(update={"finetune_min_new": 1}))
    event = [Event(CREATED, 1, 1, at(0))]

    def hail() -> int:
        with ThreadPoolExecutor(8) as threads:
            return sum(heard.logged for heard in threads.map(lambda _: ours.receive(PROJECT, event), range(334)))

    def trained() -> int:
        return len(list(tmp_path.glob("trigger.*")))

    assert hail() == 1
    file = Path(__file__).parents[1] / "jobs" / "jobs_under_test.py"
    environment = {**os.environ, "QUEUE": redis_url, "TRACES": str(tmp_path), "RIS_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, str(file), "--burst"], env=environment, stderr=subprocess.DEVNULL) as worker:
        end = time.monotonic() + 60
        while not trained():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert hail() == 0
        (tmp_path / "go").touch()
        assert worker.wait(60) == 0
    assert hail() == 0
    assert trained() == 1
    assert jobs.recent()[-1]["status"] == "finished"
    assert not open_queue(connect(redis_url), name=TRAINING).count


# What was lost


def test_a_project_seen_for_the_first_time_is_looked_through_once(
    ours: Reconciler, studio: Studio, client: LabelStudio, log: EventLog, redis: Redis
) -> None:
    studio.tasks += UNTOUCHED
    studio.tasks.append(submitted(1, 0))
    assert ours.reconcile(client, PROJECT) == 1
    assert [event.action for event in logged(log)] == [UNKNOWN]
    assert ours.queue_if_due(PROJECT)
    assert waiting(redis) == [(PROJECT, 3)]
    assert ours.reconcile(client, PROJECT) == 0


def test_where_nothing_is_annotated_there_is_nothing_to_look_through(
    ours: Reconciler, studio: Studio, client: LabelStudio, log: EventLog
) -> None:
    studio.tasks += [task(1), task(2, annotation(2, was_cancelled=True))]
    assert ours.reconcile(client, PROJECT) == 0
    assert logged(log) == []


def test_lost_events_are_found_and_those_that_came_are_not_repeated(
    ours: Reconciler, studio: Studio, client: LabelStudio, log: EventLog, site: Site
) -> None:
    studio.tasks += [task(number) for number in range(1, 9)]
    ours.reconcile(client, PROJECT)
    for number in (1, 2, 3):
        studio.tasks[number - 1] = submitted(number, 60 + number)
    studio.tasks[7] = submitted(8, 64, was_cancelled=True)
    log.append(PROJECT, Event(CREATED, 2, 2, at(62)))
    assert ours.reconcile(client, PROJECT) == 2
    assert [(event.action, event.annotation) for event in logged(log)] == [(CREATED, 2), (MISSED, 1), (MISSED, 3)]
    assert log.changes(PROJECT).fresh == 3
    # Where nothing changed, one request says so.
    site.asked.clear()
    assert ours.reconcile(client, PROJECT) == 0
    assert len(asked(site)) == 1
    # An event that comes after all adds nothing.
    assert log.append(PROJECT, Event(CREATED, 3, 3, at(63))) == "known"
    # A lost update.
    studio.tasks[0] = submitted(1, 70)
    assert ours.reconcile(client, PROJECT) == 1
    assert logged(log)[-1] == Event(MISSED, 1, 1, at(70))


def test_a_change_that_shows_late_is_found(
    ours: Reconciler, studio: Studio, client: LabelStudio, log: EventLog
) -> None:
    """Label Studio notes a time, then commits: a later change may be seen earlier."""
    studio.tasks += [task(1), submitted(2, 60)]
    ours.reconcile(client, PROJECT)
    log.begin(PROJECT, "")
    studio.tasks[0] = submitted(1, 59.5)
    ours.reconcile(client, PROJECT)
    assert Event(MISSED, 1, 1, at(59.5)) in logged(log)


@pytest.mark.parametrize("deleted", ["annotation", "task"])
def test_a_lost_deletion_counts(
    ours: Reconciler, studio: Studio, client: LabelStudio, log: EventLog, deleted: str
) -> None:
    studio.tasks += [submitted(1, 0), submitted(2, 1)]
    ours.reconcile(client, PROJECT)
    log.begin(PROJECT, "")
    studio.tasks[0:1] = [task(1)] if deleted == "annotation" else []
    ours.reconcile(client, PROJECT)
    assert log.changes(PROJECT).fresh >= 1


# Each minute


def connected(settings: Settings, project: int) -> None:
    file = interface_file(settings.home, project)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("<View/>")


def test_a_tick_reads_back_looks_and_asks(
    settings: Settings, studio: Studio, log: EventLog, redis: Redis, site: Site
) -> None:
    studio.tasks += UNTOUCHED
    away = EventLog(connect(f"redis://127.0.0.1:{free_port()}/0"), settings.home)
    studio.tasks += [submitted(number, number) for number in (1, 2, 3)]
    away.append(PROJECT, Event(CREATED, 1, 1, at(1)))
    log.note_probe(PROJECT, ProjectCounts(3, 0, at(-99)))
    redis.hset(f"ris:events:{PROJECT}:state", "looked", 0)
    tick(redis, settings)
    assert [(event.action, event.task) for event in logged(log)] == [(CREATED, 1), (MISSED, 2), (MISSED, 3)]
    assert waiting(redis) == [(PROJECT, 3)]
    # The next one finds nothing to do, and doesn't even look.
    site.asked.clear()
    tick(redis, settings)
    assert site.asked == []
    assert len(waiting(redis)) == 1


def test_a_project_whose_events_are_all_lost_is_found_by_its_interface(
    settings: Settings, studio: Studio, redis: Redis
) -> None:
    studio.tasks += UNTOUCHED
    studio.tasks.append(submitted(1, 0))
    connected(settings, PROJECT)
    # Somebody deleted that one.
    connected(settings, 99)
    tick(redis, settings)
    assert waiting(redis) == [(PROJECT, 3)]


def test_changes_that_are_old_enough_are_learnt_from_without_another_event(
    settings: Settings, log: EventLog, redis: Redis, studio: Studio
) -> None:
    studio.tasks += UNTOUCHED
    for number in (1, 2):
        log.append(PROJECT, Event(UPDATED, number, number, at(0)))
    log.begin(PROJECT, "")
    log.end(PROJECT, None)
    tick(redis, settings)
    assert waiting(redis) == []
    redis.hset(f"ris:events:{PROJECT}:state", "since", time.time() - 1801)
    tick(redis, settings)
    assert waiting(redis) == [(PROJECT, 2)]


def test_label_studio_being_away_keeps_no_trigger_from_working(
    make_settings: MakeSettings, redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(redis_url=redis_url, label_studio_url=f"http://127.0.0.1:{free_port()}")
    EventLog(redis, settings.home).append(PROJECT, Event(START_TRAINING))
    tick(redis, settings)
    assert waiting(redis) == [(PROJECT, 1)]
    assert "can't be reached" in caplog.text
    caplog.clear()
    # Not each minute: it was looked at just now.
    tick(redis, settings)
    assert caplog.text == ""


def test_wrong_settings_of_one_project_cost_that_project_alone(
    settings: Settings, log: EventLog, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for project in (PROJECT, 4):
        log.append(project, Event(START_TRAINING))
    file = project_env_file(settings.home, 4)
    file.parent.mkdir(parents=True)
    file.write_text("RIS_FINETUNE_MIN_NEW=many\n")
    tick(redis, settings)
    assert waiting(redis) == [(PROJECT, 1)]
    assert "RIS_FINETUNE_MIN_NEW" in caplog.text


def test_one_worker_at_a_time_ticks(settings: Settings, log: EventLog, redis: Redis) -> None:
    log.append(PROJECT, Event(START_TRAINING))
    with redis.lock("ris:reconciler", timeout=9):
        tick(redis, settings)
        assert waiting(redis) == []
    tick(redis, settings)
    assert len(waiting(redis)) == 1


def test_projects_are_looked_at_every_few_minutes(
    settings: Settings, studio: Studio, log: EventLog, redis: Redis, site: Site
) -> None:
    connected(settings, PROJECT)
    tick(redis, settings)
    assert len(asked(site)) == 1
    redis.hset(f"ris:events:{PROJECT}:state", "looked", int(time.time()) - PROBE_SECONDS)
    tick(redis, settings)
    assert len(asked(site)) == 2


def test_a_task_that_is_deleted_while_others_are_read_hides_none(studio: Studio, tmp_path: Path) -> None:
    studio.tasks += [submitted(number, number) for number in range(1, 251)]
    with running(studio, tmp_path) as (client, _, _):
        reading = client.annotated_tasks(PROJECT)
        first = [next(reading)["id"] for _ in range(100)]
        del studio.tasks[:5]
        assert first + [each["id"] for each in reading] == list(range(1, 251))
