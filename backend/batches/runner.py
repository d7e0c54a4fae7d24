"""Works on a batch: claims chunks of its tasks, answers them and writes the answers to Label Studio.

Three things go on at once: images of the next tasks are fetched and decoded, those at hand go through the model, and
what was answered before is written. However many tasks there are, a few chunks and at most AHEAD images are held.

Killed here, then what?
- While a chunk is fetched or in the model: nothing was written. Its lease runs out, somebody else claims it.
- While it is written: nobody can claim it before the request is likely to have ended (WRITING_SECONDS). Whoever does
  then reads from Label Studio which tasks have a prediction by now, and leaves those alone.
- After it was written, before it was handed in: the same.
- In the closing, which deletes second predictions and looks for tasks without: it is claimed and done again.
Whoever stalls so long that its chunk was given away writes no more of it (`BatchStore.begin`). A request that reaches
Label Studio later than all of this allows could still write a second prediction: the closing deletes it.

Label Studio away, or failing: the same is tried again for as long as the batch runs, and the batch says so.
One bad image or prompt costs that task alone, which has failed with its reason, and gets no prediction.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from backend.active_learning.strategies import Pair
from backend.batches.leases import Leases, RunnerStopped
from backend.batches.project import BatchProject
from backend.batches.reader import PendingTask, TaskReader
from backend.batches.store import Batch, BatchEnded, BatchStore
from backend.batches.writer import ChunkWork, PredictionWriter
from backend.errors import BadRequest, FetchError
from backend.inference.predict import GROUP, Prelabeller
from backend.inference.project_model import ProjectModel, ProjectModels
from backend.labelstudio.client import LabelStudio
from backend.registry import Registry
from ris_core.errors import InputError, RisError

_FOREVER = 1e6


@dataclass(frozen=True)
class RunnerServices:
    """What a runner needs of the rest."""

    client: LabelStudio
    batches: BatchStore
    prelabeller: Prelabeller
    project_models: ProjectModels
    registry: Registry


@dataclass
class RunSummary:
    """What one runner did: chunks and tasks that it handed in, and how long it took."""

    batch: str
    chunks: int = 0
    tasks: int = 0
    seconds: float = 0.0


def run(batch: str, services: RunnerServices, stop: Callable[[], bool] = lambda: False) -> RunSummary:
    """Work on a batch until it has come to its end, or `stop` says that it is others' turn.

    Raises:
        NotFound: there is no such batch.
        RedisError: Valkey went away; any runner may go on.
        Exception: whatever else stops all runners alike; it has cancelled the batch, which says why.
    """
    summary, started = RunSummary(batch), time.monotonic()
    running = services.batches.get(batch)
    if not services.batches.start_run(batch):
        return summary
    try:
        with suppress(BatchEnded, RunnerStopped):
            _work(running, services, stop, summary)
    except RedisError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, RisError) else "It broke off: the worker's log says why."
        services.batches.cancel(batch, reason)
        raise
    finally:
        summary.seconds = time.monotonic() - started
        with suppress(RedisError):
            services.batches.end_run(batch)
    return summary


def _work(batch: Batch, services: RunnerServices, stop: Callable[[], bool], summary: RunSummary) -> None:
    batches, prelabeller = services.batches, services.prelabeller
    leases = Leases(batch.id, batches, stop)
    with leases.renewing():
        project = BatchProject(batch, services.client, services.project_models, services.registry, leases)
        reader = TaskReader(project, batches, prelabeller, leases)
        writer = PredictionWriter(project, leases)
        try:
            with writer.running(), reader.running():
                _answer_all(reader, writer, leases, prelabeller, project.project_model)
        finally:
            summary.chunks, summary.tasks = writer.chunks, writer.tasks


def _answer_all(
    reader: TaskReader, writer: PredictionWriter, leases: Leases, prelabeller: Prelabeller, project_model: ProjectModel
) -> None:
    """The model's part: ends by what the reader raises."""
    group: list[PendingTask] = []
    while True:
        step = reader.next()
        if isinstance(step, PendingTask):
            group.append(step)
        if group and (len(group) == GROUP or isinstance(step, ChunkWork)):
            leases.wait()
            _answer(group, prelabeller, project_model)
            group = []
        if isinstance(step, ChunkWork):
            writer.write(step)


def _answer(group: Sequence[PendingTask], prelabeller: Prelabeller, project_model: ProjectModel) -> None:
    """Put the model's predictions of a group of tasks, or why there are none, in their chunks."""
    questions = []
    for pending in group:
        try:
            questions.append((pending, pending.question.result()))
        except (InputError, FetchError, BadRequest) as error:
            pending.work.fail(pending.task, error)
    pairs: list[Pair] = []
    deadline = time.monotonic() + _FOREVER
    answers = prelabeller.answer([question for _, question in questions], project_model, deadline, pairs=pairs)
    works = {pending.task: pending.work for pending, _ in questions}
    for pair in pairs:
        works[pair.task].pairs.append(pair)
    for (pending, _), answer in zip(questions, answers, strict=True):
        if isinstance(answer, Exception):
            pending.work.fail(pending.task, answer)
        elif isinstance(answer, dict):
            # As text at once: the numbers of a mask take many times the room.
            pending.work.predictions[pending.task] = json.dumps({"task": pending.task, **answer}).encode()
