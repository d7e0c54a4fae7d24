"""The queues of jobs in Valkey: put work in, ask how it goes. Knows no job's content; payloads are JSON.

Learning is coalesced: a project has at most one job that runs and one that waits. An event that finds a job
waiting adds nothing, since that job will read all annotations when it starts; an event that finds none adds
one. The choice is atomic: a burst of events makes one job, and an event during a run always makes one more.

Runners of batches have a queue of their own, which workers turn to when nobody waits for learning or an export.
They are coalesced as well: of a batch one runner waits, while any number run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError
from redis.retry import Retry as RedisRetry
from rq import Queue, Retry, Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from backend.errors import NotFound, Unavailable
from backend.jobs.guard import GuardedJob

NAME, BATCHES = "ris", "ris-batch"

# Learning trains for RIS_FINETUNE_SECONDS, but first fetches and embeds every picture that isn't cached yet.
LEARN_SECONDS = 3600
EXPORT_SECONDS = 3600
# A runner makes room for others after minutes: this is for one that hangs.
RUNNER_SECONDS = 1800
RESULT_SECONDS = 7 * 86400
RUNNER_RESULT_SECONDS = 3600
FAILURE_SECONDS = 30 * 86400
# A job whose worker is killed starts again; one that kills its worker each time must come to an end.
RETRIES = 2

_LATELY = 20

# Label Studio's webhooks wait one second, once: Valkey gets a part of that, and no second attempt.
_SOCKET_SECONDS = 0.4


@dataclass(frozen=True)
class Ticket:
    """A job that will do what was asked; `new` is False where it was waiting already."""

    job: str
    new: bool


def connect(url: str, patient: bool = False) -> Redis:
    """A connection to Valkey; `patient` ones are a worker's, others give up within a webhook's second."""
    if patient:
        return Redis.from_url(url)
    return Redis.from_url(
        url,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        retry=RedisRetry(NoBackoff(), 0),
    )


def open_queue(connection: Redis, job_class: type[Job] = GuardedJob, name: str = NAME) -> Queue:
    """A queue that the backend fills and the worker empties."""
    return Queue(name, connection=connection, serializer=JSONSerializer, job_class=job_class)


class JobQueue:
    """What the backend does with jobs. Every method raises Unavailable where Valkey can't be reached."""

    def __init__(self, connection: Redis, learn: str = "backend.jobs.functions.learn") -> None:
        self._connection = connection
        self._queue = open_queue(connection)
        self._batches = open_queue(connection, name=BATCHES)
        self._learn = learn

    def learn(self, project: int) -> Ticket:
        """Make sure that a job waits which will learn from all that is annotated by now."""
        job = partial(self._job, self._learn, (project,), f"learn-{project}", LEARN_SECONDS)
        return self._once(f"ris:learn:{project}", job, self._queue)

    def prelabel(self, batch: str) -> Ticket:
        """Make sure that a runner of a batch waits."""
        function = "backend.jobs.functions.prelabel"
        job = partial(self._job, function, (batch,), f"prelabel-{batch}", RUNNER_SECONDS, RUNNER_RESULT_SECONDS)
        return self._once(f"ris:runner:{batch}", job, self._batches)

    def learn_now(self, project: int) -> Ticket:
        """Queue a learning that doesn't ask how many corrections are new."""
        job = self._job(self._learn, (project, True), f"learn-{project}", LEARN_SECONDS)
        with reachable():
            self._queue.enqueue_job(job)
        return Ticket(job.id, new=True)

    def export(self, project: int, form: str, name: str) -> Ticket:
        """Queue an export of a project; `name` is the folder below `<home>/exports` that it goes to."""
        job = self._job("backend.jobs.functions.export", (project, form, name), f"export-{project}", EXPORT_SECONDS)
        with reachable():
            self._queue.enqueue_job(job)
        return Ticket(job.id, new=True)

    def describe(self, job_id: str) -> dict[str, Any]:
        """A job as JSON: status, function, arguments, progress, result, error, times. Raises NotFound."""
        with reachable():
            job = self._find(job_id)
            if job is None:
                raise NotFound(f"There is no job {job_id!r:.100}: it never was, or its record has expired.")
            return _description(job)

    def recent(self) -> list[dict[str, Any]]:
        """Jobs as JSON: all that run or wait, and the last that ended."""
        with reachable():
            ids = [job_id for queue in (self._queue, self._batches) for job_id in _recent(queue)]
            return [_description(job) for job in map(self._find, ids) if job is not None]

    def workers(self) -> int:
        """How many workers there are."""
        with reachable():
            return Worker.count(queue=self._queue)

    def _once(self, key: str, make: Callable[[], Job], queue: Queue) -> Ticket:
        with reachable(), self._connection.pipeline() as pipeline:
            while True:
                try:
                    return self._try_once(key, make, queue, pipeline)
                except WatchError:
                    # Somebody else put a job in just now: look at that one.
                    continue

    def _try_once(self, key: str, make: Callable[[], Job], queue: Queue, pipeline: Pipeline) -> Ticket:
        pipeline.watch(key)  # type: ignore[no-untyped-call]
        waiting = _text(pipeline.get(key))
        if waiting and self._waits(waiting):
            pipeline.unwatch()
            return Ticket(waiting, new=False)
        job = make()
        pipeline.multi()
        pipeline.set(key, job.id, ex=FAILURE_SECONDS)
        queue.enqueue_job(job, pipeline=pipeline)
        pipeline.execute()
        return Ticket(job.id, new=True)

    def _find(self, job_id: str) -> Job | None:
        try:
            return GuardedJob.fetch(job_id, self._connection, JSONSerializer)
        except NoSuchJobError:
            return None

    def _waits(self, job_id: str) -> bool:
        # A job is marked as started before it reads anything: one that still waits will see this annotation.
        status = self._connection.hget(GuardedJob.key_for(job_id), "status")
        return _text(status) == JobStatus.QUEUED

    def _job(
        self, function: str, arguments: tuple[Any, ...], name: str, seconds: int, result_seconds: int = RESULT_SECONDS
    ) -> Job:
        return self._queue.create_job(
            function,
            args=arguments,
            job_id=f"{name}-{secrets.token_hex(4)}",
            timeout=seconds,
            result_ttl=result_seconds,
            failure_ttl=FAILURE_SECONDS,
            retry=Retry(max=RETRIES),
        )


@contextmanager
def reachable() -> Iterator[None]:
    """Raises Unavailable where Valkey can't be reached."""
    try:
        yield
    except RedisError:
        raise Unavailable(
            "The job queue can't be reached, so nothing was queued. Annotations are safe in Label Studio: "
            "start Valkey again, and repeat it; what is annotated is picked up at the next submit."
        ) from None


def _description(job: Job) -> dict[str, Any]:
    if isinstance(job, GuardedJob) and job.refusal:
        return {"id": job.id, "status": str(job.get_status().value), "error": {"code": "forbidden_job"}}
    times = {"queued": job.enqueued_at, "started": job.started_at, "ended": job.ended_at}
    return {
        "id": job.id,
        "status": job.get_status().value,
        "function": str(job.func_name).rpartition(".")[2],
        "arguments": list(job.args),
        "progress": job.meta.get("progress"),
        "result": job.return_value(),
        "error": job.meta.get("error"),
        **{name: time and time.isoformat() for name, time in times.items()},
    }


def _recent(queue: Queue) -> list[str]:
    ended = (queue.finished_job_registry, queue.failed_job_registry)
    lately = [job for registry in ended for job in registry.get_job_ids(-_LATELY, -1, cleanup=False)]
    return [*queue.started_job_registry.get_job_ids(cleanup=False), *queue.get_job_ids(), *lately]


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
