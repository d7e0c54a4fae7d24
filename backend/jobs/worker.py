"""The worker: takes jobs from its queues, one at a time, and runs each in a process of its own.

- A worker serves all queues, or those of one kind: learning, which takes long, or all else (queue.py).
- Only the listed functions run, of jobs that this installation has signed, and nothing is imported or parsed before
  that is checked (allow_list.py). What else lies in the queues is dropped (mending.py).
- A job that raises has failed: its record gets the sentence, and it isn't tried again. Learning reads all
  annotations anew, so the next submit makes up for it.
- A job whose process is killed is tried again, twice at most unless it got further than ever before. If the worker
  itself is killed, its job dies with it, and is put back by the next worker to start (recovery.py).
- Exports come first, batches are worked on in between: a runner of a batch makes room (cancellation.py).
- At SIGTERM learning and batches stop at their next step, with what they did saved, and are put back: that is no
  failed try. An export is finished. Another SIGTERM, a second later, kills the job; the next worker starts it again.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq import Queue, Worker
from rq.exceptions import AbandonedJobError
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import now

from backend import logs, metrics, services
from backend.batches.service import BatchService
from backend.errors import DiskFull, Unavailable
from backend.home import home_folder
from backend.jobs import memory_limit
from backend.jobs.recovery import recover
from backend.learning import notice, rollout, triggers
from backend.metrics.shared import pushing
from backend.queue.allow_list import GuardedJob, sign_jobs
from backend.queue.cancellation import STOP, Cancellation, JobStopped
from backend.queue.mending import UNREADABLE, mend
from backend.queue.names import KINDS, QUEUES, WorkerKind
from backend.queue.queue import JobQueue, KeptQueue, connect, open_queue, request_of
from backend.settings import Settings, load
from ris_core.errors import OutOfMemory, RisError

_log = logging.getLogger(__name__)

# RQ looks for abandoned jobs only between two waits for a job, and a wait lasts this less 15 seconds.
_WORKER_SECONDS = 75
_MAINTENANCE_SECONDS = 60
# Valkey may be starting as well, or starting again; RQ would look after it at longer and longer intervals.
VALKEY_SECONDS = 15.0
_LONGEST_PAUSE = 4.0
# Between two attempts to read on, where what was mended didn't suffice.
_PAUSES = (0.0, 1.0, 5.0, 30.0)


class GuardedWorker(Worker):
    """RQ's forking worker, for guarded jobs; its job process never outlives it, and hears when it is to stop."""

    job_class = GuardedJob
    queue_class = KeptQueue
    max_connection_wait_time = _LONGEST_PAUSE
    # The pipe to the job's process: it reads the first, this one writes to the second.
    _lifeline: tuple[int, int] | None = None
    _memory_kills: int | None = None

    def execute_job(self, job: Job, queue: Queue) -> None:
        """As RQ's, in a process that ends with this one; a job that may not run has failed."""
        refusal = getattr(job, "refusal", "it wasn't checked")
        if refusal:
            self._refuse(job, queue, refusal)
            return
        lifeline = self._lifeline = os.pipe()
        self._memory_kills = memory_limit.memory_kills()
        # The job's process is forked in here, and goes on with it.
        named = logs.request_id.set(request_of(job))
        try:
            super().execute_job(job, queue)
        except (*UNREADABLE, ResponseError) as error:
            _log.error("Job %s is given up, since its record can't be read: %.300r", job.id, error)
            queue.intermediate_queue.remove(job.id)
            job.started_job_registry.remove_executions(job)
        finally:
            logs.request_id.reset(named)
            self._lifeline = None
            for end in lifeline:
                os.close(end)

    def prepare_execution(self, job: Job) -> Execution:
        """As RQ's; from now on the job is among those that were started, and nowhere else."""
        execution = super().prepare_execution(job)
        # RQ leaves it there until the job's process is under way, or for ever: it would run twice, taken for lost.
        self.connection.lrem(KeptQueue(job.origin, connection=self.connection).intermediate_queue_key, 0, job.id)
        return execution

    def run_maintenance_tasks(self) -> None:
        """As RQ's, when the worker starts and each minute; and batches without a runner get one.

        What one of these can't read costs that one alone, until the next minute.
        """
        settings = load()
        # Jobs are forked from this process, and what a store is asked with doesn't survive that.
        registry = services.registry(settings, asks=False)
        steps: tuple[Callable[[], object], ...] = (
            super().run_maintenance_tasks,
            BatchService(self.connection, JobQueue(self.connection)).revive,
            lambda: rollout.tick(self.connection, settings, registry),
            lambda: triggers.tick(self.connection, settings),
            lambda: notice.tick(self.connection, settings, registry),
        )
        for step in steps:
            self._survive(step)
        # Whatever came of them, the next time is in a minute.
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """As RQ's; what it can't read is taken out, and it goes on."""
        for pause in _PAUSES:
            try:
                return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            except (*UNREADABLE, ResponseError):
                _log.exception("The worker came upon something in Valkey that it can't read.")
                self._mend()
                time.sleep(pause)
        return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)

    def _survive(self, step: Callable[[], object]) -> None:
        try:
            step()
        except (*UNREADABLE, ResponseError):
            _log.exception("Something in Valkey can't be read. The rest goes on.")
            self._mend()

    def _mend(self) -> None:
        for queue in self.queues:
            mend(queue)

    def handle_warm_shutdown_request(self) -> None:
        """As RQ's at the first SIGTERM; the job hears of it."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self._lifeline:
            os.write(self._lifeline[1], STOP)

    def set_shutdown_requested_date(self) -> None:
        """As RQ's, where Valkey is there."""
        # For the record alone: without Valkey the job must still get the time to save what it did.
        with suppress(RedisError):
            super().set_shutdown_requested_date()  # type: ignore[no-untyped-call]

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """What the job's process does: as RQ's, with an ear on the worker."""
        assert self._lifeline
        reader, writer = self._lifeline
        os.close(writer)
        assert isinstance(job, GuardedJob)
        job.should_stop = Cancellation(reader)
        super().main_work_horse(job, queue)

    def perform_job(self, job: Job, queue: Queue) -> bool:
        """As RQ's, in the job's process; what is counted there is kept in Valkey."""
        metrics.be("worker")
        with pushing(self.connection):
            return super().perform_job(job, queue)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """As RQ's; a job that has stopped with its worker keeps all its tries."""
        if exc_info[0] is not JobStopped:
            super().handle_exception(job, *exc_info)
            return
        _log.info("Job %s has stopped with its worker. It goes on with the next.", job.id)
        # RQ takes this as a try, and so takes one away.
        job.retries_left = (job.retries_left or 0) + 1

    def handle_work_horse_killed(self, job: Job, pid: int, status: int | None, usage: Any) -> None:
        """As RQ's; the record says why, unless the job is tried again."""
        super().handle_work_horse_killed(job, pid, status, usage)  # type: ignore[no-untyped-call]
        # The killed process may have got on, and have said why it would end.
        job.refresh()  # type: ignore[no-untyped-call]
        if status is None or not os.WIFSIGNALED(status):
            return
        if "error" in job.meta:
            job.retries_left = 0
        elif not job.should_retry:
            job.meta["error"] = _obituary(job, os.WTERMSIG(status), self._memory_kills)
            job.save_meta()  # type: ignore[no-untyped-call]

    def _refuse(self, job: Job, queue: Queue, refusal: str) -> None:
        message = f"Job {job.id} isn't run: {refusal}."
        _log.error("%s Somebody other than the backend may write to the queue: change its password.", message)
        queue.intermediate_queue.remove(job.id)
        self.handle_job_failure(job, queue, exc_string=message)


def run_worker(settings: Settings, burst: bool = False, only: WorkerKind | None = None) -> None:
    """Work until a signal says stop; with `burst`, until the queues are empty. `only`: see `KINDS`.

    Raises Unavailable if Valkey can't be reached, or went away in the middle of a job; SettingsError if its address or
    RIS_WEBHOOK_SECRET isn't set.
    """
    logs.configure(settings.log_level, settings.secrets(), settings.log_format)
    sign_jobs(settings)
    try:
        connection = connect(settings.secret("redis_url"), patient=True)
        _wait_for(connection, VALKEY_SECONDS)
        work(connection, burst=burst, only=only)
    except RedisError as error:
        raise Unavailable(f"The job queue can't be reached ({error}). Start Valkey, then the worker.") from None


def work(
    connection: Redis, job_class: type[GuardedJob] = GuardedJob, burst: bool = False, only: WorkerKind | None = None
) -> None:
    """Put back what killed workers left, then work. `job_class` brings the list of functions."""
    queues = [open_queue(connection, job_class, name) for name in (KINDS[only] if only else QUEUES)]
    for queue in queues:
        recover(queue)
    worker = GuardedWorker(
        queues,
        connection=connection,
        serializer=JSONSerializer,
        job_class=job_class,
        exception_handlers=[note_failure],
        worker_ttl=_WORKER_SECONDS,
        maintenance_interval=_MAINTENANCE_SECONDS,
        log_job_description=False,
    )
    worker.work(burst=burst, logging_level=None)


def _wait_for(connection: Redis, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            connection.ping()
        except RedisError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.2)
        else:
            return


def note_failure(job: Job, kind: type[BaseException], error: BaseException, _traceback: Any) -> None:
    """RQ's exception handler: keep the sentence for /jobs/<id>, and don't try the job again."""
    if issubclass(kind, AbandonedJobError):
        return
    job.retries_left = 0
    job.meta["error"] = _explanation(job, error)
    job.save_meta()  # type: ignore[no-untyped-call]


def _explanation(job: Job, error: BaseException) -> dict[str, str]:
    if isinstance(error, RisError):
        return {"code": error.code, "message": str(error)}
    if full := DiskFull.of(error, home_folder().absolute(), "start it again"):
        return {"code": full.code, "message": str(full)}
    if isinstance(error, JobTimeoutException):
        return {"code": "job_timeout", "message": f"The job took longer than {job.timeout} seconds."}
    return {"code": "job_failed", "message": f"The job failed; the worker's log says why, under {job.id}."}


def _obituary(job: Job, number: int, memory_kills: int | None) -> dict[str, str]:
    """Why a job's process was killed from outside, as far as one can know. `memory_kills`: as they were before."""
    advice = job.meta.get("memory_advice", "give the worker more memory")
    kills = memory_limit.memory_kills()
    if number != signal.SIGKILL or (kills is not None and kills == memory_kills):
        cause = signal.Signals(number).name
        return {"code": "job_killed", "message": f"The job was killed by {cause}, time and again. Start it anew."}
    certainly = "" if kills is not None else ", most likely"
    return {"code": OutOfMemory.code, "message": f"The job was killed{certainly} for memory: {advice}."}
