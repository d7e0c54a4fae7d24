"""A runner on a real Valkey with the real predictor, against a small Label Studio: one prediction a task, always."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import Answer, Site, serve
from redis import Redis
from shelf import PROJECT, TOKEN, XML, Shelf, data

from backend.active_learning.pair_store import PairStore
from backend.batches import leases
from backend.batches import store as batches_module
from backend.batches.project import BatchChanged
from backend.batches.runner import RunnerServices, run
from backend.batches.store import Batch, BatchSpec, BatchStore
from backend.inference.model_pool import ModelPool
from backend.inference.predict import Prelabeller
from backend.inference.project_model import ProjectModels
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import parse
from backend.registry import Registry
from backend.settings import Settings


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@dataclass
class World:
    shelf: Shelf
    site: Site
    services: RunnerServices
    version: str
    model: str

    @property
    def batches(self) -> BatchStore:
        return self.services.batches

    def order(self, tasks: int, **more: Any) -> str:
        order = BatchSpec(PROJECT, self.model, self.version, **more)
        return self.batches.create(order, range(1, tasks + 1)).id

    def done(self, batch: str) -> Batch:
        run(batch, self.services)
        return self.batches.get(batch, reasons=True)


@pytest.fixture
def world(
    tmp_path: Path, weights: Path, redis: Redis, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(leases, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(leases, "WRITING_SECONDS", 1.0)
    monkeypatch.setattr(batches_module, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    shelf = Shelf(tmp_path / "shelf.db")
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        settings = make_settings(label_studio_url=site.url)
        registry = Registry(tmp_path / "models", weights)
        answers = ProjectModels(registry, settings)
        images = ImageResolver(site.url, TOKEN, cache=tmp_path / "images")
        prelabeller = Prelabeller(answers, images, ModelPool())
        services = RunnerServices(client, BatchStore(redis), prelabeller, answers, registry)
        version = answers.of(PROJECT, answers.read(PROJECT, XML)).name
        yield World(shelf, site, services, version, registry.base.name)


def test_a_batch_predicts_each_task_once(world: World) -> None:
    world.shelf.fill(data(40))
    batch = world.done(world.order(40))
    assert (batch.state, batch.done, batch.failed, batch.note) == ("done", 40, 0, "")
    assert world.shelf.counts(world.version) == [1] * 40
    # In bulk: three chunks, three imports.
    assert world.shelf.imports == 3


def test_the_masks_are_those_that_predict_answers(world: World) -> None:
    world.shelf.fill(data(20))
    world.done(world.order(20))
    stored = world.shelf.rows("SELECT task, score, result FROM prediction ORDER BY task")
    config = parse(XML)
    tasks = [{"id": number + 1, "data": each} for number, each in enumerate(data(20))]
    for task, (number, score, result) in zip(tasks, stored, strict=True):
        [alone] = world.services.prelabeller.predict([task], config, PROJECT)
        assert isinstance(alone, dict)
        assert task["id"] == number
        assert alone["score"] == pytest.approx(score, abs=1e-4)
        assert len(alone["result"]) == result.count('"from_name"')


def test_tasks_that_have_a_prediction_of_the_version_are_left_alone(world: World) -> None:
    world.shelf.fill(data(20))
    for version in (world.version, "lda-00000000.000000", world.version + "#failed"):
        world.shelf.do("INSERT INTO prediction (task, model_version) VALUES (5, ?)", version)
    batch = world.done(world.order(20))
    assert (batch.done, batch.skipped) == (19, 1)
    assert world.shelf.counts(world.version) == [1] * 20


def test_one_bad_image_or_prompt_costs_that_task_alone(world: World) -> None:
    tasks = data(12)
    tasks[2]["image"] = "data:image/png;base64,AAAA"
    tasks[4]["image"] = "http://169.254.169.254/a.png"
    tasks[6]["prompt"] = 5
    del tasks[8]["image"]
    world.shelf.fill(tasks)
    batch = world.done(world.order(12))
    assert (batch.state, batch.done, batch.failed) == ("done", 8, 4)
    assert sorted(batch.reasons) == [3, 5, 7, 9]
    assert "isn't a picture" in batch.reasons[3]
    assert world.shelf.counts(world.version) == [int(number not in (3, 5, 7, 9)) for number in range(1, 13)]


def test_what_failed_is_tried_again_by_resume(world: World) -> None:
    tasks = data(3)
    tasks[1]["image"] = "data:image/png;base64,AAAA"
    world.shelf.fill(tasks)
    batch = world.order(3)
    assert world.done(batch).failed == 1
    world.shelf.do("UPDATE task SET data = (SELECT data FROM task WHERE id = 1) WHERE id = 2")
    world.batches.resume(batch)
    assert (world.done(batch).failed, world.shelf.counts(world.version)) == (0, [1, 1, 1])


def test_prompts_of_the_command_replace_those_of_the_tasks(world: World) -> None:
    world.shelf.fill(data(2))
    world.done(world.order(2, prompts=(("a zebra", "other"),)))
    for (result,) in world.shelf.rows("SELECT result FROM prediction"):
        assert "prompt: a zebra" in result
        assert "the cat" not in result


def test_a_task_that_asks_for_nothing_gets_an_empty_prediction_and_no_image_is_fetched(
    world: World, make_settings: Callable[..., Settings]
) -> None:
    world.shelf.fill([{"image": "/data/upload/1/gone.png", "prompts": ["the cat"]}])
    services = world.services
    quiet = ProjectModels(services.registry, make_settings(prelabel_labels=False))
    world.services = RunnerServices(services.client, services.batches, services.prelabeller, quiet, services.registry)
    world.version = quiet.of(PROJECT, quiet.read(PROJECT, XML)).name
    world.shelf.do('UPDATE task SET data = \'{"image": "/data/upload/1/gone.png"}\'')
    assert world.done(world.order(1)).done == 1
    assert world.shelf.rows("SELECT result FROM prediction") == [("[]",)]


def test_force_replaces_predictions_one_by_one_and_leaves_one_of_each(world: World) -> None:
    world.shelf.fill(data(6))
    world.done(world.order(6))
    world.shelf.do("INSERT INTO prediction (task, model_version) VALUES (2, ?)", world.version)
    world.shelf.do("DELETE FROM prediction WHERE task = 3")
    before = dict(world.shelf.rows("SELECT task, id FROM prediction GROUP BY task"))
    batch = world.done(world.order(6, prompts=(("a zebra", None),), force=True))
    assert (batch.done, batch.skipped) == (6, 0)
    assert world.shelf.counts(world.version) == [1] * 6
    after = dict(world.shelf.rows("SELECT task, id FROM prediction"))
    assert {task: after[task] for task in before} == before
    assert all("a zebra" in result for (result,) in world.shelf.rows("SELECT result FROM prediction"))


def test_the_closing_deletes_second_predictions_and_fills_gaps(world: World) -> None:
    world.shelf.fill(data(20))

    def meddle() -> None:
        # As a request does that arrives after all of its time, and a person who deletes.
        world.shelf.after = lambda: None
        world.shelf.do("INSERT INTO prediction (task, model_version) SELECT 1, ? FROM task LIMIT 3", world.version)
        world.shelf.do("DELETE FROM prediction WHERE task = 2")

    world.shelf.after = meddle
    batch = world.done(world.order(20))
    assert world.shelf.counts(world.version) == [1] * 20
    assert (batch.state, batch.done, batch.rounds) == ("done", 20, 1)


def test_predictions_that_label_studio_never_keeps_have_failed_in_the_end(world: World) -> None:
    world.shelf.fill(data(3))
    world.shelf.after = lambda: world.shelf.do("DELETE FROM prediction WHERE task = 2")
    batch = world.done(world.order(3))
    assert (batch.state, batch.done, batch.failed) == ("done", 2, 1)
    assert "doesn't keep" in batch.reasons[2]


def test_a_task_deleted_meanwhile_costs_nobody_anything(world: World) -> None:
    world.shelf.fill(data(10))

    def delete() -> None:
        world.shelf.before = lambda: None
        world.shelf.do("DELETE FROM task WHERE id = 4")

    world.shelf.before = delete
    batch = world.done(world.order(12))
    assert (batch.state, batch.done, batch.failed, batch.handled) == ("done", 9, 0, 12)
    assert world.shelf.counts(world.version) == [1] * 9


FAILURES: dict[str, Answer] = {
    "500 before": Answer(500),
    "503 before": Answer(503),
    "429 before": Answer(429),
    "401 before": Answer(401),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_label_studio_failing_is_waited_out(world: World, failure: str) -> None:
    world.shelf.fill(data(20))
    left = [3]

    def fail() -> Answer | None:
        left[0] -= 1
        return FAILURES[failure] if left[0] > 0 else None

    world.shelf.before = fail
    batch = world.done(world.order(20))
    assert (batch.state, batch.done, batch.note) == ("done", 20, "")
    assert world.shelf.counts(world.version) == [1] * 20


@pytest.mark.parametrize("failure", ["500", "reset"])
def test_an_answer_lost_after_the_predictions_were_stored_makes_no_second(world: World, failure: str) -> None:
    world.shelf.fill(data(20))

    def lose() -> Answer | None:
        world.shelf.after = lambda: None
        return Answer(500) if failure == "500" else Answer(reset=True)

    world.shelf.after = lose
    batch = world.done(world.order(20))
    assert (batch.state, batch.handled) == ("done", 20)
    assert world.shelf.counts(world.version) == [1] * 20
    assert world.shelf.imports == 2


def test_a_batch_that_waits_for_label_studio_says_so_and_can_be_cancelled(world: World) -> None:
    world.shelf.fill(data(3))
    world.shelf.before = lambda: Answer(503)
    batch = world.order(3)
    runner = threading.Thread(target=run, args=(batch, world.services))
    runner.start()
    end = time.monotonic() + 30
    while "Waiting: Label Studio failed" not in world.batches.get(batch).note:
        assert time.monotonic() < end
        time.sleep(0.02)
    world.batches.cancel(batch)
    runner.join(10)
    assert not runner.is_alive()
    assert world.shelf.counts(world.version) == [0] * 3
    world.shelf.before = lambda: None
    world.batches.resume(batch)
    assert (world.done(batch).done, world.shelf.counts(world.version)) == (3, [1] * 3)


def test_a_runner_makes_room_when_it_is_told_and_another_goes_on_at_once(world: World) -> None:
    world.shelf.fill(data(64))
    batch = world.order(64)
    worked = run(batch, world.services, lambda: world.shelf.imports >= 1)
    assert 0 < worked.tasks < 64
    started = time.monotonic()
    assert world.done(batch).done == 64
    assert time.monotonic() - started < 20
    assert world.shelf.counts(world.version) == [1] * 64


def test_two_runners_share_a_batch(world: World) -> None:
    world.shelf.fill(data(128))
    batch = world.order(128)
    runners = [threading.Thread(target=run, args=(batch, world.services)) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert world.batches.get(batch).done == 128
    assert world.shelf.counts(world.version) == [1] * 128


def test_whoever_lost_its_chunk_writes_nothing(world: World) -> None:
    """The first stalls before it writes, longer than its lease, and another takes its chunk."""
    world.shelf.fill(data(5))
    batch = world.order(5)
    [chunk_key] = [f"ris:batch:{batch}:chunks"]
    connection = world.batches._connection
    stolen = []
    begin = world.batches.begin

    def stall(name: str, owner: str, chunk: str, seconds: float) -> bool:
        if not stolen:
            stolen.append(chunk)
            connection.hset(chunk_key, f"{chunk}:owner", "another")
            connection.zadd(f"ris:batch:{batch}:leases", {chunk: time.time() + 1})
        return begin(name, owner, chunk, seconds)

    world.batches.begin = stall  # type: ignore[method-assign]
    ended = world.done(batch)
    assert (ended.state, ended.done) == ("done", 5)
    assert world.shelf.counts(world.version) == [1] * 5
    assert world.shelf.imports == 1


def test_a_batch_whose_project_is_answered_differently_by_now_stops_and_says_why(world: World) -> None:
    world.shelf.fill(data(3))
    batch = world.order(3)
    world.shelf.xml = XML.replace("other", "dog")
    with pytest.raises(BatchChanged):
        run(batch, world.services)
    stopped = world.batches.get(batch)
    assert (stopped.state, "Start another" in stopped.note) == ("cancelled", True)
    assert world.shelf.counts(world.version) == [0] * 3


def test_a_project_that_is_gone_stops_its_batch(world: World) -> None:
    batch = world.batches.create(BatchSpec(99, world.model, world.version), [1]).id
    with pytest.raises(Exception, match="deleted"):
        run(batch, world.services)
    assert world.batches.get(batch).state == "cancelled"


@pytest.mark.parametrize("strategy", ["diversity", "disagreement"])
def test_the_closing_writes_the_scores_that_rank_the_batch(
    world: World, make_settings: Callable[..., Settings], strategy: str
) -> None:
    world.shelf.fill(data(20))
    world.shelf.annotated = {4: None}
    services = world.services
    ranked = ProjectModels(services.registry, make_settings(prelabel_score=strategy))
    world.services = RunnerServices(services.client, services.batches, services.prelabeller, ranked, services.registry)
    batch = world.done(world.order(20))
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
    world.done(world.order(3))
    before = world.shelf.rows("SELECT task, score FROM prediction ORDER BY task")
    services = world.services
    ranked = ProjectModels(services.registry, make_settings(prelabel_score="disagreement"))
    world.services = RunnerServices(services.client, services.batches, services.prelabeller, ranked, services.registry)
    assert world.done(world.order(3)).state == "done"
    assert world.shelf.rows("SELECT task, score FROM prediction ORDER BY task") == before
    assert "keeps its scores" in caplog.text
