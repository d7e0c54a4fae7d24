"""A fine-tuning whose worker, job and Valkey are killed at random moments ends once, with the same weights.

KILLS=10 is the full size; KILL_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from annotated import XML
from cast import Cast, playing, until
from checkpoints import random_checkpoint
from labelstudio.site import serve
from ports import free_port
from rq.serializers import JSONSerializer
from squares import SENTENCE, annotated_studio
from studio import PROJECT, TOKEN, Studio

from backend import services
from backend.labelstudio.client import LabelStudio
from backend.learning import candidate, finetune
from backend.learning.finetune import STAGES
from backend.queue.allow_list import GuardedJob
from backend.queue.queue import JobQueue, connect, reachable
from backend.queue.signature import Signer
from backend.registry import Registry
from backend.settings import load
from backend.web import ml_backend
from ris_core import checkpoint_files

HERE = Path(__file__).parent.parent
KILLS, SEED = int(os.environ.get("KILLS", "2")), int(os.environ.get("KILL_SEED", "0"))
# Passes, of one step each, and seconds that the worker under test takes longer for each: time to be killed in.
PASSES, PAUSE = 12 + 6 * KILLS, 0.1
WAYS = ("the worker, asked", "the worker", "valkey", "the job")


def kill(cast: Cast, way: str) -> bool:
    """Returns whether there was somebody to kill."""
    if way == "the job":
        return _kill_children(cast.processes["worker"].pid)
    name = "valkey" if way == "valkey" else "worker"
    cast.kill(name, signal.SIGTERM if way == "the worker, asked" else signal.SIGKILL)
    return True


def _kill_children(parent: int) -> bool:
    children = psutil.Process(parent).children() if psutil.pid_exists(parent) else []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    return bool(children)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def studio() -> Iterator[tuple[Studio, str]]:
    studio = annotated_studio()
    with serve(studio) as site:
        yield studio, site.url


@pytest.fixture
def cast(
    studio: tuple[Studio, str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Iterator[Cast]:
    for name, value in {
        "RIS_HOME": str(tmp_path / "home"),
        "RIS_REDIS_URL": f"redis://:secret-of-valkey@127.0.0.1:{free_port()}/0",
        "RIS_WEBHOOK_SECRET": "hook-secret",
        "RIS_LABEL_STUDIO_URL": studio[1],
        "RIS_LABEL_STUDIO_TOKEN": TOKEN,
        "RIS_FINETUNE_MIN_VALIDATION": "4",
        # However busy the machine is, there is time for all passes.
        "RIS_FINETUNE_SECONDS": "21600",
        "WEIGHTS": str(weights),
        "PASSES": str(PASSES),
        "PAUSE": str(PAUSE),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(HERE.parent.parent), str(HERE))),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    monkeypatch.setattr(candidate, "MAX_PASSES", PASSES)
    python = sys.executable
    commands = {
        "valkey": [python, "-m", "backend.local.valkey", "--bind", "127.0.0.1"],
        "worker": [python, str(HERE / "jobs" / "worker_under_test.py"), "--stay", "--only", "training"],
    }
    with playing(commands, tmp_path / "log") as cast:
        yield cast


def undisturbed(home: Path) -> finetune.Outcome:
    """The same, in this process and in another home."""
    settings = load().model_copy(update={"home": home})
    with LabelStudio(settings.label_studio_url, TOKEN) as client:
        parts = finetune.LearningServices(
            client, services.image_resolver(settings), services.registry(settings), settings
        )
        return finetune.learn(PROJECT, parts)


@dataclass
class Annotator:
    """Asks for masks all the time, as somebody in the editor does."""

    task: dict[str, Any]
    versions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _gone: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Annotator:
        self._backend = ml_backend.build(load())
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        self._thread.join()

    def _work(self) -> None:
        typed = {
            "id": "typed",
            "from_name": "prompt",
            "to_name": "img",
            "type": "textarea",
            "value": {"text": [SENTENCE]},
        }
        body = {
            "tasks": [self.task],
            "project": f"{PROJECT}.0",
            "label_config": XML,
            "params": {"context": {"result": [typed]}},
        }
        while not self._gone.wait(0.2):
            started = time.monotonic()
            try:
                [answer] = self._backend.predict(body)["results"]
                self.versions.append(answer["model_version"])
            except Exception as error:  # noqa: BLE001 - whatever it is, the person gets no mask
                self.failures.append(repr(error))
            self.slowest = max(self.slowest, time.monotonic() - started)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_a_training_ends_once_with_the_same_weights(
    cast: Cast, studio: tuple[Studio, str], tmp_path: Path, signing: Signer
) -> None:
    expected = undisturbed(tmp_path / "undisturbed")
    cast.tend()
    connection = connect(os.environ["RIS_REDIS_URL"])
    jobs = JobQueue(connection)
    until(cast, lambda: jobs.recent() == [])
    job, luck, done = jobs.learn(PROJECT).job, random.Random(SEED), []

    def state() -> dict[str, Any]:
        return jobs.describe(job)

    def furthest() -> list[float]:
        with reachable():
            return list(GuardedJob.fetch(job, connection, JSONSerializer).meta.get("furthest", []))

    def ended() -> bool:
        return state()["status"] in ("finished", "failed")

    before: list[float] = []
    with Annotator(studio[0].tasks[0]) as annotator:
        for number in range(KILLS):
            if number % 3 < 2:
                # Two in three while it trains or compares; a job that never gets on would be given up, and rightly so.
                until(cast, lambda before=before: ended() or furthest() > max(before, [STAGES.index("training"), 0]))
            until(cast, lambda: ended() or state()["status"] == "started")
            time.sleep(luck.uniform(0, 5 * PAUSE))
            if ended():
                break
            before = furthest()
            way = WAYS[number % len(WAYS)]
            if kill(cast, way):
                done.append(way)
        until(cast, ended)
        # It takes up the new version by itself.
        asked = len(annotator.versions)
        until(cast, lambda: len(annotator.versions) > asked + 1)
    print(f"\n{len(done)} kills: {done}; {len(annotator.versions)} predictions, the slowest {annotator.slowest:.1f} s")
    found = state()
    assert found["status"] == "finished", (found, cast.log.read_text()[-8000:])
    assert len(done) == KILLS, "it was over too soon"
    registry = Registry(load().home / "models")
    assert [version.name for version in registry.versions(PROJECT)] == [expected.base, expected.version]
    assert (found["result"]["version"], found["result"]["decision"]) == (expected.version, expected.decision)
    assert found["result"]["expressions"] == [each.__dict__ for each in expected.expressions]
    assert [each["id"] for each in jobs.recent() if each["function"] == "learn"] == [job]
    assert not list((load().home / "learning" / str(PROJECT)).iterdir())
    assert annotator.failures == []
    assert annotator.versions[0].startswith(expected.base)
    assert annotator.versions[-1].startswith(registry.pointer(PROJECT).version)
