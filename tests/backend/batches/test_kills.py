"""SIGKILL for the worker, Valkey and Label Studio's stand-in, at random moments of a batch: none lost, none doubled.

KILLS=20 KILL_TASKS=500 is the full size; KILL_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cast import PATIENCE, Cast, playing, until
from checkpoints import random_checkpoint
from ports import free_port
from redis import Redis
from shelf import PROJECT, TOKEN, XML, Shelf, data

from backend import services
from backend.batches import store as batches_module
from backend.batches.service import BatchService
from backend.batches.store import Batch, BatchSpec
from backend.errors import Unavailable
from backend.registry import Registry
from backend.settings import load
from ris_core import checkpoint_files

HERE = Path(__file__).parent.parent
KILLS, TASKS = int(os.environ.get("KILLS", "5")), int(os.environ.get("KILL_TASKS", "60"))
SEED = int(os.environ.get("KILL_SEED", "0"))
EVERYBODY = ("worker", "valkey", "studio")


@pytest.fixture
def cast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Cast]:
    weights = random_checkpoint(tmp_path / "weights")
    valkey, studio = free_port(), free_port()
    for name, value in {
        "RIS_HOME": str(tmp_path / "home"),
        "RIS_REDIS_URL": f"redis://:secret-of-valkey@127.0.0.1:{valkey}/0",
        "RIS_WEBHOOK_SECRET": "hook-secret",
        "RIS_LABEL_STUDIO_URL": f"http://127.0.0.1:{studio}",
        "RIS_LABEL_STUDIO_TOKEN": TOKEN,
        "WEIGHTS": str(weights),
        "PYTHONPATH": str(HERE),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    python = sys.executable
    commands = {
        "valkey": [python, "-m", "backend.local.valkey", "--bind", "127.0.0.1"],
        "studio": [python, str(HERE / "shelf.py"), str(tmp_path / "shelf.db"), str(studio)],
        "worker": [python, str(HERE / "jobs" / "worker_under_test.py"), "--stay"],
    }
    with playing(commands, tmp_path / "log") as cast:
        yield cast


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small batch has as many moments to be killed at as a big one."""
    monkeypatch.setattr(batches_module, "chunk_size", lambda tasks: 4)


def order(batches: BatchService, tmp_path: Path) -> str:
    settings = load()
    project_models = services.project_models(settings)
    version = project_models.of_interface(PROJECT, XML)
    assert Registry(settings.home / "models").base.name == version.version.name
    return batches.submit(BatchSpec(PROJECT, version.version.name, version.name), range(1, TASKS + 1)).id


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_a_batch_predicts_each_task_exactly_once(cast: Cast, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(TASKS))
    cast.tend()
    batches = services.batch_service(load())
    until(cast, lambda: batches.all() == [])
    batch = order(batches, tmp_path)
    luck, recoveries = random.Random(SEED), []

    def state() -> Batch:
        return batches.get(batch, reasons=True)

    for _ in range(KILLS):
        before = state().handled
        until(cast, lambda before=before: state().handled > before or state().state == "done")
        if state().state == "done":
            break
        time.sleep(luck.uniform(0, 1))
        victim = luck.choice(EVERYBODY)
        with suppress(Unavailable):
            before = state().handled
        cast.kill(victim)
        time.sleep(luck.uniform(0, 0.5))
        seconds = until(cast, lambda before=before: state().handled > before or state().state == "done")
        recoveries.append((victim, round(seconds, 1)))
    until(cast, lambda: state().state == "done")
    version = state().spec.version
    print(f"\n{len(recoveries)} kills, seconds until it went on: {recoveries}")
    assert shelf.counts(version) == [1] * TASKS
    ended = state()
    assert (ended.failed, ended.handled, ended.reasons) == (0, TASKS, {})


@pytest.mark.timeout(3600)
def test_workers_share_a_batch_and_one_that_stops_gives_its_chunks_back(cast: Cast, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(TASKS))
    cast.commands["second"] = cast.commands["worker"]
    cast.tend()
    batches = services.batch_service(load())
    until(cast, lambda: batches.all() == [])
    batch = order(batches, tmp_path)
    until(cast, lambda: batches.get(batch).handled > 0)
    cast.processes["second"].terminate()
    assert cast.processes["second"].wait(PATIENCE) == 0
    del cast.commands["second"]
    until(cast, lambda: batches.get(batch).state == "done")
    assert shelf.counts(batches.get(batch).spec.version) == [1] * TASKS
    with Redis.from_url(os.environ["RIS_REDIS_URL"]) as connection:
        assert connection.zcard(f"ris:batch:{batch}:leases") == 0
