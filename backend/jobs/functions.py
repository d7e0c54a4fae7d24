"""The jobs: JSON in, JSON out, each a thin door to a service. The worker runs these and nothing else.

Settings are read anew by each job, so a changed knob counts from the next job on.
"""

from __future__ import annotations

import re
from typing import Any

from rq.job import get_current_job

from backend import assembly, datasets, finetune
from backend.errors import BadRequest
from backend.labelstudio.client import LabelStudio
from backend.settings import load

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
