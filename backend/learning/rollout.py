"""After a promotion, or a way back: predictions are made anew, then Label Studio is told to go by them.

Whenever the version in production isn't the one that a project was last refreshed for, a batch predicts its tasks
without annotation, the least sure first. Once that is done, `project.model_version` becomes the string that those
predictions carry: Label Studio orders tasks by the scores of that string's predictions and shows them alone. What is
to be done follows from three things, however often and by whomever it is reconciled: the registry's pointer, the
record kept in Valkey under ris:refresh, and the state of the batch that it names. Workers do so when something ended
and once a minute.

Killed here, then what?
- Before the batch is made: nobody was told, it is made the next time.
- Between the batch and its record: the next time finds a batch of that origin and version, and takes it.
- While the batch runs: batches outlive that, see `backend.batches.runner`.
- Between Label Studio's answer and the record: Label Studio is asked, and has the string already.
- Valkey loses everything: tasks that have their prediction are left alone by the batch that is made again.
A newer promotion cancels a refresh that still runs, and what that one wrote is left for `ris prune --predictions`.

As long as `project.model_version` names a version, Label Studio 1.23.2 doesn't ask the backend when it serves the next
task: tasks that come in later have no prediction until a batch makes one (RIS_PRELABEL_NEW). A project that wants
answers at the moment of opening instead of an order of tasks turns this off: RIS_PRELABEL_REFRESH=false.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from redis import Redis

from backend.batches.service import BatchService
from backend.batches.store import Batch, BatchSpec
from backend.errors import LabelStudioError, LabelStudioNotFound, LabelStudioRefused, NotFound, Unavailable
from backend.home import rollout_lock
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.responses import Json
from backend.locks import exclusive
from backend.queue.queue import JobQueue, reachable
from backend.registry import Registry, RegistryError
from backend.settings import Settings, SettingsError
from ris_core.errors import RisError

if TYPE_CHECKING:
    # It brings torch, and workers see what is due without.
    from backend.inference.project_model import ProjectModels

_log = logging.getLogger(__name__)

ORIGIN = "promotion"
_KEY = "ris:refresh"
_SUPERSEDED = "Another version was put into production."

RolloutState = Literal["off", "waiting", "running", "stopped", "done"]


@dataclass(frozen=True)
class RolloutRecord:
    """What is known of a project's last refresh. promotion: which one it is for. closed: nothing is left to do."""

    promotion: str
    batch: str = ""
    closed: bool = False
    note: str = ""


class RolloutRecords:
    """The last refresh of each project. What Valkey raises is raised as Unavailable."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def get(self, project: int) -> RolloutRecord | None:
        """A project's record; None if it was never refreshed."""
        with reachable():
            kept = self._connection.hget(_KEY, str(project))
        return RolloutRecord(**json.loads(kept)) if kept else None

    def put(self, project: int, record: RolloutRecord) -> None:
        """Keep a project's record."""
        with reachable():
            self._connection.hset(_KEY, str(project), json.dumps(asdict(record)))


@dataclass(frozen=True)
class Rollout:
    """What refreshing needs of the rest. Safe for any number of processes of one machine."""

    client: LabelStudio
    batches: BatchService
    project_models: ProjectModels
    registry: Registry
    settings: Settings
    records: RolloutRecords

    def reconcile(self, project: int) -> RolloutState:
        """Do what is to be done for a project at this moment; to be called again when its batch has ended.

        Raises what says that the project can't be refreshed, or that Valkey is away. Label Studio being away is no
        error: the next call tries again.
        """
        if not self.settings.of_project(project).prelabel_refresh:
            return "off"
        with exclusive(rollout_lock(self.settings.home, project)):
            try:
                return self._reconcile(project)
            except Unavailable:
                raise
            except RisError as error:
                if isinstance(error, LabelStudioError) and not isinstance(error, LabelStudioNotFound):
                    _log.warning("The predictions of project %s aren't refreshed yet. %s", project, error)
                    return "waiting"
                # It would fail each minute.
                self.records.put(
                    project, RolloutRecord(promotion(self.registry, project), closed=True, note=str(error))
                )
                raise

    def begin(self, project: int) -> Batch:
        """Start a refresh, whatever was done before. Raises LabelStudioError, ConfigError, Unavailable."""
        with exclusive(rollout_lock(self.settings.home, project)):
            return self._begin(project, promotion(self.registry, project))

    def _reconcile(self, project: int) -> RolloutState:
        record, current = self.records.get(project), promotion(self.registry, project)
        if record is None or record.promotion != current:
            self._begin(project, current)
            return "running"
        if record.closed:
            return "done"
        batch = _find(self.batches, record.batch)
        if batch is None:
            self._begin(project, current)
            return "running"
        if batch.state == "done":
            return self._announce(project, record, batch)
        return "stopped" if batch.state == "cancelled" else "running"

    def _begin(self, project: int, current: str) -> Batch:
        spec, running = self._spec(project), None
        for batch in self.batches.all():
            if (batch.state, batch.spec.project, batch.spec.origin) != ("running", project, ORIGIN):
                continue
            if batch.spec == spec:
                running = batch
            else:
                self.batches.cancel(batch.id, _SUPERSEDED)
        batch = running or self.batches.submit(spec, least_sure_first(self.client.predicted_tasks(project)))
        self.records.put(project, RolloutRecord(current, batch.id))
        return batch

    def _spec(self, project: int) -> BatchSpec:
        project_model = self.project_models.of_interface(project, self.client.project(project)["label_config"])
        return BatchSpec(project, project_model.version.name, project_model.name, origin=ORIGIN)

    def _announce(self, project: int, record: RolloutRecord, batch: Batch) -> RolloutState:
        string, note = batch.spec.version, ""
        try:
            self._show(project, string)
            _log.info("Label Studio goes by the predictions of %s in project %s now.", string, project)
        except LabelStudioRefused as error:
            # It takes a string only if a prediction has it. By an older one, new tasks would be shown none at all.
            note = f"No task without annotation has a prediction of {string}: {error}"
            _log.info("Label Studio asks the backend for each task of project %s. %s", project, note)
            for backend in self.client.ml_backends(project)[:1]:
                self._show(project, backend["title"])
        self.records.put(project, RolloutRecord(record.promotion, record.batch, closed=True, note=note))
        return "done"

    def _show(self, project: int, name: str) -> None:
        if self.client.project(project).get("model_version") != name:
            self.client.update_project(project, model_version=name)


def tick(connection: Redis, settings: Settings, registry: Registry) -> list[int]:
    """Queue `reconcile` for the projects that need it, and name them; cheap, for each minute: without Label Studio.

    Raises Unavailable where Valkey is away.
    """
    queue = JobQueue(connection)
    batches, records = BatchService(connection, queue), RolloutRecords(connection)
    due = [project for project in registry.projects() if _needs(project, settings, registry, batches, records)]
    for project in due:
        queue.refresh(project)
    return due


def refresh_soon(queue: JobQueue | None, project: int) -> None:
    """Have predictions made anew at once. Where Valkey is away, workers see to it within a minute of theirs."""
    if queue:
        with suppress(Unavailable):
            queue.refresh(project)


def on_batch_end(batch: Batch, queue: JobQueue) -> None:
    """Have a refresh go on whose batch this was. Raises Unavailable where Valkey is away."""
    if batch.spec.origin == ORIGIN:
        queue.refresh(batch.spec.project)


def promotion(registry: Registry, project: int) -> str:
    """What names the last change of a project's production."""
    pointer = registry.pointer(project)
    return f"{pointer.version} since {pointer.promoted}"


def least_sure_first(tasks: Iterable[Json]) -> Sequence[int]:
    """The ids of tasks without annotation: those with the lowest score in front, those without a prediction last."""
    open_tasks = [(_score(task), int(task["id"])) for task in tasks if not task.get("annotations")]
    return [task for _, task in sorted(open_tasks)]


def _score(task: Json) -> float:
    """The score of the latest prediction; infinite without one."""
    predictions = task.get("predictions") or []
    scored = [prediction for prediction in predictions if isinstance(prediction.get("score"), int | float)]
    return float(max(scored, key=lambda prediction: int(prediction["id"]))["score"]) if scored else float("inf")


def _needs(
    project: int, settings: Settings, registry: Registry, batches: BatchService, records: RolloutRecords
) -> bool:
    try:
        # One that never left the shipped model has nothing to refresh.
        if not settings.of_project(project).prelabel_refresh or registry.pointer(project).promoted is None:
            return False
        record, current = records.get(project), promotion(registry, project)
    except (SettingsError, RegistryError) as error:
        # One damaged project doesn't keep others from theirs.
        _log.warning("Whether the predictions of project %s want refreshing can't be told. %s", project, error)
        return False
    if record is None or record.promotion != current:
        return True
    batch = None if record.closed else _find(batches, record.batch)
    return not record.closed and (batch is None or batch.state == "done")


def _find(batches: BatchService, name: str) -> Batch | None:
    try:
        return batches.get(name, reasons=False)
    except NotFound:
        return None
