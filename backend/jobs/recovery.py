"""Jobs of workers that were killed: found when the next worker starts, and put back into the queue.

RQ gives a silent worker 90 seconds before it calls a job abandoned. A worker of this machine whose process is
gone needs no such wait. Workers on other machines are left to RQ.
"""

import logging
import os
import socket

import psutil
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import JobStatus
from rq.worker import BaseWorker

from backend.queue.mending import mend

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 30
_GIVEN_UP = {
    "code": "worker_killed",
    "message": "The job's worker was killed each time that it ran, maybe for memory. See its log, give it more memory, "
    "and start the job anew.",
}


def recover(queue: Queue) -> list[str]:
    """Put back the jobs of dead workers; those out of retries fail. Returns the ids of the jobs it found."""
    # Two workers that start together must not both put the same job back.
    with queue.connection.lock("ris:recovery", timeout=_LOCK_SECONDS):
        mend(queue)
        alive = {worker.name for worker in Worker.all(queue=queue) if _is_alive(worker)}
        started = queue.started_job_registry.get_job_and_execution_ids(cleanup=False)
        lost = [ids for ids in started if _worker(queue, *ids) not in alive]
        for job_id, execution_id in lost:
            _put_back(queue, job_id, execution_id)
        unstarted = [] if alive else _put_back_unstarted(queue)
    return [*(job_id for job_id, _ in lost), *unstarted]


def _is_alive(worker: BaseWorker) -> bool:
    if worker.death_date is not None:
        return False
    if worker.hostname != socket.gethostname() or not worker.pid:
        return True
    # In a container that started again, the dead worker had our own process id.
    return worker.pid != os.getpid() and psutil.pid_exists(worker.pid)


def _worker(queue: Queue, job_id: str, execution_id: str) -> str | None:
    try:
        return Execution.fetch(execution_id, job_id, connection=queue.connection).worker_name
    except ValueError:
        return None


def _put_back(queue: Queue, job_id: str, execution_id: str) -> None:
    registry = queue.started_job_registry
    with queue.connection.pipeline() as pipeline:
        pipeline.zrem(registry.key, f"{job_id}:{execution_id}")
        # There it may be too, if the worker died between noting that it starts and taking it out.
        pipeline.lrem(queue.intermediate_queue_key, 0, job_id)
        job = queue.fetch_job(job_id)
        if job is not None and job.should_retry:
            _log.warning("Job %s was left by a worker that died. It starts again.", job_id)
            job.retry(queue, pipeline)
        elif job is not None:
            _log.error("Job %s was left by a worker that died, time and again. It has failed.", job_id)
            job.meta["error"] = _GIVEN_UP
            job.save_meta()  # type: ignore[no-untyped-call]
            job.set_status(JobStatus.FAILED, pipeline=pipeline)
            job.failed_job_registry.add(job, ttl=job.failure_ttl, pipeline=pipeline)
        pipeline.execute()


def _put_back_unstarted(queue: Queue) -> list[str]:
    # With no worker alive, what was taken from the queue but never started is nobody's.
    job_ids = queue.intermediate_queue.get_job_ids()
    for job_id in job_ids:
        with queue.connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
            pipeline.rpush(queue.key, job_id)
            pipeline.execute()
    return job_ids
