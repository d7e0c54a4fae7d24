"""What the writer stores: one prediction a task, whatever became of the request before."""

from __future__ import annotations

import pytest
from batch_world import World
from labelstudio.site import Answer
from shelf import data


def test_force_replaces_predictions_one_by_one_and_leaves_one_of_each(world: World) -> None:
    world.shelf.fill(data(6))
    world.done(world.submit(6))
    world.shelf.do("INSERT INTO prediction (task, model_version) VALUES (2, ?)", world.version)
    world.shelf.do("DELETE FROM prediction WHERE task = 3")
    before = dict(world.shelf.rows("SELECT task, id FROM prediction GROUP BY task"))
    batch = world.done(world.submit(6, prompts=(("a zebra", None),), force=True))
    assert (batch.done, batch.skipped) == (6, 0)
    assert world.shelf.counts(world.version) == [1] * 6
    after = dict(world.shelf.rows("SELECT task, id FROM prediction"))
    assert {task: after[task] for task in before} == before
    assert all("a zebra" in result for (result,) in world.shelf.rows("SELECT result FROM prediction"))


def test_a_task_deleted_meanwhile_costs_nobody_anything(world: World) -> None:
    world.shelf.fill(data(10))

    def delete() -> None:
        world.shelf.before = lambda: None
        world.shelf.do("DELETE FROM task WHERE id = 4")

    world.shelf.before = delete
    batch = world.done(world.submit(12))
    assert (batch.state, batch.done, batch.failed, batch.handled) == ("done", 9, 0, 12)
    assert world.shelf.counts(world.version) == [1] * 9


@pytest.mark.parametrize("failure", ["500", "reset"])
def test_an_answer_lost_after_the_predictions_were_stored_makes_no_second(world: World, failure: str) -> None:
    world.shelf.fill(data(20))

    def lose() -> Answer | None:
        world.shelf.after = lambda: None
        return Answer(500) if failure == "500" else Answer(reset=True)

    world.shelf.after = lose
    batch = world.done(world.submit(20))
    assert (batch.state, batch.handled) == ("done", 20)
    assert world.shelf.counts(world.version) == [1] * 20
    assert world.shelf.imports == 2
