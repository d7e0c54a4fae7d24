"""One installation to break, with three kinds of work in it: a real Valkey, a real worker, a Label Studio over HTTP.

Valkey and the worker are processes that are started again whenever they end, as a supervisor would. Label Studio is a
server in this process, so that a test can have it fail and look at what it holds. RIS_FAULTS=50 is the number of
rounds, each at a random moment; RIS_FAULTS_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from annotated import annotation, drawn
from cast import Cast, playing, until
from checkpoints import random_checkpoint
from labelstudio.site import Answer, Asked, Site, serve
from labelstudio.tokens import json_web_token
from ports import free_port
from shelf import PROJECT, XML, Shelf, data
from squares import annotated_studio, pictures
from studio import Studio

from backend import services
from backend.batches import store
from backend.batches.service import BatchService
from backend.batches.store import Batch, BatchSpec
from backend.datasets.snapshots import verify
from backend.home import exports_folder, learning_folder, models_folder, snapshots_folder, valkey_folder
from backend.queue.allow_list import GuardedJob, sign_jobs
from backend.queue.queue import JobQueue, connect
from backend.registry import Registry
from backend.settings import PREFIX, load
from ris_core import checkpoint_files
from ris_core.data import read_folder

TESTS = Path(__file__).parents[1]
ROUNDS = int(os.environ.get("RIS_FAULTS", "1"))
SEED = int(os.environ.get("RIS_FAULTS_SEED", "0"))
# The stand-ins know one project each: this is the number of the annotated one.
ANNOTATED = PROJECT + 1
# Tasks of a batch; passes of a training, and seconds that each of a job's steps takes longer: time to be broken in.
TASKS, PASSES, PAUSE = 24, 6, 0.06
# Seconds after which an answer of Label Studio is given up.
STUDIO_TIMEOUT = 2.0


@dataclass
class Desk:
    """Label Studio with two projects: one whose tasks want predictions, and one that is annotated.

    failure: answers in its place, where it wants to. failures: how often it did.
    """

    shelf: Shelf
    studio: Studio
    failure: Callable[[Asked], Answer | None] = lambda asked: None
    failures: int = 0
    changes: int = 0

    def __call__(self, asked: Asked) -> Answer:
        if failed := self.failure(asked):
            self.failures += 1
            return failed
        if asked.path.startswith("/data/upload/"):
            return self.studio(asked)
        if _project(asked) == ANNOTATED:
            return self.studio(_renumbered(asked))
        return self.shelf(asked)

    def annotate(self, number: int, sentence: str) -> None:
        """Submit another annotation in place of a task's last one."""
        task = next(task for task in self.studio.tasks if task["id"] == number)
        mask = pictures()[number - 1][1]
        self.changes += 1
        changed = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.changes)
        region = drawn("a", mask, "cat", sentence)
        task["annotations"] = [annotation(number, region, updated_at=changed.isoformat())]

    def said(self) -> list[str]:
        """The sentences of all annotations, by task."""
        regions = (region for task in self.studio.tasks for row in task["annotations"] for region in row["result"])
        return [region["meta"]["text"][0].removeprefix("prompt: ") for region in regions]


def _project(asked: Asked) -> int | None:
    named = re.match(r"/api/projects/(\d+)/", asked.path)
    if named:
        return int(named[1])
    [project] = parse_qs(urlsplit(asked.target).query).get("project", [None])
    return int(project) if project else None


def _renumbered(asked: Asked) -> Asked:
    target = asked.target.replace(f"/api/projects/{ANNOTATED}/", f"/api/projects/{PROJECT}/")
    return replace(asked, target=target.replace(f"project={ANNOTATED}", f"project={PROJECT}"))


@dataclass(frozen=True)
class Damage:
    """What a fault cost: things that are missing afterwards, and things that are there more than once."""

    lost: int
    doubled: int


Tally = Callable[[str, str, Damage], None]
"""Notes what a round cost: of which fault, in which work."""


@dataclass
class Installation:
    """A home folder, and those who work on it."""

    home: Path
    cast: Cast
    desk: Desk
    site: Site
    luck: random.Random = field(default_factory=lambda: random.Random(SEED))

    def __post_init__(self) -> None:
        self.connection = connect(os.environ["RIS_REDIS_URL"])
        self.jobs = JobQueue(self.connection)
        self.batches = BatchService(self.connection, self.jobs)
        self.registry = Registry(models_folder(self.home))

    @property
    def log(self) -> str:
        """What all processes said so far."""
        return self.cast.log.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait, keeping everybody alive."""
        until(self.cast, condition)

    def ris(self, *arguments: str) -> str:
        """What a command prints on a wide terminal."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ris")), *arguments],
            env={**os.environ, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout


@contextmanager
def installed(folder: Path, home: Path | None = None, **settings: object) -> Iterator[Installation]:
    """An installation that runs. home: its folder, if not one in `folder`, where Valkey keeps its data in any case."""
    weights, home = random_checkpoint(folder / "weights"), home or folder / "home"
    home.mkdir()
    (folder / "valkey").mkdir()
    valkey_folder(home).symlink_to(folder / "valkey")
    desk = Desk(Shelf(folder / "shelf.db"), annotated_studio())
    # So that there is a moment before a request's work, and one between that and its answer.
    desk.shelf.before = desk.shelf.after = lambda: time.sleep(0.05)
    python, worker = sys.executable, TESTS / "backend" / "jobs" / "worker_under_test.py"
    commands = {
        "valkey": [python, "-m", "backend.local.valkey", "--bind", "127.0.0.1"],
        "worker": [python, str(worker), "--stay"],
    }
    with serve(desk) as site, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        for name, value in _environment(folder, home, site.url, settings).items():
            patch.setenv(name, value)
        patch.setattr(checkpoint_files, "shipped", lambda: weights)
        patch.setattr(GuardedJob, "signer", None)
        # A small batch has as many moments as a big one.
        patch.setattr(store, "chunk_size", lambda tasks: 4)
        sign_jobs(load())
        with playing(commands, folder / "log") as cast:
            installation = Installation(home, cast, desk, site)
            cast.tend()
            installation.until(lambda: installation.jobs.workers()["training"] == 1)
            yield installation


def _environment(folder: Path, home: Path, url: str, settings: dict[str, object]) -> dict[str, str]:
    knobs = {
        "home": home,
        "redis_url": f"redis://:secret-of-valkey@127.0.0.1:{free_port()}/0",
        "webhook_secret": "hook-secret",
        "password": "backend-pass",
        "label_studio_url": url,
        # Nothing about it would be a reason to refuse it.
        "label_studio_token": json_web_token(expires=time.time() + 7 * 86400),
        "finetune_min_validation": 4,
        # What is learnt and predicted is what a test orders.
        "finetune_min_new": 1000,
        "finetune_least_new": 1000,
        "prelabel_refresh": False,
        # However busy the machine is, there is time for all passes.
        "finetune_seconds": 21600,
        **settings,
    }
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in knobs.items()} | {
        "WEIGHTS": str(folder / "weights"),
        "MEMORY": str(folder / "memory"),
        "PASSES": str(PASSES),
        "PAUSE": str(PAUSE),
        "STUDIO_TIMEOUT": str(STUDIO_TIMEOUT),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS / "backend"))),
    }


class Work(ABC):
    """Something that takes a while, again and again: ordered, watched, and looked through once it has ended."""

    name: str

    def __init__(self, installation: Installation) -> None:
        self.at = installation

    @abstractmethod
    def order(self) -> None:
        """Have it done, with something in it that wasn't there the last time."""

    @abstractmethod
    def is_under_way(self) -> bool:
        """Whether some of it is done."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether it came to an end, good or bad."""

    @abstractmethod
    def has_succeeded(self) -> bool:
        """Whether it came to a good end."""

    @abstractmethod
    def damage(self) -> Damage:
        """What is missing and what is double, once it has ended well; fails where something is half."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What a person reads of it."""

    def begin(self) -> None:
        """Order it, and wait until it is at a random moment in its middle."""
        while True:
            self.order()
            self.at.until(lambda: self.is_under_way() or self.has_ended())
            time.sleep(self.at.luck.uniform(0, 1))
            if not self.has_ended():
                return

    def finish(self) -> Damage:
        """Wait for its good end, and look."""
        self.at.until(self.has_ended)
        assert self.has_succeeded(), (self.sentence, self.at.log[-8000:])
        return self.damage()


class PreLabelling(Work):
    """A batch of new tasks."""

    name = "pre-labelling"

    def order(self, spoilt: Sequence[int] = ()) -> None:
        """Add tasks, and have them predicted. spoilt: which one's image is corrupt, and which one's is missing."""
        tasks = data(TASKS)
        for number, image in zip(spoilt, ("data:image/png;base64,AAAA", "/data/upload/1/gone.png"), strict=False):
            tasks[number]["image"] = image
        self.at.desk.shelf.fill(tasks)
        [(last,)] = self.at.desk.shelf.rows("SELECT MAX(id) FROM task")
        self.tasks = range(last - TASKS + 1, last + 1)
        self.batch = self.submit()

    def submit(self) -> str:
        """A batch of the tasks."""
        answered = services.project_models(load()).of_interface(PROJECT, XML)
        return self.at.batches.submit(BatchSpec(PROJECT, answered.version.name, answered.name), self.tasks).id

    @property
    def state(self) -> Batch:
        return self.at.batches.get(self.batch, reasons=True)

    def is_under_way(self) -> bool:
        return self.state.handled > 0

    def has_ended(self) -> bool:
        return self.state.state in ("done", "cancelled")

    def has_succeeded(self) -> bool:
        return self.state.state == "done"

    def damage(self) -> Damage:
        counts = self.at.desk.shelf.counts(self.state.spec.version)[self.tasks[0] - 1 :]
        failed = self.state.failed
        assert self.state.handled == TASKS
        assert self.at.connection.zcard(f"ris:batch:{self.batch}:leases") == 0
        return Damage(counts.count(0) - failed, sum(max(0, count - 1) for count in counts))

    @property
    def sentence(self) -> str:
        return self.state.note


class JobWork(Work):
    """A job with progress."""

    job: str

    @property
    def state(self) -> dict[str, Any]:
        return self.at.jobs.describe(self.job)

    @property
    def stage(self) -> str:
        """How far it is, while it runs."""
        state = self.state
        return state["progress"]["stage"] if state["status"] == "started" and state["progress"] else ""

    def is_under_way(self) -> bool:
        return bool(self.stage)

    def has_ended(self) -> bool:
        return self.state["status"] in ("finished", "failed")

    def has_succeeded(self) -> bool:
        return bool(self.state["status"] == "finished")

    @property
    def sentence(self) -> str:
        return (self.state["error"] or {}).get("message", "")

    def say_something_new(self) -> None:
        """Annotate a task anew."""
        self.at.desk.annotate(1, f"the bright square {self.at.luck.getrandbits(32):08x}")


class Training(JobWork):
    """Learning from what is annotated."""

    name = "training"

    def order(self) -> None:
        """Annotate something, and have it learnt."""
        self.say_something_new()
        self.before = self.versions()
        self.job = self.at.jobs.learn(ANNOTATED, min_new=0).job

    def versions(self) -> list[str]:
        return [version.name for version in self.at.registry.versions(ANNOTATED)]

    def damage(self) -> Damage:
        added = self.versions()[len(self.before) :]
        result = self.state["result"]
        snapshot = snapshots_folder(self.at.home, ANNOTATED) / result["snapshot"]
        verify(snapshot)
        learnt = Counter(sample.sentence for sample in read_folder(snapshot))
        said = Counter(self.at.desk.said())
        assert self.versions()[: len(self.before)] == self.before
        assert added == [result["version"]]
        checkpoint_files.check_weights(self.at.registry.version(ANNOTATED, result["version"]).folder)
        served = result["version"] if result["decision"] == "promoted" else result["base"]
        assert self.at.registry.current(ANNOTATED).name == served
        assert not hidden(models_folder(self.at.home)) | hidden(snapshots_folder(self.at.home, ANNOTATED))
        assert not list(learning_folder(self.at.home, ANNOTATED).iterdir())
        return Damage((said - learnt).total(), (learnt - said).total() + len(added) - 1)


class Export(JobWork):
    """An export over the one before."""

    name = "export"

    def order(self) -> None:
        """Annotate something, and have it exported."""
        self.say_something_new()
        self.job = self.at.jobs.export(ANNOTATED, "mine", {"report": False}).job

    @property
    def out(self) -> Path:
        return exports_folder(self.at.home) / "mine"

    def damage(self) -> Damage:
        verify(self.out)
        exported = Counter(sample.sentence for sample in read_folder(self.out))
        said = Counter(self.at.desk.said())
        assert not hidden(self.out.parent)
        return Damage((said - exported).total(), (exported - said).total())


WORKS: dict[str, type[Work]] = {work.name: work for work in (PreLabelling, Training, Export)}


def hidden(folder: Path) -> set[Path]:
    """Folders below one that were never finished."""
    return {path for path in folder.rglob(".*") if path.is_dir()}
