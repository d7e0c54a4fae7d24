"""Pre-labelling many tasks in the background: submit, follow, stop. Joins the batch store and the job queue.

A batch whose runner was lost gets another (`revive`): workers see to that when they start, and once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis import Redis

from backend.batches.store import Batch, BatchSpec, BatchStore
from backend.errors import BackendError
from backend.labelstudio.client import LabelStudio
from backend.queue.queue import JobQueue, reachable
from backend.registry import Version

if TYPE_CHECKING:
    # It brings torch.
    from backend.inference.project_model import ProjectModels

_POLL_SECONDS = 0.5
BY_HAND = "Somebody cancelled it."
"""Why a batch was stopped, where nothing else is said."""


class BatchStopped(BackendError, code="batch_stopped"):
    """A batch came to an end before all of its tasks were done."""


@dataclass(frozen=True)
class Receipt:
    """The batch that does what was submitted. new: how many of the tasks weren't in a batch before."""

    batch: str
    new: int


class BatchService:
    """What the backend and the commands do with batches. Every method raises Unavailable where Valkey is away.

    queue: of the jobs of those who work on them.
    """

    def __init__(self, connection: Redis, queue: JobQueue) -> None:
        self._batches = BatchStore(connection)
        self.queue = queue

    def submit(self, spec: BatchSpec, tasks: Iterable[int]) -> Batch:
        """Have tasks predicted, whatever other batches do. `tasks` are read page by page."""
        with reachable():
            batch = self._batches.create(spec, tasks)
        self.queue.prelabel(batch.id)
        return batch

    def submit_missing(self, spec: BatchSpec, tasks: Sequence[int]) -> Receipt:
        """Have those tasks predicted that no running batch of the same version has; all of them: nothing is added.

        Tasks go to a batch of the same origin that runs already: events that come one by one make one batch.
        """
        with reachable(), self._batches.submitting():
            left, holder = list(tasks), ""
            for batch in self._alike(spec):
                missing = self._batches.missing(batch.id, left)
                if len(missing) < len(left):
                    left, holder = missing, holder or batch.id
            if left:
                joinable = (batch.id for batch in self._alike(spec) if batch.spec.origin == spec.origin == "webhook")
                joined = next((batch for batch in joinable if self._batches.add(batch, left)), None)
                holder = joined or self._batches.create(spec, left).id
        self.queue.prelabel(holder)
        return Receipt(holder, len(left))

    def get(self, batch: str, reasons: bool = True) -> Batch:
        """A batch, with the reasons of what failed. Raises NotFound."""
        with reachable():
            return self._batches.get(batch, reasons)

    def all(self) -> list[Batch]:
        """All batches, the newest first, without reasons."""
        with reachable():
            return list(self._batches.all())

    def cancel(self, batch: str, note: str = BY_HAND) -> Batch:
        """Stop a batch, and say why; what is predicted stays. Raises NotFound."""
        with reachable():
            return self._batches.cancel(batch, note)

    def resume(self, batch: str) -> Batch:
        """Go on with a cancelled batch, or try again what failed in one that is done. Raises NotFound."""
        with reachable():
            resumed = self._batches.resume(batch)
        if resumed.state == "running":
            self.queue.prelabel(batch)
        return resumed

    def take_over(self, batch: str) -> Batch:
        """What a runner does before anything else; a batch that isn't running needs none. Raises NotFound.

        While the batch runs another runner waits: should this one die, or another worker be idle, somebody goes on.
        """
        current = self.get(batch, reasons=False)
        if current.state == "running":
            self.queue.prelabel(batch)
        return current

    def revive(self) -> None:
        """Make sure that each running batch has a runner that waits."""
        with reachable():
            running = self._batches.running()
        for batch in running:
            self.queue.prelabel(batch.id)

    def _alike(self, spec: BatchSpec) -> Iterator[Batch]:
        """The running batches that ask a project's tasks the same."""
        asked = (spec.project, spec.version, ())
        running = self._batches.running()
        return (batch for batch in running if (batch.spec.project, batch.spec.version, batch.spec.prompts) == asked)


def submit_project(
    batches: BatchService,
    client: LabelStudio,
    models: ProjectModels,
    project: int,
    prompts: Sequence[tuple[str, str | None]] = (),
    *,
    view: int | None = None,
    force: bool = False,
    version: Version | None = None,
) -> Batch:
    """Have a project's tasks predicted, or those of its tab number `view`.

    version: that answers. [the one in production]
    prompts: asked of every task instead of its own, each with its label or None: the one it names. force: predict again
    what the version has predicted. Nothing is submitted where it raises PromptError, LabelStudioError, ConfigError or
    Unavailable.
    """
    model = models.of_interface(project, client.project(project)["label_config"], version)
    # Now, and not in a worker an hour later, is the time to say that one can't be asked.
    model.requests_from_command(prompts)
    # Who gives prompts wants them asked, whatever was asked before.
    forced = force or bool(prompts)
    spec = BatchSpec(project, model.version.name, model.name, tuple(prompts), force=forced, view=view)
    return batches.submit(spec, client.task_ids(project, view))


def follow(batches: BatchService, name: str, on_progress: Callable[[Batch], object]) -> Batch:
    """Wait until a batch has come to its end; telling `on_progress` how it stands. Raises NotFound, Unavailable."""
    while (batch := batches.get(name, reasons=False)).state in ("listing", "running"):
        on_progress(batch)
        time.sleep(_POLL_SECONDS)
    return batches.get(name)
