"""The thread that feeds a runner's model."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from backend.active_learning.task_scores import ScoredPrediction, oldest_prediction
from backend.batches.leases import Leases
from backend.batches.project import BatchProject
from backend.batches.store import CLOSING, BatchStore, Chunk, pages
from backend.batches.writer import LEFT_OUT, ChunkWork
from backend.errors import BadRequest
from backend.inference.predict import GROUP, Prelabeller
from backend.inference.project_model import PromptedTask
from backend.labelstudio.client import SHORT_PAGE
from backend.labelstudio.responses import Json
from ris_core.errors import InputError

# Images that are held: one group in the model, one that is ready.
AHEAD = GROUP
_FETCHERS = 4
_IDLE_SECONDS = 0.5
# How often the closing queues tasks again before they count as failed.
_MOST_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class PendingTask:
    """A task on its way to the model, whose question may still wait for its image."""

    work: ChunkWork
    task: int
    question: Future[PromptedTask]


Step: TypeAlias = PendingTask | ChunkWork
"""A task to answer; or the end of a chunk, all of whose tasks came before."""


class TaskReader:
    """A thread that claims chunks, reads their tasks and has the images fetched, always a little ahead of the model."""

    def __init__(self, project: BatchProject, batches: BatchStore, prelabeller: Prelabeller, leases: Leases) -> None:
        self._project, self._leases = project, leases
        self._batches, self._prelabeller = batches, prelabeller
        prompts = project.spec.prompts
        # What each task is asked instead of its own.
        self._requests = tuple(project.project_model.requests_from_command(prompts)) if prompts else ()
        self._steps: queue.Queue[Step | BaseException] = queue.Queue(AHEAD)
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "fetch")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read while this is open; at its end the runner's leases are over."""
        thread = threading.Thread(target=self._run, name="read", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._leases.over.set()
            thread.join()
            self._fetchers.shutdown(cancel_futures=True)

    def next(self) -> Step:
        """The next step. Raises what ended the thread, once all before it is taken."""
        step = self._steps.get()
        if isinstance(step, BaseException):
            raise step
        return step

    def _run(self) -> None:
        try:
            while True:
                self._leases.wait()
                chunk = self._leases.claim()
                if chunk is None:
                    self._leases.wait(_IDLE_SECONDS)
                elif chunk.name == CLOSING:
                    self._close()
                else:
                    self._read(chunk)
        # The model's thread raises it.
        except BaseException as error:  # noqa: BLE001
            self._put(error)

    def _read(self, chunk: Chunk) -> None:
        work = ChunkWork(chunk)
        for page in pages(chunk.tasks, SHORT_PAGE):
            tasks = self._project.tasks(page)
            # Those that are gone need no prediction either.
            work.skipped += len(page) - len(tasks)
            # In the batch's order, not in Label Studio's.
            for task in sorted(tasks, key=lambda task: page.index(int(task["id"]))):
                self._read_task(task, work)
        self._put(work)

    def _read_task(self, task: Json, work: ChunkWork) -> None:
        if self._project.predictions_of(task) and not self._project.spec.force:
            work.skipped += 1
            return
        model, requests = self._project.project_model, self._requests
        try:
            question = PromptedTask(task, requests, model.name) if requests else model.prompted(task)
        except (InputError, BadRequest) as error:
            work.fail(int(task["id"]), error)
            return
        self._put(PendingTask(work, int(task["id"]), self._fetchers.submit(self._fetch, question)))

    def _fetch(self, question: PromptedTask) -> PromptedTask:
        if not question.requests:
            return question
        config, credentials = self._project.project_model.config, self._project.credentials
        fetched = self._leases.retry(lambda: self._prelabeller.fetch(question, config, credentials))
        return self._prelabeller.decode(fetched)

    def _close(self) -> None:
        """Exactly one prediction a task: delete the second, queue what has none again. Then the scores that rank."""
        batch, missing, predictions = self._project.batch, dict[int, str](), dict[int, ScoredPrediction]()
        for page in pages(self._batches.tasks(batch), SHORT_PAGE):
            failed = self._batches.failures(batch, page)
            for task in self._project.tasks(page):
                self._project.delete_doubles(self._project.predictions_of(task))
                prediction = oldest_prediction(task, self._project.spec.version)
                if prediction:
                    predictions[prediction.task] = prediction
                elif int(task["id"]) not in failed:
                    missing[int(task["id"])] = LEFT_OUT
        if not missing:
            self._project.rescore(list(predictions.values()))
        is_last = self._batches.get(batch).rounds >= _MOST_ROUNDS
        self._leases.close(list(missing), missing if is_last else {})

    def _put(self, step: Step | BaseException) -> None:
        while True:
            try:
                return self._steps.put(step, timeout=_IDLE_SECONDS)
            except queue.Full:
                # Nobody takes it any more.
                if self._leases.over.is_set():
                    return None
