"""What a teacher says of tasks that nobody annotated, as training data for a small model. Knows no queue.

Kept apart from snapshots: no export and no comparison ever takes a model's answer for a person's. What the teacher said
of a task is written down at once, so a run that was killed asks only what it hadn't asked, and another threshold
nothing at all.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from backend.datasets.annotations import (
    Correction,
    Corrections,
    DrawnObject,
    Edit,
    Expression,
    SkippedTask,
    sentence_of,
)
from backend.datasets.project import AnnotatedProject
from backend.datasets.snapshots import build_snapshot
from backend.errors import BadRequest, FetchError
from backend.home import taught_folder
from backend.inference.model_pool import ImagePrompts, ModelPool
from backend.inference.predict import combined
from backend.inference.project_model import ProjectModel, PromptedTask
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import label_name
from backend.labelstudio.task_data import group_of, image_address, split_identity
from backend.learning.teaching_notes import TaughtAnswer, TeachingNotes
from backend.prompts.request import PromptRequest
from backend.prompts.text import clean
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data.folder import Sample, read_folder
from ris_core.data.splits import split_of
from ris_core.errors import DatasetError, InputError, OutOfMemory
from ris_core.files import sha256
from ris_core.inference.prediction import Prediction
from ris_core.inference.segmenter import expected_iou
from ris_core.masks import encode_rle

# The model is this run's own: nobody else keeps it.
_PATIENCE = 24 * 3600.0
# Sentences of people that are asked about tasks which ask for nothing by themselves.
_SENTENCES = 12
# Tasks asked together: what is asked to stop does so between them.
_TOGETHER = 4


@dataclass(frozen=True)
class TeachingSpec:
    """above: the IoU to expect of an answer from which it is learnt from, (0, 1). tasks: asked about, at most."""

    above: float = 0.9
    tasks: int = 500


def teaching_spec(above: object, tasks: object) -> TeachingSpec:
    """From what a job carries. Raises BadRequest if it is no such."""
    if isinstance(above, float | int) and 0 < above < 1 and isinstance(tasks, int) and tasks > 0:
        return TeachingSpec(float(above), tasks)
    raise BadRequest(f"{above!r:.20} of {tasks!r:.20} tasks: give a confidence between 0 and 1, and a number of tasks.")


@dataclass(frozen=True)
class Teaching:
    """What a teacher taught. teacher: its version. tasks: that it was asked about. found, refused: its answers above
    the threshold. unsure: those below. samples: of the split "train" alone. skipped: tasks that couldn't be asked.
    """

    teacher: str
    above: float
    tasks: int = 0
    found: int = 0
    refused: int = 0
    unsure: int = 0
    folder: Path | None = None
    samples: Sequence[Sample] = field(default=(), repr=False)
    skipped: tuple[SkippedTask, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For a version's card: the counts, not the samples."""
        counts = {name: getattr(self, name) for name in ("teacher", "above", "tasks", "found", "refused", "unsure")}
        return {**counts, "taught": self.folder and self.folder.name, "skipped": [asdict(one) for one in self.skipped]}


@dataclass(frozen=True)
class Teacher:
    """A version as it answers a project, and the images that it is asked about.

    point: makes of what it says the IoU to expect, by what its answers to people's held-out corrections came to.
    """

    model: ProjectModel
    point: OperatingPoint
    project: AnnotatedProject
    client: LabelStudio
    images: ImageResolver
    pool: ModelPool

    def teach(self, spec: TeachingSpec, home: Path, on_progress: Callable[[float], None]) -> Teaching:
        """Ask about tasks without annotation -> what is sure enough to be learnt from.

        on_progress: hears the share that is done, [0, 1), before each group of tasks. Raises LabelStudioError, and
        DatasetError if what was taught can't be kept.
        """
        tasks = list(islice(self._unannotated(), spec.tasks))
        notes = TeachingNotes(taught_folder(home, self.project.number) / f"{self.model.name}.jsonl")
        keys = {task["id"]: self._key(task) for task in tasks}
        new = [task for task in tasks if not notes.knows(task["id"], keys[task["id"]])]
        for start in range(0, len(new), _TOGETHER):
            on_progress((len(tasks) - len(new) + start) / len(tasks))
            notes.add(self._ask(new[start : start + _TOGETHER]), keys)
        failed = {skipped.task for skipped in notes.skipped}
        said = {task["id"]: [] if task["id"] in failed else notes.said.get(task["id"], []) for task in tasks}
        return self._collect(spec, tasks, said, notes.skipped, home)

    def _unannotated(self) -> Iterator[Mapping[str, Any]]:
        """Tasks of which nobody said anything yet; who skipped one may have had a reason."""
        return (task for task in self.client.tasks(self.project.number) if not task.get("annotations"))

    def _ask(self, tasks: Sequence[Mapping[str, Any]]) -> dict[int, list[TaughtAnswer] | SkippedTask]:
        answers: dict[int, list[TaughtAnswer] | SkippedTask] = {}
        prompted: list[PromptedTask] = []
        for task in tasks:
            try:
                asked = self._prompted(task)
            except (InputError, FetchError, BadRequest) as error:
                answers[task["id"]] = SkippedTask(task["id"], str(error))
                continue
            if asked.image is None:
                answers[task["id"]] = []
            else:
                prompted.append(asked)
        images = [ImagePrompts(task.image, task.asked, task.identity) for task in prompted if task.image is not None]
        results = self.pool.segment_all(self.model.version, images, time.monotonic() + _PATIENCE) if images else []
        for asked, result in zip(prompted, results, strict=True):
            number = int(asked.task["id"])
            if isinstance(result, InputError | OutOfMemory):
                answers[number] = SkippedTask(number, str(result))
            else:
                answers[number] = list(_said(asked, result))
        return answers

    def _prompted(self, task: Mapping[str, Any]) -> PromptedTask:
        """The task with what it is asked and its image; without one where it is held out: nothing is learnt there."""
        asked = self._asked(task)
        if not asked.requests:
            return asked
        address = image_address(task, self.project.config)
        image = self.images.fetch(address, task["id"], self.project.credentials)
        identity = sha256(image)
        decides = split_identity(group_of(task, self.project.config), identity)
        return replace(asked, image=image, identity=identity) if split_of(decides) == "train" else asked

    def _asked(self, task: Mapping[str, Any]) -> PromptedTask:
        asked = self.model.prompted(task)
        own = tuple(request for request in asked.requests if request.source != "name")
        return replace(asked, requests=own or self._usual)

    def _key(self, task: Mapping[str, Any]) -> str:
        """Changes with the address of a task's image and with what it is asked; empty if it can't be asked."""
        try:
            requests = self._asked(task).requests
            asked = [(request.prompt, request.negatives, label_name(request.label)) for request in requests]
            return sha256(json.dumps([image_address(task, self.project.config), asked]).encode())
        except (InputError, BadRequest):
            return ""

    @cached_property
    def _usual(self) -> tuple[PromptRequest, ...]:
        """For tasks that ask for nothing themselves: what people asked for most often, else each label by its name."""
        said: Counter[tuple[str, str | None]] = Counter()
        for item in self.project.corrections.items:
            labels = {drawn.region: drawn.label for drawn in item.objects}
            for expression in item.expressions:
                said[expression.cleaned, next((labels[region] for region in expression.regions), None)] += 1
        often: dict[str, str | None] = {}
        for (sentence, label), _ in said.most_common():
            often[sentence] = often.get(sentence) or label
        known = {label.value for label in self.project.config.labels}
        chosen = [(sentence, label if label in known else None) for sentence, label in often.items()][:_SENTENCES]
        names: list[tuple[str, str | None]] = [(sentence_of(label), label) for label in sorted(known)]
        return tuple(self.model.requests_from_command(chosen or names))

    def _collect(
        self,
        spec: TeachingSpec,
        tasks: Sequence[Mapping[str, Any]],
        said: Mapping[int, Sequence[TaughtAnswer]],
        skipped: Sequence[SkippedTask],
        home: Path,
    ) -> Teaching:
        sure = {number: [one for one in own if self._score(one) >= spec.above] for number, own in said.items()}
        items = [self._correction(task, sure[task["id"]]) for task in tasks if sure[task["id"]]]
        kept = [one for own in sure.values() for one in own]
        counted = Teaching(
            self.model.version.name,
            spec.above,
            tasks=sum(map(bool, said.values())),
            found=sum(one.rle is not None for one in kept),
            refused=sum(one.rle is None for one in kept),
            unsure=sum(map(len, said.values())) - len(kept),
            skipped=tuple(skipped),
        )
        if not items:
            return counted
        try:
            snapshot = build_snapshot(
                self.project.number,
                Corrections(tuple(items), ()),
                self.project.config,
                lambda item: self.images.fetch(item.image, item.task, self.project.credentials),
                home,
                max_pixels=self.model.settings.max_image_pixels,
                parent=taught_folder(home, self.project.number),
            )
        except DatasetError as error:
            # Corrections are enough to learn from.
            return replace(counted, skipped=(*counted.skipped, SkippedTask(items[0].task, str(error))))
        # By the same rule as people's: a photo that is held out is never learnt from, whoever labelled it.
        samples = read_folder(snapshot.folder, "train")
        return replace(counted, folder=snapshot.folder, samples=samples, skipped=(*counted.skipped, *snapshot.skipped))

    def _score(self, said: TaughtAnswer) -> float:
        return expected_iou(said.rle is not None, said.presence, said.quality, self.point)

    def _correction(self, task: Mapping[str, Any], said: Sequence[TaughtAnswer]) -> Correction:
        """The answers in the form of an annotation, which none is: its number is below 0."""
        objects, expressions, taught = [], [], Edit("taught", version=self.model.version.name)
        for number, one in enumerate(said):
            regions = () if one.rle is None else (f"taught-{number}",)
            expressions.append(Expression(one.prompt, regions, taught))
            if one.rle is not None:
                objects.append(DrawnObject(f"taught-{number}", one.label, one.rle, "prediction", self._score(one)))
        address = image_address(task, self.project.config)
        return Correction(task["id"], -task["id"], address, tuple(objects), tuple(expressions))


def _said(task: PromptedTask, predictions: Sequence[Prediction]) -> Iterator[TaughtAnswer]:
    """The answers to a task, each sentence once."""
    seen: set[str] = set()
    for request, answer, _ in combined(task, predictions):
        if clean(request.prompt) in seen:
            continue
        seen.add(clean(request.prompt))
        rle = encode_rle(answer.mask) if answer.present else None
        yield TaughtAnswer(request.prompt, label_name(request.label), rle, answer.presence, answer.quality)
