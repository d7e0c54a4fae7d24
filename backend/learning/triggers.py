"""When a project learns: the triggers, and what webhooks lost. The log of events decides when; what there is to
learn, `finetune.learn` reads from Label Studio.

Learning is queued when
- as many tasks have changed as RIS_FINETUNE_MIN_NEW says, or half of a project that has fewer than twice as many, but
  no fewer than RIS_FINETUNE_LEAST_NEW,
- the first of at least RIS_FINETUNE_LEAST_NEW changes is RIS_FINETUNE_MINUTES old,
- somebody pressed "Start Training": then one new correction suffices.

Label Studio sends an event once and waits a second for the answer. What got lost is found by asking it, every few
minutes, for the newest change and the number of annotations: one request, however large the project. Where that is
other than before, the changed tasks are listed, and what the log lacks is added to it. Where nothing is known of a
project, because it is new or Valkey was emptied, learning is queued and finds out. Knows no HTTP server and no model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
from redis import Redis
from redis.exceptions import LockError

from backend.errors import LabelStudioNotFound, NotFound, Unavailable
from backend.home import interfaces
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.webhooks import Event
from backend.learning.events import MAX_EVENTS, MISSED, UNKNOWN, Changes, EventLog, ProjectCounts
from backend.learning.rollout import refresh_soon
from backend.queue.queue import JobQueue, Ticket, reachable
from backend.settings import Settings
from ris_core.errors import RisError

if TYPE_CHECKING:
    # It brings torch, and the web server logs events without.
    from backend.learning.finetune import Outcome

_log = logging.getLogger(__name__)

PROBE_SECONDS = 180
# The same changes don't queue learning again sooner: it failed, and would so once more.
QUEUE_AGAIN_SECONDS = 900
# For all projects of one tick: the worker has jobs to do.
_TICK_SECONDS = 10
_LOCK_SECONDS = 50
_TIMEOUT = httpx.Timeout(5.0)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
# Label Studio notes the time of a change before it commits it: a later one may be visible earlier.
_OVERLAP = timedelta(seconds=10)
_ACTIVE = ("queued", "started", "deferred", "scheduled")


@dataclass(frozen=True)
class EventReceipt:
    """What became of events. logged: how many were news; degraded: Valkey is away, and it was left to a later tick."""

    logged: int
    degraded: bool
    ticket: Ticket | None = None


class Reconciler:
    """Logs events and queues learning. settings_of: the settings of a project."""

    def __init__(self, log: EventLog, queue: JobQueue, settings_of: Callable[[int], Settings]) -> None:
        self._log, self._queue, self._settings_of = log, queue, settings_of

    def receive(self, project: int, events: Sequence[Event]) -> EventReceipt:
        """Log events; where one is news, see whether it is time to learn. Takes milliseconds.

        Of more than `MAX_EVENTS` the last are logged: more isn't kept, and the reconciler finds the others.
        """
        results = self._log.append_all(project, events[-MAX_EVENTS:])
        logged = results.count("new")
        if "spooled" in results or not logged:
            return EventReceipt(logged, "spooled" in results)
        try:
            return EventReceipt(logged, False, self.queue_if_due(project))
        except Unavailable:
            # Valkey went away in between: what is logged is looked at by the next tick.
            return EventReceipt(logged, True)

    def queue_if_due(self, project: int) -> Ticket | None:
        """Queue learning if it is time, unless that was done for the same changes a while ago.

        Raises Unavailable where Valkey can't be reached, SettingsError if the project's own settings are wrong.
        """
        with reachable():
            changes = self._log.changes(project)
            counts, _ = self._log.last_probe(project)
        tasks = counts.tasks if counts else None
        min_new = sufficient(changes, self._is_running(changes.job), self._settings_of(project), tasks)
        if min_new is None or changes.now - changes.queued < QUEUE_AGAIN_SECONDS:
            return None
        ticket = self._queue.learn(project, min_new)
        # Killed right before this, the next tick queues it again, which adds nothing to what waits.
        with reachable():
            self._log.note_queued(project, changes)
        return ticket

    def reconcile(self, client: LabelStudio, project: int) -> int:
        """Ask Label Studio what has changed, and log what is news. Returns how many events had been missed.

        Raises LabelStudioError.
        """
        before, _ = self._log.last_probe(project)
        now = probe(client, project)
        missed = [] if now == before else list(_missed(client, project, before, now))
        results = self._log.append_all(project, missed)
        self._log.note_probe(project, now)
        return results.count("new")

    def _is_running(self, job: str) -> bool:
        with suppress(NotFound):
            return bool(job) and self._queue.describe(job)["status"] in _ACTIVE
        return False


def sufficient(changes: Changes, running: bool, settings: Settings, tasks: int | None = None) -> int | None:
    """How many new corrections suffice to learn now; None: it isn't time.

    running: the learning that takes care of what is pending hasn't come to its end. tasks: of the project, where known.
    """
    count = changes.fresh + (0 if running else changes.pending)
    times = [time for time in (changes.first, None if running else changes.since) if time is not None]
    waited = changes.now - min(times, default=changes.now)
    enough = usual_min_new(settings, tasks)
    thresholds = []
    if changes.forced:
        thresholds.append(1)
    if changes.unknown or count >= enough:
        thresholds.append(enough)
    if count >= settings.finetune_least_new and waited >= 60 * settings.finetune_minutes > 0:
        thresholds.append(settings.finetune_least_new)
    return min(thresholds, default=None)


def usual_min_new(settings: Settings, tasks: int | None) -> int:
    """How many changed tasks start learning by themselves in a project of so many; None: that isn't known."""
    if tasks is None:
        return settings.finetune_min_new
    # A handful of photos would never make that many.
    return min(settings.finetune_min_new, max(settings.finetune_least_new, tasks // 2))


def tick(connection: Redis, settings: Settings) -> None:
    """What a worker does each minute: log what was spooled, find what was missed, queue what is due. Takes seconds.

    One worker at a time does it. What goes wrong with Label Studio is logged, and tried again later.
    """
    log, queue = EventLog(connection, settings.home), JobQueue(connection)
    # Of a worker that is killed inside, the lock runs out before the next tick.
    with suppress(LockError), connection.lock("ris:reconciler", timeout=_LOCK_SECONDS, blocking=False):
        log.unspool()
        reconciler = Reconciler(log, queue, settings.of_project)
        _reconcile_all(reconciler, log, settings)
        for project in log.projects():
            with logged_errors(project):
                reconciler.queue_if_due(project)


def _reconcile_all(reconciler: Reconciler, log: EventLog, settings: Settings) -> None:
    """Reconcile the projects whose turn it is, those first that were probed longest ago."""
    ages = {project: log.last_probe(project)[1] for project in log.projects() | interfaces(settings.home).keys()}
    due = [project for project in sorted(ages, key=lambda project: -ages[project]) if ages[project] >= PROBE_SECONDS]
    if not due or settings.label_studio_token is None:
        return
    end = time.monotonic() + _TICK_SECONDS
    with LabelStudio.from_settings(settings, _TIMEOUT) as client:
        for project in due:
            if time.monotonic() >= end:
                return
            # First, so that one that can't be probed doesn't keep the others waiting.
            log.note_probe(project)
            with logged_errors(project):
                missed = reconciler.reconcile(client, project)
                if missed:
                    _log.info("Of project %s, %d events had been missed.", project, missed)


def probe(client: LabelStudio, project: int) -> ProjectCounts:
    """What Label Studio holds of a project, by one small request. Raises LabelStudioError."""
    answer = client.newest_task(project)
    newest = next((str(task["updated_at"]) for task in answer["tasks"]), "")
    return ProjectCounts(int(answer["total"]), int(answer["total_annotations"]), newest)


def attempt(
    project: int, job: str, client: LabelStudio, log: EventLog, queue: JobQueue, learn: Callable[[], Outcome]
) -> Outcome:
    """`learn`, noted in the log of events as that `job`; after a promotion predictions are made anew.

    What is logged by now is taken care of, unless something is raised: what `learn` does, LabelStudioError, or
    RedisError where Valkey is away.
    """
    # Before anything is read: what changes from now on is news to the next reconciliation.
    counts = probe(client, project)
    log.begin(project, job)
    try:
        outcome = learn()
    except BaseException:
        log.end(project, None)
        raise
    log.end(project, outcome.new if outcome.decision == "waiting" else 0)
    log.note_probe(project, counts)
    if outcome.decision == "promoted":
        refresh_soon(queue, project)
    return outcome


def _missed(client: LabelStudio, project: int, before: ProjectCounts | None, now: ProjectCounts) -> Iterator[Event]:
    """What may have been missed, as events; the log tells which of them are news."""
    if before is None:
        # What of it was learnt from, only learning knows.
        yield from [Event(UNKNOWN)] if now.annotations else []
        return
    if now.annotations < before.annotations or now.tasks < before.tasks:
        # Of what was deleted, nothing is left to be listed.
        yield Event(MISSED)
    since = datetime.fromisoformat(before.updated) - _OVERLAP if before.updated else _EVER
    for task in client.changed_tasks(project, since):
        for annotation in task["annotations"]:
            if datetime.fromisoformat(annotation["updated_at"]) >= since:
                cancelled = bool(annotation["was_cancelled"])
                yield Event(MISSED, int(task["id"]), int(annotation["id"]), annotation["updated_at"], cancelled)


@contextmanager
def logged_errors(project: int) -> Iterator[None]:
    """Log what goes wrong with one project: the others still have their turn."""
    try:
        yield
    except LabelStudioNotFound:
        _log.debug("Project %s isn't there any more.", project)
    except Unavailable:
        raise
    except RisError as error:
        _log.warning("Project %s can't be looked after now. %s", project, error)
