"""What follows a promotion, on a real Valkey against a small Label Studio: the batch, the announcement, each kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from redis import Redis
from shelf import PROJECT, TOKEN, XML, Shelf, data

from backend import services
from backend.batches import runner
from backend.batches.service import BatchService
from backend.batches.store import Batch, BatchSpec, BatchStore
from backend.errors import ConfigError, LabelStudioNotFound
from backend.inference.project_model import ProjectModels
from backend.labelstudio.client import LabelStudio
from backend.learning.rollout import Rollout, RolloutRecord, RolloutRecords, least_sure_first, on_batch_end, tick
from backend.queue.queue import JobQueue
from backend.registry import Registry
from backend.settings import Settings


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("weights")
    return [random_checkpoint(folder / str(seed), seed) for seed in range(3)]


@dataclass
class World:
    shelf: Shelf
    refresh: Rollout
    redis: Redis
    names: list[str]

    @property
    def registry(self) -> Registry:
        return self.refresh.registry

    def promote(self, number: int) -> None:
        self.registry.promote(PROJECT, self.names[number])

    def reconcile(self) -> str:
        return self.refresh.reconcile(PROJECT)

    def tick(self) -> list[int]:
        return tick(self.redis, self.refresh.settings, self.registry)

    def batches(self) -> list[Batch]:
        """The newest first."""
        return self.refresh.batches.all()

    def work(self) -> None:
        """What a worker does with the newest batch."""
        parts = services.runner_services(self.refresh.settings, self.refresh.client, BatchStore(self.redis))
        runner.run(
            self.batches()[0].id, replace(parts, registry=self.registry, project_models=self.refresh.project_models)
        )

    def name(self) -> str:
        """The version string that answers have now."""
        xml = self.shelf.xml
        return self.refresh.project_models.of_interface(PROJECT, xml).name


@pytest.fixture
def world(
    tmp_path: Path,
    checkpoints: list[Path],
    redis: Redis,
    redis_url: str,
    make_settings: Callable[..., Settings],
) -> Iterator[World]:
    shelf = Shelf(tmp_path / "shelf.db")
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        settings = make_settings(label_studio_url=site.url, label_studio_token=TOKEN, redis_url=redis_url)
        registry = Registry(settings.home / "models", checkpoints[0])
        names = [registry.base.name, *(registry.add(PROJECT, each, {}).name for each in checkpoints[1:])]
        project_models = ProjectModels(registry, settings)
        batches = BatchService(redis, JobQueue(redis))
        yield World(
            shelf, Rollout(client, batches, project_models, registry, settings, RolloutRecords(redis)), redis, names
        )


def test_a_promotion_predicts_anew_and_then_label_studio_goes_by_it(world: World) -> None:
    world.shelf.fill(data(5))
    world.promote(1)
    assert world.reconcile() == "running"
    [batch] = world.batches()
    assert (batch.spec.origin, batch.spec.model, batch.total) == ("promotion", world.names[1], 5)
    assert (world.reconcile(), world.shelf.model_version) == ("running", "ris")
    world.work()
    assert world.shelf.counts(world.name()) == [1] * 5
    assert (world.reconcile(), world.shelf.model_version) == ("done", world.name())
    assert len(world.batches()) == 1


def test_annotated_tasks_are_left_alone_and_the_least_sure_come_first(world: World) -> None:
    world.shelf.fill(data(5))
    world.shelf.annotated = {2: None}
    for task, score in ((1, 0.9), (3, 0.2), (5, 0.4)):
        world.shelf.predict(task, "lda-00000000.000000", score)
    world.promote(1)
    world.reconcile()
    world.work()
    written = world.shelf.rows("SELECT task FROM prediction WHERE model_version = ? ORDER BY id", world.name())
    assert [task for (task,) in written] == [3, 5, 1, 4]


def test_of_several_predictions_the_latest_says_how_sure_it_is() -> None:
    scored = [{"id": 7, "score": 0.1}, {"id": 9, "score": 0.8}, {"id": 8, "score": 0.2}, {"id": 10, "score": None}]
    tasks = [{"id": 1, "predictions": scored}, {"id": 2, "predictions": [{"id": 1, "score": 0.5}]}]
    assert least_sure_first(tasks) == [2, 1]


def test_a_newer_promotion_takes_the_place_of_a_refresh_that_runs(world: World) -> None:
    world.shelf.fill(data(3))
    world.promote(1)
    world.reconcile()
    world.promote(2)
    assert world.reconcile() == "running"
    new, old = world.batches()
    assert (old.state, new.state, new.spec.model) == ("cancelled", "running", world.names[2])
    assert "Another version" in old.note
    world.work()
    world.reconcile()
    assert world.shelf.model_version == world.name()


def test_a_way_back_is_a_promotion_too_and_costs_only_what_is_missing(world: World) -> None:
    world.shelf.fill(data(3))
    for number in (1, 2):
        world.promote(number)
        world.reconcile()
        world.work()
        world.reconcile()
    world.registry.rollback(PROJECT)
    assert world.tick() == [PROJECT]
    world.reconcile()
    world.work()
    assert (world.batches()[0].done, world.batches()[0].skipped) == (0, 3)
    assert world.reconcile() == "done"
    assert world.shelf.model_version == world.name()
    assert world.name().startswith(world.names[1])


def test_killed_before_the_batch_was_noted_it_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.shelf.fill(data(3))
    world.promote(1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RolloutRecords, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            world.reconcile()
    assert world.tick() == [PROJECT]
    assert world.reconcile() == "running"
    assert len(world.batches()) == 1


def test_a_batch_that_ended_unannounced_is_announced_the_next_time_and_once(world: World) -> None:
    world.shelf.fill(data(3))
    world.promote(1)
    world.reconcile()
    assert world.tick() == []
    world.work()
    assert world.tick() == [PROJECT]
    world.reconcile()
    assert world.shelf.changes == 1
    # Killed after Label Studio's answer: the record still says that it is to be told.
    world.refresh.records.put(PROJECT, replace(record(world), closed=False))
    assert world.tick() == [PROJECT]
    world.reconcile()
    assert world.shelf.changes == 1
    assert world.tick() == []


def test_the_end_of_a_refresh_calls_for_the_announcement_and_that_of_another_batch_for_nothing(world: World) -> None:
    world.shelf.fill(data(3))
    world.promote(1)
    world.reconcile()
    queue = JobQueue(world.redis)
    world.work()
    on_batch_end(world.batches()[0], queue)
    assert [job["arguments"] for job in queue.recent() if job["function"] == "refresh"] == [[PROJECT]]
    world.redis.flushall()
    ordered = world.refresh.batches.submit(BatchSpec(PROJECT, world.names[1], world.name()), [1])
    on_batch_end(world.refresh.batches.cancel(ordered.id), queue)
    assert [job["function"] for job in queue.recent()] == ["prelabel"]


def test_it_begins_again_where_valkey_lost_everything(world: World) -> None:
    world.shelf.fill(data(3))
    world.promote(1)
    world.reconcile()
    world.work()
    world.redis.flushall()
    assert world.tick() == [PROJECT]
    world.reconcile()
    world.work()
    assert (world.reconcile(), world.shelf.counts(world.name())) == ("done", [1] * 3)


def test_a_batch_that_somebody_cancelled_stays_so(world: World) -> None:
    world.shelf.fill(data(3))
    world.promote(1)
    world.reconcile()
    world.refresh.batches.cancel(world.batches()[0].id)
    assert (world.reconcile(), world.tick(), world.shelf.model_version) == ("stopped", [], "ris")
    world.refresh.begin(PROJECT)
    assert [batch.state for batch in world.batches()] == ["running", "cancelled"]


def test_without_open_tasks_nothing_is_announced_and_it_is_over(world: World) -> None:
    world.shelf.fill(data(1))
    world.shelf.annotated = {1: None}
    world.promote(1)
    world.reconcile()
    world.work()
    assert (world.reconcile(), world.shelf.model_version, world.tick()) == ("done", "ris", [])
    assert "No task without annotation" in record(world).note


def test_once_nothing_is_open_label_studio_asks_the_backend_again(world: World) -> None:
    world.shelf.fill(data(1))
    for number in (1, 2):
        world.promote(number)
        world.reconcile()
        world.work()
        world.reconcile()
        world.shelf.annotated = {1: None}
    # By the first version it would show none to tasks that come in.
    assert world.shelf.model_version == "ris"


def test_the_shipped_model_alone_asks_for_nothing(world: World) -> None:
    world.shelf.fill(data(1))
    assert world.tick() == []


@pytest.mark.parametrize("own", [True, False], ids=["project", "everywhere"])
def test_it_can_be_turned_off(world: World, own: bool) -> None:
    world.shelf.fill(data(1))
    world.promote(1)
    if own:
        file = world.refresh.settings.home / "projects" / f"{PROJECT}.env"
        file.parent.mkdir(parents=True)
        file.write_text("RIS_PRELABEL_REFRESH=false\n")
    else:
        off = world.refresh.settings.model_copy(update={"prelabel_refresh": False})
        world.refresh = replace(world.refresh, settings=off)
    assert (world.reconcile(), world.tick(), world.batches()) == ("off", [], [])


def test_a_project_that_is_gone_is_given_up(world: World) -> None:
    other = PROJECT + 1
    folder = world.registry.version(PROJECT, world.names[1]).folder
    world.registry.add(other, folder, {})
    world.registry.promote(other, world.names[1])
    assert world.tick() == [other]
    with pytest.raises(LabelStudioNotFound):
        world.refresh.reconcile(other)
    assert world.tick() == []


def test_a_label_studio_that_is_away_is_waited_for(world: World, make_settings: Callable[..., Settings]) -> None:
    world.promote(1)
    with LabelStudio("http://127.0.0.1:9", TOKEN) as nobody:
        assert replace(world.refresh, client=nobody).reconcile(PROJECT) == "waiting"
    assert world.tick() == [PROJECT]


def test_a_damaged_project_does_not_keep_others_from_theirs(world: World) -> None:
    broken = PROJECT - 1
    world.registry.add(broken, world.registry.version(PROJECT, world.names[1]).folder, {})
    (world.refresh.settings.home / "models" / f"project-{broken}" / "production.json").write_text("[]")
    world.promote(1)
    assert world.tick() == [PROJECT]


def test_a_damaged_interface_is_given_up_until_the_next_promotion(world: World) -> None:
    world.shelf.xml = "<View/>"
    world.promote(1)
    with pytest.raises(ConfigError):
        world.reconcile()
    assert (world.tick(), world.reconcile()) == ([], "done")
    world.shelf.xml = XML
    world.promote(2)
    assert (world.tick(), world.reconcile()) == ([PROJECT], "running")


def test_a_worker_does_all_of_it(world: World, checkpoints: list[Path], redis_url: str) -> None:
    """It looks when it starts, then each job calls for the next, until Label Studio goes by the new predictions."""
    world.shelf.fill(data(5))
    world.promote(1)
    settings = world.refresh.settings
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    environment = clean | {
        "RIS_HOME": str(settings.home),
        "RIS_REDIS_URL": redis_url,
        "RIS_WEBHOOK_SECRET": "hook-secret",
        "RIS_LABEL_STUDIO_URL": settings.label_studio_url,
        "RIS_LABEL_STUDIO_TOKEN": TOKEN,
        "WEIGHTS": str(checkpoints[0]),
    }
    worker = Path(__file__).parents[1] / "jobs" / "worker_under_test.py"
    done = subprocess.run(
        [sys.executable, str(worker)], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert world.shelf.counts(world.name()) == [1] * 5
    assert world.shelf.model_version == world.name(), done.stderr
    assert [batch.state for batch in world.batches()] == ["done"]


def record(world: World) -> RolloutRecord:
    found = world.refresh.records.get(PROJECT)
    assert found is not None
    return found
