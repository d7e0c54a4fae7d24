"""Label Studio's tasks -> its predictions: exactly one a task, in the tasks' order. Knows no HTTP.

Label Studio takes a task as done once it has a prediction of the current version. A task that couldn't be
done in a batch therefore gets an empty prediction of another version, and is asked for again next time:

    lda-1a2b3c4d           done; empty if nothing was asked for, or what was asked for isn't there
    lda-1a2b3c4d#failed    this task's image or prompt can't be used; the log says why
    lda-1a2b3c4d#pending   the time for the request was up

In the editor one person waits for one answer: there a failure fails the request, and its sentence is shown.
What is wrong with more than a task (Label Studio itself, the model) fails the request in a batch too.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backend.errors import BadRequest, FetchError, TooMany
from backend.labelstudio.config import LabelConfig
from backend.labelstudio.images import Credentials, ImageResolver
from backend.labelstudio.regions import Region, brush_region, prompt_region
from backend.prompts import PromptRequest, prompts_for
from backend.registry import Registry, Version
from backend.serving import ModelBusy, Models
from ris_core.errors import InputError
from ris_core.predictor import Prediction

_log = logging.getLogger(__name__)

FAILED, PENDING = "#failed", "#pending"

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for. seconds: for all of it. waiting: requests beside the one served."""

    seconds: float = 90.0
    waiting: int = 4
    prompt_length: int = 500
    prompts: int = 32


@dataclass(frozen=True)
class _Request:
    config: LabelConfig
    project: int
    context: Mapping[str, Any] | None
    credentials: Credentials | None
    deadline: float

    @property
    def interactive(self) -> bool:
        return self.context is not None


class Prelabeller:
    """Serves predictions from whichever version is in production at that moment. Safe for threads."""

    def __init__(self, registry: Registry, images: ImageResolver, models: Models, limits: Limits | None = None) -> None:
        self._registry = registry
        self._images = images
        self._models = models
        self._limits = limits or Limits()
        self._slots = threading.BoundedSemaphore(1 + self._limits.waiting)

    def predict(
        self,
        tasks: Sequence[Task],
        config: LabelConfig,
        project: int,
        context: Mapping[str, Any] | None = None,
        credentials: Credentials | None = None,
    ) -> list[dict[str, Any]]:
        """One `{"result": [regions], "score": 0..1, "model_version": str}` for each task.

        The score is the confidence in the least sure answer, whether that is a mask or its absence.

        Args:
            context: what the editor sends along; None in a batch.
            credentials: user name and password of the project's images.

        Raises:
            TooMany: too many requests are waiting already.
            RisError: in the editor, anything; in a batch, what isn't the matter of a single task.
        """
        with self._slot():
            deadline = time.monotonic() + self._limits.seconds
            request = _Request(config, project, context, credentials, deadline)
            return [self._predict_task(task, request) for task in tasks]

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise TooMany(f"{1 + self._limits.waiting} requests are being served or waiting. Try again in a moment.")
        try:
            yield
        finally:
            self._slots.release()

    def _predict_task(self, task: Task, request: _Request) -> dict[str, Any]:
        version = self._registry.current(request.project)
        try:
            return self._answer(task, version, request)
        except ModelBusy:
            if request.interactive:
                raise
            return _prediction([], 0.0, version.name + PENDING)
        except (InputError, FetchError, BadRequest) as error:
            if request.interactive:
                raise
            _log.warning("Task %s of project %s is left out. %s", task.get("id"), request.project, error)
            return _prediction([], 0.0, version.name + FAILED)

    def _answer(self, task: Task, version: Version, request: _Request) -> dict[str, Any]:
        limits = self._limits
        asked = prompts_for(task, request.context, request.config, limits.prompt_length, limits.prompts)
        if not asked:
            return _prediction([], 0.0, version.name)
        if time.monotonic() >= request.deadline:
            raise ModelBusy("The time for this request is up. Ask for fewer tasks at once.")
        image = self._fetch(task, request)
        found = self._models.segment(version, image, [each.prompt for each in asked], request.deadline)
        regions = _mask_regions(request.config, asked, found)
        if not request.interactive:
            regions += _typed_regions(request.config, found)
        return _prediction(regions, min(_confidence(each) for each in found), version.name)

    def _fetch(self, task: Task, request: _Request) -> bytes:
        key, data = request.config.image.key, task.get("data")
        value = data.get(key) if isinstance(data, Mapping) else None
        if not isinstance(value, str) or not value:
            raise BadRequest(f'Task {task.get("id")} has no "{key}", its image. Add it, or delete the task.')
        return self._images.fetch(value, task.get("id"), request.credentials)


def _mask_regions(config: LabelConfig, asked: Sequence[PromptRequest], found: Sequence[Prediction]) -> list[Region]:
    return [
        brush_region(config, request.label, answer.mask, answer.score, request.prompt)
        for request, answer in zip(asked, found, strict=True)
        if answer.present
    ]


def _typed_regions(config: LabelConfig, found: Sequence[Prediction]) -> list[Region]:
    # The annotation made from a batch prediction should hold its sentences, those without a mask too.
    # In the editor the TextArea holds them already.
    if config.prompt is None:
        return []
    height, width = found[0].mask.shape
    return [prompt_region(config, (height, width), *(answer.prompt for answer in found))]


def _confidence(answer: Prediction) -> float:
    # JSON has no NaN, and one would cost the whole batch.
    return answer.score if math.isfinite(answer.score) else 0.0


def _prediction(regions: list[Region], score: float, version: str) -> dict[str, Any]:
    return {"result": regions, "score": float(score), "model_version": version}
