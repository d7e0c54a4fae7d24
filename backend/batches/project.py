"""A batch's project in Label Studio: how it is answered, its tasks, and their predictions of the batch's version."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from backend.active_learning.pair_store import PairStore
from backend.active_learning.strategies import Pair
from backend.active_learning.task_scores import CONFIDENCE, NothingToRank, Scored, corrections_by_prompt, rescore
from backend.batches.leases import Patience, RunnerStopped
from backend.batches.store import Batch, pages
from backend.errors import BackendError, LabelStudioNotFound
from backend.inference.project_model import ProjectModels
from backend.labelstudio.client import SHORT_PAGE, LabelStudio
from backend.labelstudio.images import Credentials
from backend.labelstudio.responses import Json
from backend.registry import Registry

_log = logging.getLogger(__name__)

T = TypeVar("T")


class BatchChanged(BackendError):
    """The project isn't answered any more as it was when the batch began."""

    code = "batch_changed"
    status = 409


class BatchProject:
    """The batch's project in Label Studio, and how it is answered.

    Raises BatchChanged if that isn't how it was when the batch began.
    """

    def __init__(
        self, batch: Batch, client: LabelStudio, answers: ProjectModels, registry: Registry, patience: Patience
    ) -> None:
        self.order, self.batch = batch.order, batch.id
        self.client, self.patience = client, patience
        self._number = batch.order.project
        project = patience(lambda: client.project(self._number))
        self.credentials = _credentials(project)
        config = answers.read(self._number, project["label_config"])
        self.answering = answers.of(self._number, config, registry.version(self._number, batch.order.model))
        self._pairs = PairStore(self.answering.settings.home)
        if self.answering.name != batch.order.version:
            raise BatchChanged(
                f"The labelling interface, the prompt sheet or the settings of project {self._number} were changed "
                "since this batch began. Start another: what is predicted already is then predicted anew."
            )

    def tasks(self, ids: Sequence[int]) -> list[Json]:
        return self.patience(lambda: list(self.client.tasks_of(self._number, ids)))

    def predicted(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """Of the tasks that are there, the ids of their predictions of the batch's version, the oldest first."""
        return {int(task["id"]): self.own(task) for page in pages(ids, SHORT_PAGE) for task in self.tasks(page)}

    def own(self, task: Json) -> list[int]:
        predictions = task.get("predictions") or []
        return sorted(int(each["id"]) for each in predictions if each["model_version"] == self.order.version)

    def note(self, pairs: Sequence[Pair]) -> None:
        """Keep what ranking takes of tasks that are about to be written."""
        self._pairs.keep(self._number, self.order.version, pairs)

    def rescore(self, found: Sequence[Scored]) -> None:
        """Write the scores that the project's strategy gives to predictions that are all there now."""
        settings = self.answering.settings
        if settings.prelabel_score == CONFIDENCE:
            return
        tasks = {each.task for each in found}
        pairs = [pair for pair in self._pairs.read(self._number, self.order.version) if pair.task in tasks]
        known = corrections_by_prompt(settings.home, self._number)
        try:
            rescore(found, pairs, settings.prelabel_score, known, self._change_score)
        except NothingToRank as error:
            # The knob was changed while the batch ran.
            _log.warning("Batch %s keeps its scores. %s", self.batch, error)

    def _change_score(self, prediction: int, score: float) -> None:
        if self.patience.over():
            raise RunnerStopped
        self.patience(lambda: self.client.update_score(prediction, score))

    def add(self, predictions: Sequence[bytes]) -> int:
        return self.client.import_predictions(self._number, predictions)

    def replace(self, present: Sequence[int], prediction: bytes) -> None:
        # If somebody deletes it just now, the closing misses it.
        with suppress(LabelStudioNotFound):
            self.patience(lambda: self.client.update_prediction(present[0], prediction))
        self.thin(present)

    def thin(self, present: Sequence[int]) -> None:
        """Of several predictions of one task leave the oldest, whoever does it and however often."""
        for prediction in present[1:]:
            with suppress(LabelStudioNotFound):
                self.patience(partial(self.client.delete_prediction, prediction))


def _credentials(project: Json) -> Credentials | None:
    """What Label Studio sends along with /predict: the login for the project's images."""
    login = project.get("task_data_login")
    return (str(login), str(project.get("task_data_password") or "")) if login else None
