"""What the reader brings to the model: tasks that want a prediction, their prompts, their images; and the closing."""

from __future__ import annotations

from collections.abc import Callable

from batch_world import World
from shelf import data

from backend.settings import Settings


def test_tasks_that_have_a_prediction_of_the_version_are_left_alone(world: World) -> None:
    world.shelf.fill(data(20))
    for version in (world.version, "lda-00000000.000000", world.version + "#failed"):
        world.shelf.do("INSERT INTO prediction (task, model_version) VALUES (5, ?)", version)
    batch = world.done(world.submit(20))
    assert (batch.done, batch.skipped) == (19, 1)
    assert world.shelf.counts(world.version) == [1] * 20


def test_one_bad_image_or_prompt_costs_that_task_alone(world: World) -> None:
    tasks = data(12)
    tasks[2]["image"] = "data:image/png;base64,AAAA"
    tasks[4]["image"] = "http://169.254.169.254/a.png"
    tasks[6]["prompt"] = 5
    del tasks[8]["image"]
    world.shelf.fill(tasks)
    batch = world.done(world.submit(12))
    assert (batch.state, batch.done, batch.failed) == ("done", 8, 4)
    assert sorted(batch.reasons) == [3, 5, 7, 9]
    assert "isn't a picture" in batch.reasons[3]
    assert world.shelf.counts(world.version) == [int(number not in (3, 5, 7, 9)) for number in range(1, 13)]


def test_what_failed_is_tried_again_by_resume(world: World) -> None:
    tasks = data(3)
    tasks[1]["image"] = "data:image/png;base64,AAAA"
    world.shelf.fill(tasks)
    batch = world.submit(3)
    assert world.done(batch).failed == 1
    world.shelf.do("UPDATE task SET data = (SELECT data FROM task WHERE id = 1) WHERE id = 2")
    world.batches.resume(batch)
    assert (world.done(batch).failed, world.shelf.counts(world.version)) == (0, [1, 1, 1])


def test_prompts_of_the_command_replace_those_of_the_tasks(
    world: World, make_settings: Callable[..., Settings]
) -> None:
    # Random weights are sure of nothing.
    world.use(make_settings(prelabel_min_score=0))
    world.shelf.fill(data(2))
    world.done(world.submit(2, prompts=(("a zebra", "other"),)))
    for (result,) in world.shelf.rows("SELECT result FROM prediction"):
        assert "prompt: a zebra" in result
        assert "the cat" not in result


def test_a_task_that_asks_for_nothing_gets_an_empty_prediction_and_no_image_is_fetched(
    world: World, make_settings: Callable[..., Settings]
) -> None:
    world.shelf.fill([{"image": "/data/upload/1/gone.png", "prompts": ["the cat"]}])
    world.use(make_settings(prelabel_labels=False))
    world.shelf.do('UPDATE task SET data = \'{"image": "/data/upload/1/gone.png"}\'')
    assert world.done(world.submit(1)).done == 1
    assert world.shelf.rows("SELECT result FROM prediction") == [("[]",)]


def test_the_closing_deletes_second_predictions_and_fills_gaps(world: World) -> None:
    world.shelf.fill(data(20))

    def meddle() -> None:
        # As a request does that arrives after all of its time, and a person who deletes.
        world.shelf.after = lambda: None
        world.shelf.do("INSERT INTO prediction (task, model_version) SELECT 1, ? FROM task LIMIT 3", world.version)
        world.shelf.do("DELETE FROM prediction WHERE task = 2")

    world.shelf.after = meddle
    batch = world.done(world.submit(20))
    assert world.shelf.counts(world.version) == [1] * 20
    assert (batch.state, batch.done, batch.rounds) == ("done", 20, 1)


def test_predictions_that_label_studio_never_keeps_have_failed_in_the_end(world: World) -> None:
    world.shelf.fill(data(3))
    world.shelf.after = lambda: world.shelf.do("DELETE FROM prediction WHERE task = 2")
    batch = world.done(world.submit(3))
    assert (batch.state, batch.done, batch.failed) == ("done", 2, 1)
    assert "doesn't keep" in batch.reasons[2]
