"""A batch's project: answered as when the batch began, or not at all; and the scores that rank its tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from batch_world import World
from shelf import PROJECT, XML, data

from backend.active_learning.pair_store import PairStore
from backend.batches.project import BatchChanged
from backend.batches.runner import run
from backend.batches.store import BatchSpec
from backend.errors import LabelStudioNotFound
from backend.settings import Settings


def test_a_batch_whose_project_is_answered_differently_by_now_stops_and_says_why(world: World) -> None:
    world.shelf.fill(data(3))
    batch = world.submit(3)
    world.shelf.xml = XML.replace("other", "dog")
    with pytest.raises(BatchChanged):
        run(batch, world.services)
    stopped = world.batches.get(batch)
    assert (stopped.state, "Start another" in stopped.note) == ("cancelled", True)
    assert world.shelf.counts(world.version) == [0] * 3


def test_a_project_that_is_gone_stops_its_batch(world: World) -> None:
    batch = world.batches.create(BatchSpec(99, world.model, world.version), [1]).id
    with pytest.raises(LabelStudioNotFound, match="deleted"):
        run(batch, world.services)
    assert world.batches.get(batch).state == "cancelled"


@pytest.mark.parametrize("strategy", ["diversity", "disagreement"])
def test_the_closing_writes_the_scores_that_rank_the_batch(
    world: World, make_settings: Callable[..., Settings], strategy: str
) -> None:
    world.shelf.fill(data(20))
    world.shelf.annotated = {4: None}
    world.use(make_settings(prelabel_score=strategy))
    batch = world.done(world.submit(20))
    assert (batch.state, batch.done) == ("done", 20)
    scores = dict(world.shelf.rows("SELECT task, score FROM prediction ORDER BY task"))
    open_tasks = [score for task, score in scores.items() if task != 4]
    if strategy == "diversity":
        # One place each, from first to last.
        assert sorted(open_tasks) == pytest.approx([number / 19 for number in range(19)], abs=1e-6)
    else:
        pairs = PairStore(make_settings().home).read(PROJECT, world.version)
        assert {pair.task: 1 - pair.disagreement for pair in pairs if pair.task != 4} == pytest.approx(
            {task: score for task, score in scores.items() if task != 4}, abs=1e-6
        )


def test_scores_that_cannot_be_ranked_stay_and_the_batch_is_done(
    world: World, make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    world.shelf.fill(data(3))
    world.done(world.submit(3))
    before = world.shelf.rows("SELECT task, score FROM prediction ORDER BY task")
    world.use(make_settings(prelabel_score="disagreement"))
    assert world.done(world.submit(3)).state == "done"
    assert world.shelf.rows("SELECT task, score FROM prediction ORDER BY task") == before
    assert "keeps its scores" in caplog.text
