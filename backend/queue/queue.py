"""The queues of jobs in Valkey: put work in, ask how it goes. Knows no job's content; payloads are JSON.

There are three queues: learning, which takes minutes of all cores; runners of batches; and the rest, exports. So a
worker can serve learning alone, and nothing else ever waits for it (`ris up` runs two workers). A worker that serves
all queues turns to batches last.

Learning is coalesced: a project has at most one job that runs and one that waits. An event that finds a job
waiting adds nothing, since that job will read all annotations when it starts; an event that finds none adds
one. The choice is atomic: a burst of events makes one job, and an event during a run always makes one more. Runners
of batches are coalesced as well: of a batch one runner waits, while any number run.

A job is at every moment in its queue, in the intermediate one of those just taken, or among those that were started:
wherever a worker is killed, the next one finds it (recovery.py).
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError, WatchError
from redis.retry import Retry as RedisRetry
from rq import Queue, Retry, Worker
from rq.exceptions import DequeueTimeout, NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import BaseRegistry
from rq.serializers import JSONSerializer
from rq.utils import utcparse

from backend.errors import BackendError, NotFound, Unavailable
from backend.logs import request_id
from backend.queue.allow_list import GuardedJob, sign_jobs
from backend.queue.mending import UNREADABLE, is_job, readable
from backend.queue.names import NAME, QUEUES
from backend.settings import Settings

_log = logging.getLogger(__name__)

# The longest fine-tuning that RIS_FINETUNE_SECONDS allows, and two hours to fetch pictures and to compare versions.
LEARN_SECONDS = 8 * 3600
# A teacher may take a minute a task on a CPU.
DISTIL_SECONDS = 24 * 3600
EXPORT_SECONDS = 8 * 3600
# To list a large project's tasks; a batch predicts them.
REFRESH_SECONDS = 1800
# A runner makes room for others after minutes: this is for one that hangs.
RUNNER_SECONDS = 1800
RESULT_SECONDS = 7 * 86400
RUNNER_RESULT_SECONDS = 3600
FAILURE_SECONDS = 30 * 86400
# A job whose worker is killed starts again; one that kills its worker each time must come to an end.
RETRIES = 2

_LATELY = 20
# In a job's meta: the request that it comes of.
_REQUEST, _LONGEST_REQUEST = "request_id", 64
# In a job's record: how many new corrections suffice for it to learn.
_MIN_NEW = "least"

# Label Studio's webhooks wait one second, once: Valkey gets a part of that, and no second attempt.
_SOCKET_SECONDS = 0.4
# Between two polls of empty queues; of a job whose end is waited for.
_POLL_SECONDS, _WAIT_SECONDS = 0.1, 0.3
_ENDED = ("finished", "failed", "stopped", "canceled")


@dataclass(frozen=True)
class QueueLoad:
    """How many jobs of a queue wait and run. oldest_seconds: how long the next one has waited, 0 where none does."""

    waiting: int
    running: int
    oldest_seconds: float


class JobFailed(BackendError, code="job_failed"):
    """A job came to an end without a result."""


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


class KeptQueue(Queue):
    """RQ's queue; what a worker takes from one of several isn't lost with it, as it isn't with a single one."""

    @classmethod
    def lpop(cls, queue_keys: Sequence[str], timeout: int | None, connection: Redis | None = None) -> Any:
        """The first job of the first queue that has one -> (queue's key, job's id); it moves to the intermediate queue.

        RQ takes it by BLPOP, and Valkey has no blocking move from several lists: so this polls.
        """
        end = time.monotonic() + (timeout or 0)
        while True:
            attempts = (cls.lmove(connection, key, None) for key in queue_keys)  # type: ignore[arg-type]
            taken = next(filter(None, attempts), None)
            if taken or timeout is None:
                return taken
            if time.monotonic() >= end:
                raise DequeueTimeout(timeout, queue_keys)
            time.sleep(_POLL_SECONDS)

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Redis,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
    ) -> tuple[Job, Queue] | None:
        """As RQ's; an entry that is no readable job is dropped, and the next one is taken."""
        by_key = {queue.key: queue for queue in queues}
        while True:
            keys = list(by_key)
            take = cls.lpop if len(keys) > 1 else _take_from_one
            taken = take(keys, timeout, connection)
            if taken is None:
                return None
            key, entry = taken
            job = _read(entry, connection, job_class or GuardedJob, serializer)
            if job is not None:
                return job, by_key[key]
            connection.lrem(by_key[key].intermediate_queue_key, 0, entry)

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """As RQ's; of what can be the id of a job."""
        end = offset + length - 1 if length >= 0 else length
        return readable(self.connection.lrange(self.key, offset, end))


def _take_from_one(keys: Sequence[str], timeout: int | None, connection: Redis) -> Any:
    return KeptQueue.lmove(connection, keys[0], timeout)


def _read(entry: bytes, connection: Redis, job_class: type[Job], serializer: Any) -> Job | None:
    if not is_job(entry):
        _log.error("An entry of the queue isn't the name of a job, and is dropped: %.100r", entry)
        return None
    try:
        return job_class.fetch(entry.decode(), connection, serializer)
    except NoSuchJobError as error:
        _log.warning("An entry of the queue is dropped. %.500s", error)
        return None


def open_queue(connection: Redis, job_class: type[Job] = GuardedJob, name: str = NAME) -> KeptQueue:
    """A queue that the backend fills and a worker empties."""
    return KeptQueue(name, connection=connection, serializer=JSONSerializer, job_class=job_class)


def min_new_of(job: Job) -> int | None:
    """How many new corrections suffice for a job of `JobQueue.learn`; None: as many as the settings say."""
    return _count(job.connection.hget(job.key, _MIN_NEW))


def request_of(job: Job) -> str:
    """The id of the HTTP request that a job comes of; empty if of none."""
    # Of a damaged record it may be anything.
    return str(job.meta.get(_REQUEST, ""))[:_LONGEST_REQUEST] if isinstance(job.meta, dict) else ""


class JobQueue:
    """What the backend does with jobs. Every method raises Unavailable where Valkey can't be reached."""

    def __init__(self, connection: Redis, learn: str = "backend.jobs.functions.learn") -> None:
        self._connection = connection
        self._queue, self._training, self._batches = (open_queue(connection, name=name) for name in QUEUES)
        self._functions = {"learn": learn}

    @classmethod
    def from_settings(cls, settings: Settings) -> JobQueue:
        """The queue that the settings name. Raises SettingsError if its address or RIS_WEBHOOK_SECRET isn't set."""
        sign_jobs(settings)
        return cls(connect(settings.secret("redis_url")))

    def learn(self, project: int, min_new: int | None = None) -> Ticket:
        """Make sure that a job waits which will learn from all that is annotated by now.

        min_new: how many new corrections suffice, 0: any number; None: RIS_FINETUNE_MIN_NEW. A job that waits already
        is content with as few from now on.
        """
        job = partial(self._job, "learn", (project,), LEARN_SECONDS)
        return self._once(f"ris:learn:{project}", job, self._training, min_new)

    def prelabel(self, batch: str) -> Ticket:
        """Make sure that a runner of a batch waits."""
        job = partial(self._job, "prelabel", (batch,), RUNNER_SECONDS, RUNNER_RESULT_SECONDS)
        return self._once(f"ris:runner:{batch}", job, self._batches)

    def refresh(self, project: int) -> Ticket:
        """Make sure that a job waits which looks whether a project's predictions are to be made anew."""
        job = partial(self._job, "refresh", (project,), REFRESH_SECONDS, RUNNER_RESULT_SECONDS)
        return self._once(f"ris:refreshing:{project}", job, self._queue)

    def export(self, project: int, name: str, spec: Mapping[str, Any]) -> Ticket:
        """Queue an export of a project; `name` is the folder below `<home>/exports` that it goes to.

        spec: fields of `backend.datasets.export.ExportSpec`.
        """
        job = self._job("export", (project, name, dict(spec)), EXPORT_SECONDS)
        with reachable():
            self._queue.enqueue_job(job)
        return Ticket(job.id, new=True)

    def distil(self, project: int, above: float, tasks: int) -> Ticket:
        """Queue a training on what a teacher says of tasks without annotation, see `teaching.TeachingSpec`."""
        job = self._job("distil", (project, above, tasks), DISTIL_SECONDS)
        with reachable():
            self._training.enqueue_job(job)
        return Ticket(job.id, new=True)

    def describe(self, job_id: str) -> dict[str, Any]:
        """A job as JSON: status, function, arguments, progress, result, error, times. Raises NotFound."""
        with reachable():
            job = self._find(job_id)
            if job is None:
                raise NotFound(f"There is no job {job_id!r:.100}: it never was, or its record has expired.")
            return _description(job)

    def wait(self, job_id: str, on_progress: Callable[[str, float], object]) -> dict[str, Any]:
        """The result of a job, once it has one. `on_progress` hears its stage and the share, 0 to 1, that is done.

        Raises JobFailed if it ended without one, NotFound if there is no such job or its result has expired.
        """
        while (state := self.describe(job_id))["status"] not in _ENDED:
            if state["progress"]:
                on_progress(state["progress"]["stage"], state["progress"]["share"])
            time.sleep(_WAIT_SECONDS)
        if state["status"] != "finished":
            message = (state["error"] or {}).get("message", "Its log says why.")
            raise JobFailed(f"Job {job_id} {state['status']}. {message}")
        if not isinstance(state["result"], dict):
            raise NotFound(f"Job {job_id} has finished, but its result has expired.")
        result: dict[str, Any] = state["result"]
        return result

    def recent(self) -> list[dict[str, Any]]:
        """Jobs as JSON: all that run or wait, and the last that ended."""
        with reachable():
            ids = [job_id for queue in (self._training, self._queue, self._batches) for job_id in _recent(queue)]
            return [_description(job) for job in map(self._find, ids) if job is not None]

    def workers(self) -> dict[str, int]:
        """How many workers there are for each of `KINDS`; one that serves all queues counts for each."""
        queues = {"training": self._training, "batches": self._batches}
        with reachable():
            return {kind: Worker.count(queue=queue) for kind, queue in queues.items()}

    def loads(self) -> dict[str, QueueLoad]:
        """How much there is to do, by the name of the queue."""
        with reachable():
            return {queue.name: _load(queue) for queue in (self._training, self._queue, self._batches)}

    def _once(self, key: str, make: Callable[[], Job], queue: Queue, min_new: int | None = None) -> Ticket:
        with reachable(), self._connection.pipeline() as pipeline:
            while True:
                # Else somebody put a job in just now, or the one that waited has started: look again.
                with suppress(WatchError):
                    return self._try_once(key, make, queue, min_new, pipeline)

    def _try_once(
        self, key: str, make: Callable[[], Job], queue: Queue, min_new: int | None, pipeline: Pipeline
    ) -> Ticket:
        pipeline.watch(key)  # type: ignore[no-untyped-call]
        waiting = _text(pipeline.get(key))
        if waiting and self._waits(waiting, pipeline):
            self._lower(waiting, min_new, pipeline)
            return Ticket(waiting, new=False)
        job = make()
        pipeline.multi()
        pipeline.set(key, job.id, ex=FAILURE_SECONDS)
        queue.enqueue_job(job, pipeline=pipeline)
        if min_new is not None:
            pipeline.hset(job.key, _MIN_NEW, str(min_new))
        pipeline.execute()
        return Ticket(job.id, new=True)

    def _lower(self, job_id: str, min_new: int | None, pipeline: Pipeline) -> None:
        key = GuardedJob.key_for(job_id)
        current = _count(pipeline.hget(key, _MIN_NEW))
        pipeline.multi()
        if min_new is not None and (current is None or min_new < current):
            pipeline.hset(key, _MIN_NEW, str(min_new))
        pipeline.execute()

    def _find(self, job_id: str) -> Job | None:
        try:
            return GuardedJob.fetch(job_id, self._connection, JSONSerializer)
        except NoSuchJobError:
            return None

    def _waits(self, job_id: str, pipeline: Pipeline) -> bool:
        # A job is marked as started before it reads anything: one that still waits will see this annotation.
        key = GuardedJob.key_for(job_id)
        pipeline.watch(key)  # type: ignore[no-untyped-call]
        return _text(pipeline.hget(key, "status")) == JobStatus.QUEUED

    def _job(self, name: str, arguments: tuple[Any, ...], seconds: int, result_seconds: int = RESULT_SECONDS) -> Job:
        return self._queue.create_job(
            self._functions.get(name, f"backend.jobs.functions.{name}"),
            args=arguments,
            job_id=f"{name}-{arguments[0]}-{secrets.token_hex(4)}",
            timeout=seconds,
            result_ttl=result_seconds,
            failure_ttl=FAILURE_SECONDS,
            # In front: what was begun goes on before anything else.
            retry=Retry(max=RETRIES, enqueue_at_front=True),
            meta={_REQUEST: request} if (request := request_id.get()) else {},
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
    try:
        return _readable_description(job)
    except (*UNREADABLE, ResponseError):
        return {"id": job.id, "status": "failed", "error": {"code": "unreadable_job"}}


def _readable_description(job: Job) -> dict[str, Any]:
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


def _load(queue: Queue) -> QueueLoad:
    next_job = next(iter(queue.get_job_ids(0, 1)), None)
    since = next_job and _text(queue.connection.hget(GuardedJob.key_for(next_job), "enqueued_at"))
    waited = (datetime.now(UTC) - utcparse(since)).total_seconds() if since else 0.0
    running = queue.started_job_registry.get_job_ids(cleanup=False)
    return QueueLoad(queue.count, len(running), max(0.0, waited))


def _recent(queue: Queue) -> list[str]:
    ended = (queue.finished_job_registry, queue.failed_job_registry)
    lately = [job for registry in ended for job in _members(registry, -_LATELY)]
    started = [entry.partition(b":")[0] for entry in _members(queue.started_job_registry)]
    return [*readable(started), *queue.get_job_ids(), *readable(lately)]


def _members(registry: BaseRegistry, first: int = 0) -> list[bytes]:
    return list(registry.connection.zrange(registry.key, first, -1))  # type: ignore[arg-type]


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _count(value: Any) -> int | None:
    text = _text(value) or ""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None
