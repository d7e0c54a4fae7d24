"""One attempt of a project to learn, and what follows: joins learning, the log of events and the job queue."""

from collections.abc import Callable

from backend.labelstudio.client import LabelStudio
from backend.learning.events import EventLog
from backend.learning.finetune import Outcome
from backend.learning.rollout import refresh_soon
from backend.learning.triggers import probe
from backend.queue.queue import JobQueue


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
        log.fail(project)
        raise
    log.end(project, outcome.new if outcome.decision == "waiting" else 0)
    log.note_probe(project, counts)
    if outcome.decision == "promoted":
        refresh_soon(queue, project)
    return outcome
