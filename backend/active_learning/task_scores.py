"""Scores of predictions that say what to label next: the lowest first, as Label Studio's community edition orders.

A task's score is 1 - the highest priority of its pairs, see `strategies`. Tasks that are annotated keep theirs, and
their pairs count as labelled. Knows Label Studio's tasks as JSON; knows no model.

Label Studio changes scores one prediction a request: 10,000 of them take minutes. A kill in between leaves some of the
old, and doing it again changes the rest: the scores depend on the pairs alone.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from backend.active_learning.pair_store import PairStore
from backend.active_learning.strategies import Pair, rank
from backend.datasets.snapshots import snapshots
from backend.errors import BackendError
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.responses import Json
from backend.prompts.text import clean
from ris_core.data import read_folder
from ris_core.errors import DatasetError

_log = logging.getLogger(__name__)

CONFIDENCE = "confidence"
# Scores that agree so far are left as they are.
_SAME = 1e-6


class NothingToRank(BackendError, code="nothing_to_rank", status=409):
    """What a strategy needs to know wasn't noted."""


@dataclass(frozen=True)
class Ranking:
    """What ranking a project came to.

    tasks: how many are predicted by the version, open: those of them without annotation. changed: how many scores are
    new. ordered: whether Label Studio goes by this version's scores.
    """

    project: int
    version: str
    strategy: str
    tasks: int
    open: int
    changed: int
    ordered: bool


@dataclass(frozen=True)
class ScoredPrediction:
    """A task's prediction of the version that is ranked. score: NaN where it has none. annotated: the task is."""

    task: int
    prediction: int
    score: float
    annotated: bool


def rank_project(
    client: LabelStudio,
    home: Path,
    project: int,
    version: str,
    strategy: str,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> Ranking:
    """Write the scores of a version's predictions anew, by a strategy; nothing is predicted.

    on_progress: called with how many scores are written, and of how many tasks there may be one.
    Raises NothingToRank if no task is predicted, or what ranking takes isn't kept; LabelStudioError.
    """
    ordered = client.project(project).get("model_version") == version
    rows = (oldest_prediction(task, version) for task in client.predicted_tasks(project))
    predictions = [prediction for prediction in rows if prediction]
    pairs = PairStore(home).read(project, version)
    if not predictions or not pairs:
        missing = "No task is predicted" if not predictions else "What ranking takes isn't kept of the predictions"
        advice = "" if not predictions else " --force"
        raise NothingToRank(f"{missing} by {version}. Predict first: ris prelabel --project {project}{advice}")
    open_tasks = sum(not prediction.annotated for prediction in predictions)
    number = count(1)

    def change(prediction: int, score: float) -> None:
        client.update_score(prediction, score)
        on_progress(next(number), open_tasks)

    on_progress(0, open_tasks)
    changed = rescore(predictions, pairs, strategy, corrections_by_prompt(home, project), change)
    return Ranking(project, version, strategy, len(predictions), open_tasks, changed, ordered)


def oldest_prediction(task: Json, version: str) -> ScoredPrediction | None:
    """The oldest prediction of a version that a task has, or None."""
    own = [prediction for prediction in task.get("predictions") or [] if prediction["model_version"] == version]
    if not own:
        return None
    oldest = min(own, key=lambda prediction: int(prediction["id"]))
    score = oldest.get("score")
    number = float(score) if isinstance(score, int | float) else float("nan")
    return ScoredPrediction(int(task["id"]), int(oldest["id"]), number, bool(task.get("annotations")))


def rescore(
    predictions: Sequence[ScoredPrediction],
    pairs: Sequence[Pair],
    strategy: str,
    corrections: Mapping[str, int],
    change: Callable[[int, float], None],
) -> int:
    """Call `change` with the id of each prediction whose score is another now, and that score -> how many they are.

    Predictions whose task isn't in a pair keep their score. The rest is as in `new_scores`.
    """
    scores = new_scores(predictions, pairs, strategy, corrections)
    changed = 0
    for prediction in predictions:
        score = scores.get(prediction.task)
        # A score that isn't a number is like no other.
        if score is not None and not abs(score - prediction.score) <= _SAME:
            change(prediction.prediction, score)
            changed += 1
    return changed


def new_scores(
    predictions: Sequence[ScoredPrediction], pairs: Sequence[Pair], strategy: str, corrections: Mapping[str, int]
) -> dict[int, float]:
    """Task -> score in [0, 1] of the tasks that aren't annotated.

    strategy: one of STRATEGIES, or CONFIDENCE. corrections: how many each prompt has.
    Raises NothingToRank if disagreement is asked for, and wasn't noted.
    """
    unlabelled = {prediction.task for prediction in predictions if not prediction.annotated}
    labelled = {prediction.task for prediction in predictions if prediction.annotated}
    candidates = [pair for pair in pairs if pair.task in unlabelled]
    strategy = "uncertainty" if strategy == CONFIDENCE else strategy
    if strategy == "disagreement" and any(np.isnan(pair.disagreement) for pair in candidates):
        raise NothingToRank(
            "These predictions were made without disagreement, which costs a few more passes through the model. "
            "Set RIS_PRELABEL_SCORE=disagreement, then predict again: ris prelabel --force --project N"
        )
    done = [pair.embedding for pair in pairs if pair.task in labelled]
    priorities = rank(candidates, strategy, corrections, 0, np.stack(done) if done else None)
    highest: dict[int, float] = {}
    for pair, priority in zip(candidates, priorities.tolist(), strict=True):
        highest[pair.task] = max(priority, highest.get(pair.task, 0.0))
    # As batches score: what shows no mask isn't to read as sure of one.
    shown = {pair.task for pair in candidates if pair.shown or strategy != "uncertainty"}
    return {task: (1 - priority) / (1 if task in shown else 2) for task, priority in highest.items()}


def corrections_by_prompt(home: Path, project: int) -> Mapping[str, int]:
    """How many corrections each sentence has in the newest snapshot; none where there is no snapshot."""
    newest = snapshots(home, project)[:1]
    try:
        return Counter(clean(sample.sentence) for folder in newest for sample in read_folder(folder))
    except DatasetError as error:
        _log.warning("The corrections of project %s can't be counted. %s", project, error)
        return {}
