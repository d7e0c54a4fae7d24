"""The thread that writes what a runner's model answered to Label Studio."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from backend import metrics
from backend.active_learning.strategies import Pair
from backend.batches.leases import Leases
from backend.batches.project import BatchProject
from backend.batches.store import Chunk
from backend.errors import LabelStudioRefused, LabelStudioUnreachable

_log = logging.getLogger(__name__)

# JSON written in one request, so that neither side holds much more.
_WRITE_BYTES = 16 << 20

LEFT_OUT = "Label Studio doesn't keep its prediction: its log says why. Perhaps the labelling interface was changed."


@dataclass(eq=False)
class ChunkWork:
    """A chunk in the making.

    skipped: how many tasks need no prediction. predictions: by task, as JSON. failed: task -> why. pairs: what
    ranking the tasks takes.
    """

    chunk: Chunk
    skipped: int = 0
    predictions: dict[int, bytes] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    def fail(self, task: int, reason: Exception | str) -> None:
        """Leave a task out, and say why."""
        _log.warning("Task %s is left out. %s", task, reason)
        self.predictions.pop(task, None)
        self.failed[task] = str(reason)


class PredictionWriter:
    """A thread that writes chunks to Label Studio and hands them in, one behind the model.

    chunks, tasks: how many it has handed in.
    """

    def __init__(self, project: BatchProject, leases: Leases) -> None:
        self.chunks = self.tasks = 0
        self._project, self._leases = project, leases
        self._thread = ThreadPoolExecutor(1, "write")
        self._last: Future[None] | None = None
        self._handed_in = time.monotonic()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write while this is open; at its end the last chunk is written. Raises what went wrong with that."""
        try:
            yield
        finally:
            self._thread.shutdown()
            if self._last:
                self._last.result()

    def write(self, work: ChunkWork) -> None:
        """Have a chunk written; waits for the one before, and raises what went wrong with that."""
        if self._last:
            self._last.result()
        self._last = self._thread.submit(self._write, work)
        # Nobody would wait for a chunk that can't be written.
        self._last.add_done_callback(lambda written: self._leases.over.set() if written.exception() else None)

    def _write(self, work: ChunkWork) -> None:
        # First: pairs without a prediction do no harm.
        self._project.keep_pairs(work.pairs)
        try:
            done = sum(self._store(work, part) for part in list(_parts(work.predictions)))
        except _ChunkLost:
            _log.warning("Chunk %s was given to somebody else.", work.chunk.name)
        except _WriteUnanswered as error:
            # Perhaps it is written, perhaps not: whoever claims the chunk after that time will see.
            _log.warning("Chunk %s is left for later. %s", work.chunk.name, error)
            self._leases.give_up(work.chunk.name, at_once=False)
        else:
            skipped = work.skipped + len(work.predictions) - done
            if self._leases.finish(work.chunk.name, done, skipped, work.failed):
                self.chunks += 1
                self.tasks += len(work.chunk.tasks)
                self._count(done, skipped, len(work.failed))

    def _count(self, done: int, skipped: int, failed: int) -> None:
        project, now = str(self._project.spec.project), time.monotonic()
        for result, tasks in (("done", done), ("skipped", skipped), ("failed", failed)):
            metrics.BATCH_RESULTS.labels(project, result).inc(tasks)
        for _ in range(done):
            metrics.BATCH_TASK_SECONDS.labels(project).observe((now - self._handed_in) / done)
        self._handed_in = now

    def _store(self, work: ChunkWork, tasks: Sequence[int]) -> int:
        """Write the predictions of those of the tasks that need one; how many were written."""
        if not self._project.spec.force:
            return self._import(work, tasks)
        present = self._project.predictions_by_task(tasks)
        old = [task for task in tasks if present.get(task)]
        for task in old:
            self._begin(work)
            self._project.replace(present[task], work.predictions[task])
        return len(old) + self._import(work, [task for task in tasks if present.get(task) == []])

    def _import(self, work: ChunkWork, tasks: Sequence[int]) -> int:
        try:
            return self._leases.retry(lambda: self._post(work, tasks))
        except LabelStudioRefused as error:
            if len(tasks) == 1:
                work.fail(tasks[0], error)
                return 0
        # It takes all or none: one of them is to blame.
        return sum(self._import(work, [task]) for task in tasks)

    def _post(self, work: ChunkWork, tasks: Sequence[int]) -> int:
        # Read each time: what failed may have been stored, a task may have been deleted, a person may have opened one.
        present = self._project.predictions_by_task(tasks)
        new = [task for task in tasks if present.get(task) == []]
        if not new:
            return 0
        self._begin(work)
        try:
            added = self._project.import_predictions([work.predictions[task] for task in new])
        except LabelStudioUnreachable as error:
            if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
                raise
            raise _WriteUnanswered(str(error)) from error
        if added < len(new):
            present = self._project.predictions_by_task(new)
            for task in new:
                if present.get(task) == []:
                    work.fail(task, LEFT_OUT)
        return added

    def _begin(self, work: ChunkWork) -> None:
        if not self._leases.begin(work.chunk.name):
            raise _ChunkLost


class _ChunkLost(Exception):
    """The chunk is somebody else's by now, or the batch was cancelled."""


class _WriteUnanswered(Exception):
    """A request was sent, and nobody knows what came of it."""


def _parts(predictions: Mapping[int, bytes]) -> Iterator[list[int]]:
    """The tasks in groups, whose predictions aren't too long for one request."""
    part: list[int] = []
    for task, prediction in predictions.items():
        if part and sum(len(predictions[other]) for other in part) + len(prediction) > _WRITE_BYTES:
            yield part
            part = []
        part.append(task)
    if part:
        yield part
