"""The jobs: JSON in, JSON out, each a thin door to a service. The worker runs these and nothing else.

Settings are read anew by each job, so a changed knob counts from the next job on.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

from redis import Redis
from rq import Worker
from rq.job import get_current_job

from backend import assembly, datasets, finetune, runner
from backend.batches import Batches
from backend.errors import BadRequest
from backend.jobs.queue import JobQueue, connect, open_queue
from backend.labelstudio.client import LabelStudio
from backend.settings import load

# A runner works this long, or until learning or an export waits; then it is the turn of whoever waits longest.
SLICE_SECONDS = 300.0
_LOOK_SECONDS = 1.0
# People in front of the editor come first; much more would starve a batch beside a training.
NICENESS = 5
# What RQ notes in a worker's record when it is told to stop.
_STOPPING = "shutdown_requested_date"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def learn(project: int, force: bool = False) -> dict[str, Any]:
    """Learn from all that is annotated in a project, if enough is new or by `force`. Returns `finetune.Outcome`."""
    settings = load(_number(project))
    with LabelStudio(settings.label_studio_url, settings.secret("label_studio_token")) as client:
        services = finetune.Services(client, assembly.images(settings), assembly.registry(settings), settings)
        return finetune.learn(project, services, force=force, report=_Report()).as_json()


def export(project: int, form: str, name: str) -> dict[str, Any]:
    """Export a project to `<home>/exports/<name>`. Returns `datasets.export_project`'s report."""
    settings = load()
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        # A path from the queue could lead anywhere on the disk.
        raise BadRequest(f"{name!r:.100} can't name an export. Use letters, digits, dots and dashes.")
    with LabelStudio(settings.label_studio_url, settings.secret("label_studio_token")) as client:
        return datasets.export_project(
            client,
            assembly.images(settings),
            _number(project),
            settings.home / "exports" / name,
            home=settings.home,
            fmt=form,
            max_pixels=settings.max_image_pixels,
        )


def prelabel(batch: str) -> dict[str, Any]:
    """Work on a batch until nothing of it is left, or others wait. Returns `runner.Worked`."""
    os.nice(NICENESS)
    settings = load()
    connection = connect(settings.secret("redis_url"), patient=True)
    batches = Batches(connection)
    if batches.get(batch).state != "running":
        return runner.Worked(batch).as_json()
    # Before anything else: should this runner die, or another worker be idle, somebody goes on.
    JobQueue(connection).prelabel(batch)
    with LabelStudio(settings.label_studio_url, settings.secret("label_studio_token")) as client:
        return runner.run(batch, assembly.runner_services(settings, client, batches), _Turn(connection)).as_json()


class _Turn:
    """Says when a runner should make room: its time is over, others wait, or the worker was told to stop."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._end = time.monotonic() + SLICE_SECONDS
        self._looked, self._over = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._over and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._over = now >= self._end or self._others_wait() or self._worker_stops()
        return self._over

    def _others_wait(self) -> bool:
        return bool(self._connection.llen(open_queue(self._connection).key))

    def _worker_stops(self) -> bool:
        # The worker's process alone hears SIGTERM; RQ notes it in the worker's record.
        job = get_current_job()
        name = job.worker_name if job else None
        return bool(name and self._connection.hexists(f"{Worker.redis_worker_namespace_prefix}{name}", _STOPPING))


class _Report:
    """Keeps the progress in the job's record, for /jobs/<id>."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, stage: str, share: float) -> None:
        job = get_current_job()
        # Whole percents: a training takes many more steps than anybody looks.
        news = f"{stage} {share:.2f}"
        if job is not None and news != self._last:
            job.meta["progress"] = {"stage": stage, "share": round(share, 2)}
            job.save_meta()  # type: ignore[no-untyped-call]
            self._last = news


def _number(project: object) -> int:
    if not isinstance(project, int) or isinstance(project, bool) or project < 1:
        raise BadRequest(f"{project!r:.100} isn't the number of a project.")
    return project
