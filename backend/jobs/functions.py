"""The jobs: JSON in, JSON out, each a thin door to a service. The worker runs these and nothing else.

Settings are read anew by each job, so a changed knob counts from the next job on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.job import Job, get_current_job

from backend import services
from backend.batches import runner
from backend.batches.store import BatchStore
from backend.datasets.export import export_project
from backend.errors import BadRequest, Unavailable
from backend.home import exports_folder
from backend.jobs import memory_limit
from backend.labelstudio.client import LabelStudio
from backend.learning import finetune, triggers
from backend.learning.events import EventLog
from backend.learning.rollout import ORIGIN
from backend.queue import cancellation
from backend.queue.names import NAME, TRAINING
from backend.queue.queue import RETRIES, JobQueue, connect, least_new, open_queue
from backend.settings import Settings, load
from ris_core.errors import OutOfMemory
from ris_core.inference.predictor import is_out_of_memory
from ris_core.training.loop import Interrupted

# A runner works this long, or until a job waits that this worker would do first; then it is the turn of that.
SLICE_SECONDS = 300.0
_LOOK_SECONDS = 1.0
# People in front of the editor come first, then batches. Much more would starve a batch beside other programs.
NICENESS = {"prelabel": 5, "learn": 10}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def learn(project: int) -> dict[str, Any]:
    """Learn from all that is annotated in a project, if enough of it is new. Returns `finetune.Outcome`.

    The job's record says how much is enough, see `JobQueue.learn`.
    """
    settings, job = load(_number(project)), get_current_job()
    with (
        _limited(settings, job),
        LabelStudio.from_settings(settings) as client,
    ):
        parts = finetune.LearningServices(
            client, services.image_resolver(settings), services.registry(settings), settings
        )
        os.nice(NICENESS["learn"])
        # One core stays free for predictions.
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
        least = least_new(job) if job else None
        log = EventLog(connect(settings.secret("redis_url"), patient=True), settings.home)
        with triggers.learning(log, client, project, job.id if job else "") as turn:
            outcome = finetune.learn(project, parts, least=least, stop=cancellation.asked, report=_Report(job))
            turn.left = outcome.new if outcome.decision == "waiting" else 0
    if outcome.decision == "promoted":
        # Else the worker sees it within a minute.
        with suppress(Unavailable):
            JobQueue(connect(settings.secret("redis_url"))).refresh(project)
    return outcome.as_json()


def export(project: int, form: str, name: str) -> dict[str, Any]:
    """Export a project to `<home>/exports/<name>`. Returns `datasets.export_project`'s report."""
    settings = load()
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        # A path from the queue could lead anywhere on the disk.
        raise BadRequest(f"{name!r:.100} can't name an export. Use letters, digits, dots and dashes.")
    with LabelStudio.from_settings(settings) as client:
        return export_project(
            client,
            services.image_resolver(settings),
            _number(project),
            exports_folder(settings.home) / name,
            home=settings.home,
            fmt=form,
            max_pixels=settings.max_image_pixels,
        )


def prelabel(batch: str) -> dict[str, Any]:
    """Work on a batch until nothing of it is left, or others wait. Returns `runner.RunSummary`."""
    os.nice(NICENESS["prelabel"])
    # One core stays free for Label Studio, and for reading and writing: threads of one pass wait for each other.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    settings = load()
    connection = connect(settings.secret("redis_url"), patient=True)
    batches = BatchStore(connection)
    found = batches.get(batch)
    if found.state != "running":
        if found.spec.origin == ORIGIN:
            JobQueue(connection).refresh(found.spec.project)
        return runner.RunSummary(batch).as_json()
    # Before anything else: should this runner die, or another worker be idle, somebody goes on.
    JobQueue(connection).prelabel(batch)
    with LabelStudio.from_settings(settings) as client:
        return runner.run(batch, services.runner_services(settings, client, batches), _Turn(connection)).as_json()


def refresh(project: int) -> dict[str, Any]:
    """Do what a project's predictions need since its last promotion, see `backend.learning.rollout`.

    Returns {"state": ...}.
    """
    settings = load()
    with LabelStudio.from_settings(settings) as client:
        return {"state": services.rollout(settings, client).tend(_number(project))}


class _Turn:
    """Says when a runner should make room: its time is over, others wait, or the worker was told to stop."""

    def __init__(self, connection: Redis) -> None:
        self._end = time.monotonic() + SLICE_SECONDS
        self._before = [open_queue(connection, name=name) for name in _served(connection) if name in (NAME, TRAINING)]
        self._looked, self._over = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._over and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._over = now >= self._end or any(queue.count for queue in self._before)
        return self._over or cancellation.asked()


def _served(connection: Redis) -> list[str]:
    """The queues of the worker that runs this job."""
    job = get_current_job()
    name = job.worker_name if job else None
    found = connection.hget(f"{Worker.redis_worker_namespace_prefix}{name}", "queues")
    return found.decode().split(",") if isinstance(found, bytes) else []


class _Report:
    """Keeps the progress in the job's record, for /jobs/<id>. Getting further than ever gives all its tries back."""

    def __init__(self, job: Job | None) -> None:
        self._job, self._last = job, ""

    def __call__(self, stage: str, share: float) -> None:
        # Whole percents: a training takes many more steps than anybody looks.
        news = f"{stage} {share:.2f}"
        if self._job is None or news == self._last:
            return
        self._last = news
        self._job.meta["progress"] = {"stage": stage, "share": round(share, 2)}
        # Learning must not end for what is only told.
        with suppress(RedisError):
            self._note(self._job, [finetune.STAGES.index(stage), round(share, 2)])

    def _note(self, job: Job, reached: list[float]) -> None:
        if reached > job.meta.get("furthest", []):
            # Else a job that is killed at the same place each time would never come to an end.
            job.meta["furthest"], job.retries_left = reached, RETRIES
            job.connection.hset(job.key, "retries_left", RETRIES)
        job.save_meta()  # type: ignore[no-untyped-call]


@contextmanager
def _limited(settings: Settings, job: Job | None) -> Iterator[None]:
    """Inside, learning may take as much memory as the settings say; the end of memory becomes a sentence."""
    advice = f"lower RIS_FINETUNE_PHOTOS (now {settings.finetune_photos}), or give the worker more memory"
    if job is not None:
        # For the worker, where this process can't say anything any more.
        job.meta["memory_advice"] = advice
        job.save_meta()  # type: ignore[no-untyped-call]

    def explain(held: int) -> None:
        message = (
            f"Learning was killed for memory: it held {held:,} MiB, and RIS_FINETUNE_MEMORY allows "
            f"{settings.finetune_memory:,}. Lower RIS_FINETUNE_PHOTOS (now {settings.finetune_photos}), or raise that."
        )
        if job is not None:
            job.meta["error"] = {"code": OutOfMemory.code, "message": message}
            job.save_meta()  # type: ignore[no-untyped-call]

    try:
        with memory_limit.at_most(settings.finetune_memory, explain):
            yield
    except Interrupted:
        raise cancellation.JobStopped from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"Memory ran out while learning: {advice}.") from None


def _number(project: object) -> int:
    if not isinstance(project, int) or isinstance(project, bool) or project < 1:
        raise BadRequest(f"{project!r:.100} isn't the number of a project.")
    return project
