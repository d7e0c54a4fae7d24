"""What the writer stores: one prediction a task, whatever became of the request before."""

from __future__ import annotations

import pytest
from batch_world import World
from labelstudio.site import Answer
from shelf import PROJECT, data

from backend.metrics import REGISTRY


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
    # Chunks of 8, 8 and 4.
    assert world.shelf.imports == 3


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"project": str(PROJECT), **labels}) or 0.0


def test_what_is_handed_in_is_counted_by_what_came_of_it(world: World) -> None:
    def counts() -> list[float]:
        results = [counted("ris_batch_results_total", result=result) for result in ("done", "skipped", "failed")]
        return [*results, counted("ris_batch_task_seconds_count"), counted("ris_batch_task_seconds_sum")]

    world.shelf.fill(data(20))
    world.shelf.do("UPDATE task SET data = json_set(data, '$.image', 'data:image/png;base64,AAAA') WHERE id = 7")
    world.shelf.predict(3, world.version, 0.5)
    before = counts()
    batch = world.done(world.submit(20))
    done, skipped, failed, timed, seconds = (after - old for after, old in zip(counts(), before, strict=True))
    assert (done, skipped, failed) == (batch.done, batch.skipped, batch.failed) == (18, 1, 1)
    assert timed == 18
    # Shares of the time from the runner's start to its last hand-in.
    assert 0 < seconds <= batch.seconds + 5
