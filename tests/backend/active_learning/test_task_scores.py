"""Scores that say what to label next, from pairs alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelstudio.site import serve
from shelf import PROJECT, TOKEN, Shelf, data

from backend.active_learning.pair_store import PairStore
from backend.active_learning.strategies import Pair
from backend.active_learning.task_scores import (
    NothingToRank,
    Ranking,
    ScoredPrediction,
    corrections_by_prompt,
    new_scores,
    oldest_prediction,
    rank_project,
    rescore,
)
from backend.labelstudio.client import LabelStudio


def pair(
    task: int, prompt: str = "cat", confidence: float = 0.5, disagreement: float = math.nan, at: float = 0
) -> Pair:
    angle = np.radians(at)
    return Pair(task, prompt, confidence, disagreement, np.array([np.cos(angle), np.sin(angle)], dtype=np.float32))


def predicted(task: int, score: float = 0.5, annotated: bool = False) -> ScoredPrediction:
    return ScoredPrediction(task, 100 + task, score, annotated)


@pytest.mark.parametrize("strategy", ["confidence", "uncertainty"])
def test_a_task_is_as_sure_as_its_least_sure_answer(strategy: str) -> None:
    pairs = [pair(1, "cat", 0.75), pair(1, "dog", 0.25), pair(2, confidence=0.5)]
    assert new_scores([predicted(1), predicted(2)], pairs, strategy, {}) == {1: 0.25, 2: 0.5}


def test_a_task_that_shows_no_mask_never_reads_as_sure_of_one() -> None:
    pairs = [pair(1, "cat", 0.75), replace(pair(1, "dog", 0.9), shown=False), replace(pair(2, "cat", 0.9), shown=False)]
    assert new_scores([predicted(1), predicted(2)], pairs, "confidence", {}) == {1: 0.75, 2: pytest.approx(0.45)}
    # Where scores are an order of another kind, they stay what that says.
    order = new_scores([predicted(1), predicted(2)], pairs, "coverage", {})
    assert order == new_scores(
        [predicted(1), predicted(2)], [replace(one, shown=True) for one in pairs], "coverage", {}
    )


def test_annotated_tasks_keep_their_score_and_count_as_labelled() -> None:
    predictions = [predicted(1, annotated=True), predicted(2), predicted(3)]
    scores = new_scores(predictions, [pair(1, at=0), pair(2, at=5), pair(3, at=80)], "diversity", {})
    assert 1 not in scores
    assert scores[3] < scores[2]


def test_prompts_with_few_corrections_come_first() -> None:
    scores = new_scores([predicted(1), predicted(2)], [pair(1, "cat"), pair(2, "dog")], "coverage", {"cat": 4})
    assert scores[2] < scores[1]


def test_disagreement_that_was_not_noted_is_asked_for() -> None:
    with pytest.raises(NothingToRank, match="RIS_PRELABEL_SCORE=disagreement"):
        new_scores([predicted(1)], [pair(1)], "disagreement", {})
    # Of those alone that are ranked.
    done = [predicted(1, annotated=True), predicted(2)]
    assert new_scores(done, [pair(1), pair(2, disagreement=0.25)], "disagreement", {}) == {2: 0.75}


def test_only_what_changes_is_written_and_twice_the_same_nothing() -> None:
    written: dict[int, float] = {}
    predictions = [predicted(1, 0.75), predicted(2, 0.9), predicted(3, 0.1), predicted(4, math.nan)]
    pairs = [pair(1, confidence=0.75), pair(2, confidence=0.5), pair(4, confidence=0.25)]
    assert rescore(predictions, pairs, "uncertainty", {}, written.__setitem__) == 2
    assert written == {102: 0.5, 104: 0.25}
    again = [predicted(1, 0.75), predicted(2, 0.5), predicted(3, 0.1), predicted(4, 0.25)]
    assert rescore(again, pairs, "uncertainty", {}, written.__setitem__) == 0


def test_the_oldest_prediction_of_the_version_is_the_tasks() -> None:
    predictions = [
        {"id": 7, "model_version": "b", "score": 0.1},
        {"id": 6, "model_version": "a", "score": 0.2},
        {"id": 5, "model_version": "b", "score": None},
    ]
    task = {"id": 1, "predictions": predictions, "annotations": [{}]}
    assert oldest_prediction(task, "a") == ScoredPrediction(1, 6, 0.2, annotated=True)
    unscored = oldest_prediction(task, "b")
    assert unscored is not None
    assert (unscored.prediction, math.isnan(unscored.score)) == (5, True)
    assert oldest_prediction(task, "c") is None


def test_without_a_snapshot_no_prompt_has_corrections(tmp_path: Path) -> None:
    assert corrections_by_prompt(tmp_path, 3) == {}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Four tasks, each predicted with a score of 0.5, the second annotated."""
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(4))
    for task in (1, 2, 3, 4):
        shelf.predict(task, "lda-1.a", 0.5)
    shelf.annotated = {2: None}
    return shelf


def test_a_project_is_ranked_by_the_pairs_that_were_kept(shelf: Shelf, tmp_path: Path) -> None:
    pairs = [pair(task, confidence=confidence) for task, confidence in ((1, 0.25), (2, 0.1), (3, 0.5), (4, 0.75))]
    PairStore(tmp_path).keep(PROJECT, "lda-1.a", pairs)
    heard: list[tuple[int, int]] = []
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        ranking = rank_project(
            client, tmp_path, PROJECT, "lda-1.a", "uncertainty", lambda done, total: heard.append((done, total))
        )
        assert ranking == Ranking(PROJECT, "lda-1.a", "uncertainty", tasks=4, open=3, changed=2, ordered=False)
        assert [score for (score,) in shelf.rows("SELECT score FROM prediction ORDER BY id")] == [0.25, 0.5, 0.5, 0.75]
        assert heard == [(0, 3), (1, 3), (2, 3)]
        shelf.model_version = "lda-1.a"
        again = rank_project(client, tmp_path, PROJECT, "lda-1.a", "uncertainty")
        assert (again.changed, again.ordered) == (0, True)
        with pytest.raises(NothingToRank, match="RIS_PRELABEL_SCORE=disagreement"):
            rank_project(client, tmp_path, PROJECT, "lda-1.a", "disagreement")


def test_what_ranking_takes_must_be_there(shelf: Shelf, tmp_path: Path) -> None:
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        with pytest.raises(NothingToRank, match=f"ris prelabel --project {PROJECT} --force"):
            rank_project(client, tmp_path, PROJECT, "lda-1.a", "uncertainty")
        with pytest.raises(NothingToRank, match=f"No task is predicted by lda-2.b.*--project {PROJECT}$"):
            rank_project(client, tmp_path, PROJECT, "lda-2.b", "uncertainty")
