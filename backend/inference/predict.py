"""Label Studio's tasks -> its predictions: exactly one a task, in the tasks' order. Knows no HTTP.

Label Studio takes a task as done once it has a prediction of the current version. A task that couldn't be
done in a batch therefore gets an empty prediction of another version, and is asked for again next time:

    lda-1a2b3c4d.3fa2c1           done; empty if nothing was asked for, or what was asked for isn't there
    lda-1a2b3c4d.3fa2c1#failed    this task's image or prompt can't be used; the log says why

project_model.py says what stands before and after the dot. Of its #offered and #opened an answer without a region is no
prediction at all, an empty list: Label Studio 1.23.2 stores nothing then, and asks again.

In the editor one person waits for one answer: there a failure fails the request, and its sentence is shown.
What is wrong with more than a task (Label Studio itself, the model, the time) fails the request in a batch too: it
has all of its tasks done, or none.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from backend import metrics
from backend.active_learning.strategies import Pair
from backend.errors import BadRequest, FetchError, TooMany
from backend.inference.model_pool import ImagePrompts, ModelBusy, ModelPool
from backend.inference.project_model import ProjectModel, ProjectModels, PromptedTask, Task
from backend.labelstudio.images import Credentials, ImageResolver
from backend.labelstudio.json_values import is_id, objects_in
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region_checks import validate
from backend.labelstudio.region_ids import stable_ids
from backend.labelstudio.regions import Region, answer_region, mask_regions, noted_prompts, prompt_region, regions_of
from backend.labelstudio.task_data import group_of, image_address, split_identity
from backend.prompts.last_answers import in_place
from backend.prompts.mending import MaskInEditor
from backend.prompts.request import PromptRequest, combine, echoes, reply
from backend.prompts.text import clean
from ris_core.data.splits import is_blind
from ris_core.errors import InputError, OutOfMemory
from ris_core.files import sha256
from ris_core.inference.prediction import PASSES, AssessedPrediction, Prediction
from ris_core.masks import Mask

_log = logging.getLogger(__name__)

FAILED = "#failed"
# Tasks that go through the model together: as many as it encodes in one pass.
GROUP = 8
# How much the last group counts in the pace.
_FRESH = 0.3

TaskPrediction: TypeAlias = dict[str, Any] | list[Any]
"""`{"result": [regions], "score": 0..1, "model_version": str}`, or [] to store nothing."""
UnansweredTask: TypeAlias = InputError | FetchError | BadRequest | OutOfMemory
"""What is wrong with a task, and costs no other."""


@dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for.

    seconds: for all of it. waiting: requests beside the one served. batch_from: tasks that are too many for one.
    """

    seconds: float = 90.0
    waiting: int = 4
    batch_from: int = 16


@dataclass(frozen=True)
class _PredictRequest:
    """opened: it is about one task alone, so perhaps somebody opens it. deadline: on `time.monotonic`'s clock."""

    project_model: ProjectModel
    context: Mapping[str, Any] | None
    credentials: Credentials | None
    deadline: float
    opened: bool


class Prelabeller:
    """Serves predictions from whichever version is in production at that moment. Safe for threads."""

    def __init__(
        self,
        project_models: ProjectModels,
        images: ImageResolver,
        model_pool: ModelPool,
        limits: RequestLimits | None = None,
    ) -> None:
        self._project_models = project_models
        self._images = images
        self._model_pool = model_pool
        self._limits = limits or RequestLimits()
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

        The score is the confidence in the least sure answer, be it a mask or its absence: what has the lowest is to be
        labelled next. Where no mask is shown it is half of that: nobody is to read a sure absence as a sure mask, and
        such tasks come after the unsure masks and before the sure ones.

        Args:
            context: what the editor sends along; None in a batch.
            credentials: user name and password of the project's images.

        Raises:
            TooMany: too many requests are waiting already.
            ModelBusy: the time was up before all of them were done.
            RisError: in the editor, anything; in a batch, what isn't the matter of a single task.
        """
        if not self._slots.acquire(blocking=False):
            raise TooMany(f"{1 + self._limits.waiting} requests are being served or waiting. Try again in a moment.")
        try:
            deadline = time.monotonic() + self._limits.seconds
            project_model = self._project_models.of(project, config)
            request = _PredictRequest(project_model, context, credentials, deadline, opened=len(tasks) == 1)
            if context is not None:
                predictions = [self._interact(task, request) for task in tasks]
                project_model.remember_prompt(context)
                return predictions
            groups = (tasks[start : start + GROUP] for start in range(0, len(tasks), GROUP))
            return [prediction for group in groups for prediction in self._batch(group, request)]
        finally:
            self._slots.release()

    def fetch(self, task: PromptedTask, config: LabelConfig, credentials: Credentials | None = None) -> PromptedTask:
        """The task with its image, encoded. Raises FetchError, BadRequest or LabelStudioError."""
        address = image_address(task.task, config)
        with metrics.timed(metrics.FETCH_SECONDS):
            image = self._images.fetch(address, task.task.get("id"), credentials)
        return replace(task, image=image, identity=sha256(image))

    def decode(self, task: PromptedTask) -> PromptedTask:
        """The task with its image decoded. Raises ImageError."""
        image = task.image
        return replace(task, image=self._model_pool.read(image)) if isinstance(image, bytes) else task

    def answer(
        self,
        tasks: Sequence[PromptedTask],
        project_model: ProjectModel,
        deadline: float,
        echo: bool = True,
        pairs: list[Pair] | None = None,
    ) -> list[TaskPrediction | UnansweredTask]:
        """Answer tasks together; those of which nothing is asked need no image.

        Args:
            echo: a batch's: the sentences are part of the answers, and masks below `prelabel_min_score` are not.
            deadline: until when to wait for the model, on `time.monotonic`'s clock.
            pairs: gets the pairs that were answered, with what ranking them by the project's strategy takes.

        Raises:
            ModelBusy: others kept the model until the deadline.
            CheckpointError: the version can't be used.
        """
        images = [ImagePrompts(task.image, task.asked, task.identity) for task in tasks if task.image is not None]
        in_passes = PASSES if project_model.settings.prelabel_score == "disagreement" else 0
        passes = None if pairs is None else in_passes
        guessed = {request.prompt for task in tasks for request in task.requests if request.guessed}
        apart = {
            str(request.asked[0]) for task in tasks for request in task.requests if _is_apart(request, project_model)
        }
        version, pool = project_model.version, self._model_pool
        results = iter(pool.segment_all(version, images, deadline, passes, guessed, apart) if images else [])
        answers: list[TaskPrediction | UnansweredTask] = []
        for task in tasks:
            predictions = next(results) if task.image is not None else []
            if isinstance(predictions, Exception):
                answers.append(predictions)
                continue
            answers.append(_answer(task, predictions, project_model, echo))
            if pairs is not None:
                pairs += _pairs(task, predictions, project_model.settings.prelabel_min_score)
        return answers

    def _interact(self, task: Task, request: _PredictRequest) -> TaskPrediction:
        prompted = self._prompted(task, request)
        [answer] = self.answer([prompted], request.project_model, request.deadline, echo=False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _batch(self, tasks: Sequence[Task], request: _PredictRequest) -> list[TaskPrediction]:
        started = time.monotonic()
        attempts = [self._attempt(task, request) for task in tasks]
        prompted = [attempt for attempt in attempts if isinstance(attempt, PromptedTask)]
        answers = iter(self.answer(prompted, request.project_model, request.deadline))
        settled = [next(answers) if isinstance(attempt, PromptedTask) else attempt for attempt in attempts]
        if any(task.requests for task in prompted):
            pace = (time.monotonic() - started) / len(tasks)
            self._pace = (1 - _FRESH) * self._pace + _FRESH * pace if self._pace else pace
        return [_settled(task, answer, request.project_model) for task, answer in zip(tasks, settled, strict=True)]

    def _attempt(self, task: Task, request: _PredictRequest) -> PromptedTask | UnansweredTask:
        try:
            return self._prompted(task, request)
        except (InputError, FetchError, BadRequest) as error:
            return error

    def _prompted(self, task: Task, request: _PredictRequest) -> PromptedTask:
        """The task with what is asked of it and, if that is anything, with its image."""
        if not (task.get("id") is None or is_id(task["id"])):
            raise BadRequest(f"The request has a task whose id is {task['id']!r:.40}, not a number.")
        project_model = request.project_model
        prompted = project_model.prompted(task, request.context, request.opened)
        if not prompted.requests:
            return prompted
        if time.monotonic() >= request.deadline:
            raise ModelBusy("The time for this request is up. Ask for fewer tasks at once.")
        return self.fetch(prompted, project_model.config, request.credentials)


def _answer(
    task: PromptedTask, predictions: Sequence[Prediction], project_model: ProjectModel, echo: bool
) -> TaskPrediction | UnansweredTask:
    if not task.requests:
        return _prediction(task, [], 0.0, project_model)
    config, least = project_model.config, project_model.settings.prelabel_min_score if echo else 0.0
    answers = [
        answer if _confidence(answer) >= least else replace(answer, present=False)
        for _, answer, _ in combined(task, predictions)
    ]
    size = answers[0].mask.shape[0], answers[0].mask.shape[1]
    score = min(map(_confidence, answers)) / (1 if any(answer.present for answer in answers) else 2)
    if (
        echo
        and config.absent
        and is_blind(split_identity(group_of(task.task, config), task.identity), project_model.settings.prelabel_blind)
    ):
        # What people draw without having seen an answer is what versions are best compared on. The score stays: the
        # order of the tasks mustn't tell. Without those Choices a bare Submit would deny what was hidden.
        return _prediction(task, [], score, project_model)
    try:
        shown = _mask_regions(config, task, answers, stable=not echo)
        regions = [region for own in shown for region in own]
        if not echo:
            project_model.remember_answers(task.task, _in_editor(task, answers, shown))
            said = " | ".join(reply(request, answer) for request, answer in zip(task.requests, answers, strict=True))
            regions += answer_region(config, size, said)
        # The annotation made from a batch prediction should hold its sentences, those without a mask too.
        # In the editor the TextArea holds them already.
        if echo and config.prompt and (sentences := echoes(task.requests, answers)):
            regions.append(prompt_region(config, size, *sentences))
        validate(regions, config)
    except BadRequest as error:
        return error
    return _prediction(task, regions, score, project_model)


def combined(
    task: PromptedTask, predictions: Sequence[Prediction]
) -> Iterator[tuple[PromptRequest, Prediction, list[Prediction]]]:
    """Each request of a task with its answer, and the predictions of its sentences that this was made of."""
    rest = iter(predictions)
    for request in task.requests:
        own = [next(rest) for _ in request.asked]
        yield request, combine(request, own[0], own[1:]), own


def _pairs(task: PromptedTask, predictions: Sequence[Prediction], least: float) -> list[Pair]:
    """What was asked of a task, each sentence once."""
    pairs: dict[str, Pair] = {}
    for request, answer, own in combined(task, predictions):
        assessed = [prediction for prediction in own if isinstance(prediction, AssessedPrediction)]
        measured = [prediction.disagreement for prediction in assessed if prediction.disagreement is not None]
        about = int(task.task["id"]), clean(request.prompt), _confidence(answer)
        disagreement, shown = max(measured, default=math.nan), answer.present and about[2] >= least
        pairs.setdefault(about[1], Pair(*about, disagreement, assessed[0].embedding, shown))
    return list(pairs.values())


def _mask_regions(
    config: LabelConfig, task: PromptedTask, answers: Sequence[Prediction], stable: bool
) -> list[list[Region]]:
    """The masks that were found, of each request. stable: each in place of the one that it mends or asks for again."""
    shown: list[list[Region]] = []
    for request, answer in zip(task.requests, answers, strict=True):
        if not answer.present:
            shown.append([])
            continue
        notes = (*request.notes, "only a guess: the model takes it for absent") if answer.guess else request.notes
        regions = [
            region
            for mask in _things(answer)
            for region in mask_regions(config, request.label, mask, answer.score, request.prompt, notes)
        ]
        if request.geometry:
            regions = _pointed_at(regions, request)
        elif stable:
            prompt = clean(request.prompt)
            regions = stable_ids(regions, prompt, task.task, _offered(prompt, task.task))
        shown.append(regions)
    return shown


def _offered(prompt: str, task: Task) -> list[Region]:
    """What the newest prediction of a task, which its picture is opened with, answers to a prompt."""
    stored = [row for row in objects_in(task.get("predictions")) if is_id(row.get("id"))]
    newest = max(stored, key=lambda row: int(row["id"]), default={})
    return [
        region
        for region in regions_of(newest.get("result"))
        if prompt in (clean(noted) for noted in noted_prompts(region))
    ]


def _is_apart(request: PromptRequest, project_model: ProjectModel) -> bool:
    """Whether each thing that a sentence finds gets a region of its own; of what was pointed at there is one."""
    shown = project_model.config.shown_in(request.label)
    return request.geometry is None and any(control.objects == "instances" for control, _ in shown)


def _things(answer: Prediction) -> list[Mask]:
    """What gets a region of its own: each thing that was told apart, as far as negatives have left it."""
    return [left for thing in answer.things if (left := thing & answer.mask).any()] or [answer.mask]


def _pointed_at(regions: Sequence[Region], request: PromptRequest) -> list[Region]:
    """The regions of an answer to somebody who pointed: of a sentence's it is a correction."""
    mended, geometry = request.mended, request.geometry
    # Label Studio 1.23.2 breaks down on a suggestion with the id of the region that is selected.
    if not (mended and mended.held and geometry and geometry.selected):
        regions = in_place(regions, mended)
    return [{**region, "origin": "prediction-changed"} for region in regions] if request.prompt else list(regions)


def _in_editor(
    task: PromptedTask, answers: Sequence[Prediction], shown: Sequence[Sequence[Region]]
) -> list[MaskInEditor]:
    """The answers as they will stand in the editor."""
    return [
        request.as_answered(answer, regions)
        for request, answer, regions in zip(task.requests, answers, shown, strict=True)
    ]


def _confidence(answer: Prediction) -> float:
    # JSON has no NaN, and one would cost the whole batch.
    return answer.score if math.isfinite(answer.score) else 0.0


def _prediction(task: PromptedTask, regions: list[Region], score: float, project_model: ProjectModel) -> TaskPrediction:
    if not regions and task.version != project_model.name:
        return []
    return {"result": regions, "score": float(score), "model_version": task.version}


def _settled(task: Task, answer: TaskPrediction | UnansweredTask, project_model: ProjectModel) -> TaskPrediction:
    if not isinstance(answer, Exception):
        return answer
    _log.warning("Task %s of project %s is left out. %s", task.get("id"), project_model.project, answer)
    return {"result": [], "score": 0.0, "model_version": project_model.name + FAILED}
