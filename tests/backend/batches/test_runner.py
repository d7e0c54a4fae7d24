"""A runner on a real Valkey with the real predictor, against a small Label Studio: one prediction a task, always."""

from __future__ import annotations

import threading
import time

import pytest
from batch_world import World
from shelf import PROJECT, XML, data

from backend.batches.runner import run
from backend.labelstudio.label_config import parse


def test_a_batch_predicts_each_task_once(world: World) -> None:
    world.shelf.fill(data(40))
    batch = world.done(world.submit(40))
    assert (batch.state, batch.done, batch.failed, batch.note) == ("done", 40, 0, "")
    assert world.shelf.counts(world.version) == [1] * 40
    # In bulk: chunks of 10, 8, 8, 8 and 6, an import each.
    assert world.shelf.imports == 5


def test_the_masks_are_those_that_predict_answers(world: World) -> None:
    world.shelf.fill(data(20))
    world.done(world.submit(20))
    stored = world.shelf.rows("SELECT task, score, result FROM prediction ORDER BY task")
    config = parse(XML)
    tasks = [{"id": number, "data": fields} for number, fields in enumerate(data(20), 1)]
    for task, (number, score, result) in zip(tasks, stored, strict=True):
        [alone] = world.services.prelabeller.predict([task], config, PROJECT)
        assert isinstance(alone, dict)
        assert task["id"] == number
        assert alone["score"] == pytest.approx(score, abs=1e-4)
        assert len(alone["result"]) == result.count('"from_name"')


def test_a_runner_makes_room_when_it_is_told_and_another_goes_on_at_once(world: World) -> None:
    world.shelf.fill(data(64))
    batch = world.submit(64)
    worked = run(batch, world.services, lambda: world.shelf.imports >= 1)
    assert 0 < worked.tasks < 64
    started = time.monotonic()
    assert world.done(batch).done == 64
    assert time.monotonic() - started < 20
    assert world.shelf.counts(world.version) == [1] * 64


def test_two_runners_share_a_batch(world: World) -> None:
    world.shelf.fill(data(128))
    batch = world.submit(128)
    runners = [threading.Thread(target=run, args=(batch, world.services)) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert world.batches.get(batch).done == 128
    assert world.shelf.counts(world.version) == [1] * 128
