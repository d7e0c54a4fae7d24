"""Label Studio's tasks -> its predictions: exactly one a task, in the tasks' order. Knows no HTTP.

Label Studio takes a task as done once it has a prediction of the current version. A task that couldn't be
done in a batch therefore gets an empty prediction of another version, and is asked for again next time:

    lda-1a2b3c4d.3fa2c1           done; empty if nothing was asked for, or what was asked for isn't there
    lda-1a2b3c4d.3fa2c1#failed    this task's image or prompt can't be used; the log says why

answering.py says what stands before and after the dot. Of its #offered and #opened an answer without a region is no
prediction at all, an empty list: Label Studio 1.23.2 stores nothing then, and asks again.

In the editor one person waits for one answer: there a failure fails the request, and its sentence is shown.
What is wrong with more than a task (Label Studio itself, the model, the time) fails the request in a batch too: it
has all of its tasks done, or none.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from backend.active_learning.strategies import Pair
from backend.datasets.annotations import clean
from backend.errors import BadRequest, FetchError, TooMany
from backend.inference.model_pool import ModelBusy, ModelPool
from backend.inference.project_model import ProjectModel, ProjectModels
from backend.labelstudio.images import Credentials, ImageResolver
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region_checks import validate
from backend.labelstudio.regions import Region, mask_regions, prompt_region
from backend.prompts.requests import PromptRequest, combine, echoes
from ris_core.errors import InputError, OutOfMemory
from ris_core.inference.predictor import Image, Prediction
from ris_core.inference.uncertainty import PASSES, Studied

_log = logging.getLogger(__name__)

FAILED = "#failed"
# Tasks that go through the model together: as many as it encodes in one pass.
GROUP = 8
# How much the last group counts in the pace.
_FRESH = 0.3

Task: TypeAlias = Mapping[str, Any]
TaskPrediction: TypeAlias = dict[str, Any] | list[Any]
"""`{"result": [regions], "score": 0..1, "model_version": str}`, or [] to store nothing."""
UnansweredTask: TypeAlias = InputError | FetchError | BadRequest | OutOfMemory
"""What is wrong with a task, and costs no other."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    seconds: for all of it. waiting: requests beside the one served. batch_from: tasks that are too many for one.
    """

    seconds: float = 90.0
    waiting: int = 4
    batch_from: int = 16


@dataclass(frozen=True)
class Question:
    """What is asked of a task, and the version string of the answer. image: None as long as nobody fetched it."""

    task: Task
    requests: tuple[PromptRequest, ...]
    version: str
    image: bytes | Image | None = None

    @property
    def sentences(self) -> list[str]:
        return [sentence for request in self.requests for sentence in request.sentences]


@dataclass(frozen=True)
class _Request:
    """opened: it is about one task alone, so perhaps somebody opens it. deadline: on `time.monotonic`'s clock."""

    answering: ProjectModel
    context: Mapping[str, Any] | None
    credentials: Credentials | None
    deadline: float
    opened: bool

    def question(self, task: Task) -> Question:
        asked = self.answering.asked(task, self.context, self.opened)
        if asked.requests and time.monotonic() >= self.deadline:
            raise ModelBusy("The time for this request is up. Ask for fewer tasks at once.")
        return Question(task, asked.requests, asked.version)


class Prelabeller:
    """Serves predictions from whichever version is in production at that moment. Safe for threads."""

    def __init__(
        self, answers: ProjectModels, images: ImageResolver, models: ModelPool, limits: Limits | None = None
    ) -> None:
        self._answers = answers
        self._images = images
        self._models = models
        self._limits = limits or Limits()
        self._slots = threading.BoundedSemaphore(1 + self._limits.waiting)
        # Seconds that a task of a batch takes.
        self._pace = 0.0

    def fits(self, tasks: int) -> bool:
        """Whether so many tasks can be done within a request, at the pace of late."""
        return tasks < self._limits.batch_from and tasks * self._pace <= self._limits.seconds

    def predict(
        self,
        tasks: Sequence[Task],
        config: LabelConfig,
        project: int,
        context: Mapping[str, Any] | None = None,
        credentials: Credentials | None = None,
    ) -> list[TaskPrediction]:
        """One answer for each task.

        The score is the confidence in the least sure answer, whether that is a mask or its absence.

        Args:
            context: what the editor sends along; None in a batch.
            credentials: user name and password of the project's images.

        Raises:
            TooMany: too many requests are waiting already.
            ModelBusy: the time was up before all of them were done.
            RisError: in the editor, anything; in a batch, what isn't the matter of a single task.
        """
        with self._slot():
            deadline = time.monotonic() + self._limits.seconds
            answering = self._answers.of(project, config)
            request = _Request(answering, context, credentials, deadline, opened=len(tasks) == 1)
            if context is not None:
                found = [self._interact(task, request) for task in tasks]
                answering.remember(context)
                return found
            groups = (tasks[start : start + GROUP] for start in range(0, len(tasks), GROUP))
            return [answer for group in groups for answer in self._batch(group, request)]

    def fetch(self, question: Question, config: LabelConfig, credentials: Credentials | None = None) -> Question:
        """The question with its image, encoded. Raises FetchError, BadRequest or LabelStudioError."""
        task, key = question.task, config.image.key
        data = task.get("data")
        value = data.get(key) if isinstance(data, Mapping) else None
        if not isinstance(value, str) or not value:
            raise BadRequest(f'Task {task.get("id")} has no "{key}", its image. Add it, or delete the task.')
        return replace(question, image=self._images.fetch(value, task.get("id"), credentials))

    def decode(self, question: Question) -> Question:
        """The question with its image decoded. Raises ImageError."""
        image = question.image
        return replace(question, image=self._models.read(image)) if isinstance(image, bytes) else question

    def answer(
        self,
        questions: Sequence[Question],
        answering: ProjectModel,
        deadline: float,
        echo: bool = True,
        noted: list[Pair] | None = None,
    ) -> list[TaskPrediction | UnansweredTask]:
        """Answer questions together; those that ask for nothing need no image.

        Args:
            echo: whether the sentences are part of the answers.
            deadline: until when to wait for the model, on `time.monotonic`'s clock.
            noted: gets the pairs that were answered, with what ranking them by the project's strategy takes.

        Raises:
            ModelBusy: others kept the model until the deadline.
            CheckpointError: the version can't be used.
        """
        asked = [(question.image, question.sentences) for question in questions if question.image is not None]
        passes = None if noted is None else _passes(answering)
        found = iter(self._models.segment_all(answering.version, asked, deadline, passes) if asked else [])
        answers: list[TaskPrediction | UnansweredTask] = []
        for question in questions:
            predictions = next(found) if question.image is not None else []
            if isinstance(predictions, Exception):
                answers.append(predictions)
                continue
            answers.append(_answer(question, predictions, answering, echo))
            if noted is not None:
                noted += _pairs(question, predictions)
        return answers

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise TooMany(f"{1 + self._limits.waiting} requests are being served or waiting. Try again in a moment.")
        try:
            yield
        finally:
            self._slots.release()

    def _interact(self, task: Task, request: _Request) -> TaskPrediction:
        question = self._question(task, request)
        [answer] = self.answer([question], request.answering, request.deadline, echo=False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _batch(self, tasks: Sequence[Task], request: _Request) -> list[TaskPrediction]:
        started = time.monotonic()
        questions = [self._attempt(task, request) for task in tasks]
        asked = [question for question in questions if isinstance(question, Question)]
        answers = iter(self.answer(asked, request.answering, request.deadline))
        found = [next(answers) if isinstance(question, Question) else question for question in questions]
        if any(question.requests for question in asked):
            pace = (time.monotonic() - started) / len(tasks)
            self._pace = (1 - _FRESH) * self._pace + _FRESH * pace if self._pace else pace
        return [_settled(task, each, request.answering) for task, each in zip(tasks, found, strict=True)]

    def _attempt(self, task: Task, request: _Request) -> Question | UnansweredTask:
        try:
            return self._question(task, request)
        except (InputError, FetchError, BadRequest) as error:
            return error

    def _question(self, task: Task, request: _Request) -> Question:
        question = request.question(task)
        return self.fetch(question, request.answering.config, request.credentials) if question.requests else question


def _answer(
    question: Question, predictions: Sequence[Prediction], answering: ProjectModel, echo: bool
) -> TaskPrediction | UnansweredTask:
    if not question.requests:
        return _prediction(question, [], 0.0, answering)
    each = iter(predictions)
    found = [_combined(request, [next(each) for _ in request.sentences]) for request in question.requests]
    try:
        regions = _mask_regions(answering.config, question.requests, found)
        if echo:
            regions += _typed_regions(answering.config, found[0].mask.shape, echoes(question.requests, found))
        validate(regions, answering.config)
    except BadRequest as error:
        return error
    return _prediction(question, regions, min(_confidence(each) for each in found), answering)


def _combined(request: PromptRequest, answers: Sequence[Prediction]) -> Prediction:
    return combine(request, answers[0], answers[1:])


def _passes(answering: ProjectModel) -> int:
    return PASSES if answering.settings.prelabel_score == "disagreement" else 0


def _pairs(question: Question, predictions: Sequence[Prediction]) -> list[Pair]:
    """What was asked of a task, each sentence once."""
    each = iter(predictions)
    pairs: dict[str, Pair] = {}
    for request in question.requests:
        answers = [next(each) for _ in request.sentences]
        pair = _pair(int(question.task["id"]), request, answers)
        pairs.setdefault(pair.prompt, pair)
    return list(pairs.values())


def _pair(task: int, request: PromptRequest, answers: Sequence[Prediction]) -> Pair:
    studied = [answer for answer in answers if isinstance(answer, Studied)]
    disagreement = max((each.disagreement for each in studied if each.disagreement is not None), default=math.nan)
    confidence = _confidence(_combined(request, answers))
    return Pair(task, clean(request.prompt), confidence, disagreement, studied[0].embedding)


def _mask_regions(config: LabelConfig, asked: Sequence[PromptRequest], found: Sequence[Prediction]) -> list[Region]:
    return [
        region
        for request, answer in zip(asked, found, strict=True)
        if answer.present
        for region in mask_regions(config, request.label, answer.mask, answer.score, request.prompt, request.notes)
    ]


def _typed_regions(config: LabelConfig, size: tuple[int, ...], sentences: Sequence[str]) -> list[Region]:
    # The annotation made from a batch prediction should hold its sentences, those without a mask too.
    # In the editor the TextArea holds them already.
    if config.prompt is None or not sentences:
        return []
    return [prompt_region(config, (size[0], size[1]), *sentences)]


def _confidence(answer: Prediction) -> float:
    # JSON has no NaN, and one would cost the whole batch.
    return answer.score if math.isfinite(answer.score) else 0.0


def _prediction(question: Question, regions: list[Region], score: float, answering: ProjectModel) -> TaskPrediction:
    if not regions and question.version != answering.name:
        return []
    return {"result": regions, "score": float(score), "model_version": question.version}


def _settled(task: Task, answer: TaskPrediction | UnansweredTask, answering: ProjectModel) -> TaskPrediction:
    if not isinstance(answer, Exception):
        return answer
    _log.warning("Task %s of project %s is left out. %s", task.get("id"), answering.project, answer)
    return {"result": [], "score": 0.0, "model_version": answering.name + FAILED}
