"""The jobs: JSON in, JSON out, each a thin door to a service. The worker runs these and nothing else.

Settings are read anew by each job, so a changed knob counts from the next job on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from redis.exceptions import RedisError
from rq.job import Job, get_current_job

from backend import metrics, services
from backend.batches import runner
from backend.batches.service import BatchService
from backend.batches.store import BatchStore
from backend.datasets.export import STAGES, ExportSpec, check_name, export_project
from backend.errors import BadRequest
from backend.home import exports_folder
from backend.jobs import memory_limit
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import Defaults
from backend.learning import finetune, rollout
from backend.learning.events import EventLog
from backend.learning.finetune import LearningServices
from backend.learning.teaching import TeachingSpec, teaching_spec
from backend.learning.triggers import attempt
from backend.queue.allow_list import GuardedJob
from backend.queue.cancellation import JobStopped, Turn
from backend.queue.queue import RETRIES, JobQueue, connect, min_new_of
from backend.settings import Settings, load
from ris_core.errors import OutOfMemory
from ris_core.inference.passes import is_out_of_memory
from ris_core.training.loop import Interrupted

# People in front of the editor come first, then batches. Much more would starve a batch beside other programs.
NICENESS = {"prelabel": 5, "learn": 10}
# Its first start takes a minute or two.
STUDIO_SECONDS = 180.0


def learn(project: int) -> dict[str, Any]:
    """Learn from all that is annotated in a project, if enough of it is new. Returns `finetune.Outcome`.

    The job's record says how much is enough, see `JobQueue.learn`.
    """
    job = get_current_job()
    return _learn(project, job, min_new_of(job) if job else None)


def distil(project: int, above: float, tasks: int) -> dict[str, Any]:
    """Learn from what is annotated, and from what the version in production says of other tasks. Returns as `learn`."""
    return _learn(project, get_current_job(), 0, teaching_spec(above, tasks))


def _learn(project: int, job: Job | None, min_new: int | None, teaching: TeachingSpec | None = None) -> dict[str, Any]:
    settings = load(_number(project))
    with memory_explained(settings, job), _label_studio(settings, job) as client:
        parts = LearningServices(client, services.image_resolver(settings), services.registry(settings), settings)
        _make_way("learn")
        log = EventLog(connect(settings.secret("redis_url"), patient=True), settings.home)
        queue, progress = JobQueue.from_settings(settings), JobProgress(job, finetune.STAGES)
        learn = partial(
            finetune.learn,
            project,
            parts,
            min_new=min_new,
            teaching=teaching,
            stop=_should_stop(job),
            on_progress=progress,
        )
        outcome = attempt(project, job.id if job else "", client, log, queue, learn)
        metrics.LEARNING_RUNS.labels(str(project), outcome.decision).inc()
        return asdict(outcome)


def export(project: int, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Export a project to `<home>/exports/<name>`. Returns `datasets.export_project`'s report."""
    settings, job = load(_number(project)), get_current_job()
    check_name(name)
    with _label_studio(settings, job) as client:
        return export_project(
            client,
            services.image_resolver(settings),
            project,
            exports_folder(settings.home) / name,
            home=settings.home,
            spec=ExportSpec.of(spec),
            max_pixels=settings.max_image_pixels,
            defaults=Defaults.of(settings),
            on_progress=JobProgress(job, STAGES),
        )


def prelabel(batch: str) -> dict[str, Any]:
    """Work on a batch until nothing of it is left, or others wait. Returns `runner.RunSummary`."""
    _make_way("prelabel")
    settings, job = load(), get_current_job()
    connection = connect(settings.secret("redis_url"), patient=True)
    queue = JobQueue(connection)
    current = BatchService(connection, queue).take_over(batch)
    if current.state != "running":
        rollout.on_batch_end(current, queue)
        return asdict(runner.RunSummary(batch))
    turn = Turn(connection, job.worker_name if job else None, _should_stop(job))
    with LabelStudio.from_settings(settings) as client:
        return asdict(runner.run(batch, services.runner_services(settings, client, BatchStore(connection)), turn))


def refresh(project: int) -> dict[str, Any]:
    """Do what a project's predictions need since its last promotion, see `backend.learning.rollout`.

    Returns {"state": ...}.
    """
    settings, project = load(), _number(project)
    with _label_studio(settings, get_current_job()) as client:
        return {"state": services.rollout(settings, client).reconcile(project)}


class JobProgress:
    """Called, keeps the progress for /jobs/<id>. Getting further than ever gives a job all its tries back.

    stages: in the order in which the job comes to them.
    """

    def __init__(self, job: Job | None, stages: Sequence[str]) -> None:
        self._job, self._stages, self._last = job, stages, ("", 0.0)

    def __call__(self, stage: str, share: float) -> None:
        # Whole percents: a training takes many more steps than anybody looks.
        progress = stage, round(share, 2)
        if self._job is None or progress == self._last:
            return
        self._last, job, reached = progress, self._job, [self._stages.index(stage), progress[1]]
        job.meta["progress"] = {"stage": stage, "share": progress[1]}
        # Work must not end for what is only told.
        with suppress(RedisError):
            # Else a job that is killed at the same place each time would never come to an end.
            if reached > job.meta.get("furthest", []):
                job.meta["furthest"], job.retries_left = reached, RETRIES
                job.connection.hset(job.key, "retries_left", RETRIES)
            job.save_meta()  # type: ignore[no-untyped-call]


@contextmanager
def memory_explained(settings: Settings, job: Job | None) -> Iterator[None]:
    """Inside, learning may take as much memory as the settings say; the end of memory becomes a sentence."""
    advice = f"lower RIS_FINETUNE_PHOTOS (now {settings.finetune_photos}), or give the worker more memory"
    # For the worker, where this process can't say anything any more.
    _note(job, "memory_advice", advice)

    def explain(held: int) -> None:
        message = (
            f"Learning was killed for memory: it held {held:,} MiB, and RIS_FINETUNE_MEMORY allows "
            f"{settings.finetune_memory:,}. Lower RIS_FINETUNE_PHOTOS (now {settings.finetune_photos}), or raise that."
        )
        _note(job, "error", {"code": OutOfMemory.code, "message": message})

    try:
        with memory_limit.at_most(settings.finetune_memory, explain):
            yield
    except Interrupted:
        raise JobStopped from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"Memory ran out while learning: {advice}.") from None


@contextmanager
def _label_studio(settings: Settings, job: Job | None) -> Iterator[LabelStudio]:
    """Label Studio once it is up: after a restart, a worker takes up what was interrupted before that."""
    with LabelStudio.from_settings(settings) as client:
        client.wait(STUDIO_SECONDS, _should_stop(job))
        yield client


def _note(job: Job | None, name: str, value: object) -> None:
    if job is not None:
        job.meta[name] = value
        job.save_meta()  # type: ignore[no-untyped-call]


def _make_way(job: str) -> None:
    """One core stays free for predictions and Label Studio; threads of one pass would wait for each other there."""
    os.nice(NICENESS[job])
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def _should_stop(job: Job | None) -> Callable[[], bool]:
    return job.should_stop if isinstance(job, GuardedJob) else GuardedJob.should_stop


def _number(project: object) -> int:
    if not isinstance(project, int) or isinstance(project, bool) or project < 1:
        raise BadRequest(f"{project!r:.100} isn't the number of a project.")
    return project
