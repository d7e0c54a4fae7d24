"""A batch's project in Label Studio: how it is answered, its tasks, and their predictions of the batch's version."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from backend.active_learning.pair_store import PairStore
from backend.active_learning.strategies import Pair
from backend.active_learning.task_scores import (
    CONFIDENCE,
    NothingToRank,
    ScoredPrediction,
    corrections_by_prompt,
    rescore,
)
from backend.batches.leases import Leases
from backend.batches.store import Batch, pages
from backend.errors import BackendError, LabelStudioNotFound
from backend.inference.project_model import ProjectModels
from backend.labelstudio.client import SHORT_PAGE, LabelStudio
from backend.labelstudio.images import project_credentials
from backend.labelstudio.responses import Json
from backend.registry import Registry

_log = logging.getLogger(__name__)


class BatchChanged(BackendError, code="batch_changed", status=409):
    """The project isn't answered any more as it was when the batch began."""


class BatchProject:
    """The batch's project in Label Studio. Raises BatchChanged if it isn't answered as when the batch began.

    project_model: how it is answered. credentials: for the hosts of its images.
    """

    def __init__(
        self, batch: Batch, client: LabelStudio, project_models: ProjectModels, registry: Registry, leases: Leases
    ) -> None:
        self.spec, self.batch = batch.spec, batch.id
        self._client, self._number, self._leases = client, batch.spec.project, leases
        project = leases.retry(lambda: client.project(self._number))
        self.credentials = project_credentials(project)
        version = registry.version(self._number, batch.spec.model)
        self.project_model = project_models.of_interface(self._number, project["label_config"], version)
        self._pairs = PairStore(self.project_model.settings.home)
        if self.project_model.name != batch.spec.version:
            raise BatchChanged(
                f"The labelling interface, the prompt sheet or the settings of project {self._number} were changed "
                "since this batch began. Start another: what is predicted already is then predicted anew."
            )

    def tasks(self, ids: Sequence[int]) -> list[Json]:
        """Those of the tasks that are there, with their predictions, in Label Studio's order."""
        return self._leases.retry(lambda: list(self._client.tasks_of(self._number, ids)))

    def predictions_by_task(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """`predictions_of` each of the tasks that are there."""
        tasks = (task for page in pages(ids, SHORT_PAGE) for task in self.tasks(page))
        return {int(task["id"]): self.predictions_of(task) for task in tasks}

    def predictions_of(self, task: Json) -> list[int]:
        """The ids of a task's predictions of the batch's version, the oldest first."""
        predictions, version = task.get("predictions") or [], self.spec.version
        return sorted(int(prediction["id"]) for prediction in predictions if prediction["model_version"] == version)

    def keep_pairs(self, pairs: Sequence[Pair]) -> None:
        """Keep what ranking takes of tasks that are about to be written."""
        self._pairs.keep(self._number, self.spec.version, pairs)

    def rescore(self, predictions: Sequence[ScoredPrediction]) -> None:
        """Write the scores that the project's strategy gives to predictions that are all there now."""
        settings = self.project_model.settings
        if settings.prelabel_score == CONFIDENCE:
            return
        tasks = {prediction.task for prediction in predictions}
        pairs = [pair for pair in self._pairs.read(self._number, self.spec.version) if pair.task in tasks]
        corrections = corrections_by_prompt(settings.home, self._number)
        try:
            rescore(predictions, pairs, settings.prelabel_score, corrections, self._change_score)
        except NothingToRank as error:
            # The knob was changed while the batch ran.
            _log.warning("Batch %s keeps its scores. %s", self.batch, error)

    def _change_score(self, prediction: int, score: float) -> None:
        self._leases.wait()
        self._leases.retry(lambda: self._client.update_score(prediction, score))

    def import_predictions(self, predictions: Sequence[bytes]) -> int:
        """Store new predictions, all or none, without trying again; how many were."""
        return self._client.import_predictions(self._number, predictions)

    def replace(self, present: Sequence[int], prediction: bytes) -> None:
        """Put a prediction in the place of those that a task has."""
        # If somebody deletes it just now, the closing misses it.
        with suppress(LabelStudioNotFound):
            self._leases.retry(lambda: self._client.update_prediction(present[0], prediction))
        self.delete_doubles(present)

    def delete_doubles(self, present: Sequence[int]) -> None:
        """Of several predictions of one task leave the oldest, whoever does it and however often."""
        for prediction in present[1:]:
            with suppress(LabelStudioNotFound):
                self._leases.retry(partial(self._client.delete_prediction, prediction))
