"""The worker: takes jobs from the queues, one at a time, and runs each in a process of its own.

- Only the listed functions run, and nothing is imported before that is checked (guard.py).
- A job that raises has failed: its record gets the sentence, and it isn't tried again. Learning reads all
  annotations anew, so the next submit makes up for it.
- A job whose process is killed is tried again, twice at most. If the worker itself is killed, its job dies
  with it, and is put back by the next worker to start (recovery.py).
- Learning and exports come first, batches are worked on in between: a runner of a batch makes room (functions.py).
- One SIGTERM lets the job finish; another, a second later, kills it, and the next worker starts it again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

from backend import logs
from backend.errors import Unavailable
from backend.jobs.guard import GuardedJob
from backend.jobs.queue import BATCHES, NAME, JobQueue, connect, open_queue
from backend.jobs.recovery import recover
from backend.prelabelling import Prelabelling
from backend.settings import Settings
from ris_core.errors import RisError

_log = logging.getLogger(__name__)

# RQ looks for abandoned jobs only between two waits for a job, and a wait lasts this less 15 seconds.
_WORKER_SECONDS = 75
_MAINTENANCE_SECONDS = 60
# Valkey may be starting as well, or starting again; RQ would look after it at longer and longer intervals.
_VALKEY_SECONDS = 15.0
_LONGEST_PAUSE = 4.0


class GuardedWorker(Worker):
    """RQ's forking worker, for guarded jobs; its job process never outlives it."""

    job_class = GuardedJob
    max_connection_wait_time = _LONGEST_PAUSE
    _lifeline = (-1, -1)

    def execute_job(self, job: Job, queue: Queue) -> None:
        refusal = getattr(job, "refusal", "it wasn't checked")
        if refusal:
            self._refuse(job, queue, refusal)
            return
        self._lifeline = os.pipe()
        try:
            super().execute_job(job, queue)
        finally:
            for end in self._lifeline:
                os.close(end)

    def run_maintenance_tasks(self) -> None:
        """As RQ's, when the worker starts and each minute; and batches without a runner get one."""
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        Prelabelling(self.connection, JobQueue(self.connection)).revive()

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        reader, writer = self._lifeline
        os.close(writer)
        threading.Thread(target=_die_with_worker, args=(reader,), daemon=True).start()
        super().main_work_horse(job, queue)

    def _refuse(self, job: Job, queue: Queue, refusal: str) -> None:
        message = f"Job {job.id} isn't run: {refusal}."
        _log.error("%s Somebody other than the backend can write to the queue: change its password.", message)
        queue.intermediate_queue.remove(job.id)
        self.handle_job_failure(job, queue, exc_string=message)


def run_worker(settings: Settings, burst: bool = False) -> None:
    """Work until a signal says stop; with `burst`, until the queue is empty.

    Raises:
        Unavailable: Valkey can't be reached, or went away in the middle of a job.
    """
    logs.configure(settings.log_level, settings.secrets())
    try:
        connection = connect(settings.secret("redis_url"), patient=True)
        _wait_for(connection, _VALKEY_SECONDS)
        work(connection, burst=burst)
    except RedisError as error:
        raise Unavailable(f"The job queue can't be reached ({error}). Start Valkey, then the worker.") from None


def work(connection: Redis, job_class: type[GuardedJob] = GuardedJob, burst: bool = False) -> None:
    """Put back what killed workers left, then work. `job_class` brings the list of functions."""
    queues = [open_queue(connection, job_class, name) for name in (NAME, BATCHES)]
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
    if isinstance(error, JobTimeoutException):
        return {"code": "job_timeout", "message": f"The job took longer than {job.timeout} seconds."}
    return {"code": "job_failed", "message": f"The job failed; the worker's log says why, under {job.id}."}


def _die_with_worker(reader: int) -> None:
    # The other end is held by the worker alone, so this returns when the worker is gone, however it went.
    os.read(reader, 1)
    os.killpg(0, signal.SIGKILL)
