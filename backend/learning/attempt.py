"""One attempt of a project to learn, and what follows: joins learning, the log of events and the job queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backend.labelstudio.client import LabelStudio
from backend.learning.events import EventLog
from backend.learning.finetune import LearningServices, OnProgress, Outcome, learn
from backend.learning.rollout import refresh_soon
from backend.learning.triggers import probe
from backend.queue.queue import JobQueue


@dataclass
class Attempt:
    """unused: how many new corrections were too few to learn from, to be set before the attempt ends."""

    unused: int = 0


def run(
    project: int,
    services: LearningServices,
    log: EventLog,
    queue: JobQueue,
    *,
    job: str,
    min_new: int | None,
    stop: Callable[[], bool],
    on_progress: OnProgress,
) -> Outcome:
    """`finetune.learn`, noted in the log of events as that `job`; after a promotion predictions are made anew.

    Raises what `finetune.learn` raises, and RedisError where Valkey is away.
    """
    with begun(log, services.client, project, job) as attempt:
        outcome = learn(project, services, min_new=min_new, stop=stop, on_progress=on_progress)
        attempt.unused = outcome.new if outcome.decision == "waiting" else 0
    if outcome.decision == "promoted":
        refresh_soon(queue, project)
    return outcome


@contextmanager
def begun(log: EventLog, client: LabelStudio, project: int, job: str) -> Iterator[Attempt]:
    """Inside, a project learns: what is logged by now is taken care of. Whatever is raised inside, it isn't.

    Raises LabelStudioError.
    """
    # Before anything is read: what changes from now on is news to the next reconciliation.
    counts = probe(client, project)
    log.begin(project, job)
    attempt = Attempt()
    try:
        yield attempt
    except BaseException:
        log.fail(project)
        raise
    log.end(project, attempt.unused)
    log.note_probe(project, counts)
