"""One attempt to learn: what the log of events says of it, and what follows a promotion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotated import annotation, task
from ports import free_port
from redis import Redis
from studio import PROJECT, Studio

from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.webhooks import CREATED, Event
from backend.learning.events import MISSED, EventLog
from backend.learning.finetune import Decision, Outcome
from backend.learning.triggers import Reconciler, attempt
from backend.queue.queue import JobQueue, connect
from backend.settings import Settings

START = "2026-11-21T02:{:02}:00Z"


def submitted(number: int, minute: int) -> dict[str, Any]:
    """Task `number` with an annotation of that id."""
    return task(number, annotation(number, updated_at=START.format(minute)))


@pytest.fixture
def log(redis_url: str, tmp_path: Path) -> EventLog:
    return EventLog(connect(redis_url), tmp_path)


@pytest.fixture
def attempted(redis: Redis, client: LabelStudio, log: EventLog) -> Callable[..., Outcome]:
    """An attempt whose learning is what `learn` does, which comes to an outcome."""

    def run(learn: Callable[[], Outcome], queue: JobQueue | None = None) -> Outcome:
        return attempt(PROJECT, "a", client, log, queue or JobQueue(redis), learn)

    return run


def outcome(decision: Decision) -> Outcome:
    return Outcome(PROJECT, decision, "", new=2, needed=3, base="lda-1", start="lda-1")


def test_what_changes_while_a_project_learns_is_news_afterwards(
    attempted: Callable[..., Outcome], redis: Redis, studio: Studio, client: LabelStudio, log: EventLog
) -> None:
    studio.tasks += [submitted(1, 0), submitted(3, 30), task(2)]

    def learn() -> Outcome:
        assert log.changes(PROJECT).job == "a"
        studio.tasks[2] = submitted(2, 40)
        return outcome("waiting")

    attempted(learn)
    assert (log.changes(PROJECT).pending, log.changes(PROJECT).job) == (2, "")
    # What it has read itself isn't unknown any more. Of the last moments before, nobody can be sure.
    Reconciler(log, JobQueue(redis), lambda project: Settings()).reconcile(client, PROJECT)
    missed = [event for _, event in log.events(PROJECT)]
    assert missed == [Event(MISSED, 3, 3, START.format(30)), Event(MISSED, 2, 2, START.format(40))]


def test_a_learning_that_fails_takes_care_of_nothing(
    attempted: Callable[..., Outcome], studio: Studio, log: EventLog
) -> None:
    def fail() -> Outcome:
        raise MemoryError

    studio.tasks.append(submitted(1, 0))
    log.append(PROJECT, Event(CREATED, 1, 1, START.format(0)))
    with pytest.raises(MemoryError):
        attempted(fail)
    changes = log.changes(PROJECT)
    assert (changes.pending, changes.job, log.last_probe(PROJECT)[0]) == (1, "", None)
    studio.failing.add("/api/tasks/")
    with pytest.raises(LabelStudioError):
        attempted(lambda: outcome("kept"))
    assert log.changes(PROJECT).pending == 1


@pytest.mark.parametrize(
    ("decision", "unused", "refreshed"), [("promoted", 0, True), ("kept", 0, False), ("waiting", 2, False)]
)
def test_predictions_are_made_anew_after_a_promotion_and_unused_corrections_still_count(
    attempted: Callable[..., Outcome], redis: Redis, log: EventLog, decision: Decision, unused: int, refreshed: bool
) -> None:
    assert attempted(lambda: outcome(decision)) == outcome(decision)
    assert log.changes(PROJECT).pending == unused
    assert [job["function"] for job in JobQueue(redis).recent()] == ["refresh"] * refreshed


def test_valkey_going_away_after_a_promotion_takes_nothing_back(attempted: Callable[..., Outcome]) -> None:
    nowhere = JobQueue(connect(f"redis://127.0.0.1:{free_port()}/0"))
    assert attempted(lambda: outcome("promoted"), nowhere) == outcome("promoted")
