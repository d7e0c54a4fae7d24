"""`make bench-kills`: a batch of 10,000 tasks while everything is killed 20 times; a quarter of an hour on two cores.

A real Label Studio, Valkey, the backend and two workers run as `ris up` runs them, and a supervisor starts again what
dies. Each of these is killed in turn, in random order, at moments that are spread over the batch; the last one falls
into the closing, which looks through all tasks again:

worker        a worker, by SIGKILL; its job dies with it.
job           the process in which a worker's job runs, by SIGKILL.
valkey        the queue and the batch, by SIGKILL; what it does not have on disk, a second's writes at most, is lost.
backend       the web server, by SIGKILL.
label-studio  by SIGKILL, in mid-import perhaps.
stall         Label Studio is halted (SIGSTOP) for 5 to 35 s, longer than a chunk stays out of reach when its runner
              dies, and goes on.

Photos are answered by the shipped weights at 64 pixels, whose masks mean little: what is measured is that each task
ends with one prediction. How many it has is counted in Label Studio's own database, past its API and our client.

TASKS=10000 and KILLS=20 are the full size, QUICK=1 takes 320 and 6; KILL_SEED=1 makes other moments. Ends with status 1
if a task was lost or doubled. The result is appended to benchmarks/results/kills.json.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path

import psutil
import torch
from load import new_project, read_small, spec_for
from record import keep, machine
from rich.console import Console
from rich.table import Table
from studio import Studio, make_photos, running_studio

from backend import services
from backend.batches.service import BatchService
from backend.batches.store import Batch
from backend.errors import Unavailable
from backend.home import label_studio_folder
from backend.local.services import BACKEND, LABEL_STUDIO, VALKEY, WORKER
from backend.local.up import listen_to_signals
from backend.projects import connect
from backend.terminal import bar

QUICK = bool(os.environ.get("QUICK"))
TASKS = int(os.environ.get("TASKS") or (320 if QUICK else 10_000))
KILLS = int(os.environ.get("KILLS") or (6 if QUICK else 20))
SEED = int(os.environ.get("KILL_SEED") or 0)
SIDE, PHOTOS = 64, 1000
WORKERS = (WORKER, f"{WORKER}-1")
STALL_SECONDS = (5.0, 35.0)
_PATIENCE = 600
_POLL = 0.1


@dataclass(frozen=True)
class Kill:
    """What was killed. at: seconds into the batch; before, after: tasks handled then and once it went on again, which
    took so many seconds."""

    what: str
    at: float
    before: int
    after: int
    seconds: float


@dataclass
class Trial:
    """A batch that runs. began: by the clock of time.monotonic."""

    studio: Studio
    batches: BatchService
    name: str
    show: Callable[..., None]
    began: float = field(default_factory=time.monotonic)
    luck: random.Random = field(default_factory=lambda: random.Random(SEED))

    def state(self) -> Batch:
        """The batch as it stands. Raises Unavailable while Valkey is away."""
        batch = self.batches.get(self.name, reasons=False)
        self.show(batch.handled)
        return batch

    def until(self, condition: Callable[[Batch], bool], what: str) -> Batch:
        """Wait, keeping everybody alive."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            self.studio.supervisor.tend()
            with suppress(Unavailable):
                batch = self.state()
                if batch.state == "cancelled":
                    raise SystemExit(f"The batch was cancelled: {batch.note}")
                if condition(batch):
                    return batch
            time.sleep(_POLL)
        raise SystemExit(f"Waited {_PATIENCE} s for {what}. Logs: {self.studio.supervisor.logs}")

    def idle(self, seconds: float) -> None:
        """Let time pass, keeping everybody alive."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.studio.supervisor.tend()
            time.sleep(_POLL)

    def pid(self, name: str) -> int:
        return self.studio.supervisor.pid(name)


def kill_worker(trial: Trial) -> None:
    os.kill(trial.pid(trial.luck.choice(WORKERS)), signal.SIGKILL)


def kill_job(trial: Trial) -> None:
    jobs = [job for name in WORKERS for job in psutil.Process(trial.pid(name)).children()]
    if not jobs:
        raise ProcessLookupError
    trial.luck.choice(jobs).kill()


def kill_valkey(trial: Trial) -> None:
    os.kill(trial.pid(VALKEY), signal.SIGKILL)


def kill_backend(trial: Trial) -> None:
    os.kill(trial.pid(BACKEND), signal.SIGKILL)


def kill_label_studio(trial: Trial) -> None:
    os.killpg(trial.pid(LABEL_STUDIO), signal.SIGKILL)


def stall_label_studio(trial: Trial) -> None:
    group = trial.pid(LABEL_STUDIO)
    os.killpg(group, signal.SIGSTOP)
    try:
        trial.idle(trial.luck.uniform(*STALL_SECONDS))
    finally:
        os.killpg(group, signal.SIGCONT)


VICTIMS: dict[str, Callable[[Trial], None]] = {
    "worker": kill_worker,
    "job": kill_job,
    "valkey": kill_valkey,
    "backend": kill_backend,
    "label-studio": kill_label_studio,
    "stall": stall_label_studio,
}


def victims(luck: random.Random) -> Iterator[str]:
    """Names of VICTIMS, in rounds that have each once; the last one kills who works on the closing."""
    names: list[str] = []
    while len(names) < KILLS - 1:
        names += luck.sample(sorted(VICTIMS), len(VICTIMS))
    yield from names[: KILLS - 1]
    yield "job"


def kill(trial: Trial, what: str, threshold: int) -> Kill | None:
    """Wait until so many tasks are handled, kill, and wait until the batch goes on. None: it came to its end before."""
    trial.until(lambda batch: batch.handled >= threshold, f"task {threshold} of the batch")
    while True:
        trial.idle(trial.luck.uniform(0, 1))
        with suppress(Unavailable, ProcessLookupError, psutil.NoSuchProcess):
            before, at = trial.state(), time.monotonic()
            if before.state == "done":
                return None
            VICTIMS[what](trial)
            break
    # One task more, or the end: the handing-in may have come before the kill.
    later = trial.until(lambda batch: batch.handled > before.handled or batch.state == "done", f"life after {what}")
    spent = time.monotonic() - at
    return Kill(what, round(at - trial.began, 1), before.handled, later.handled, round(spent, 1))


def run(studio: Studio, photos: Path) -> tuple[list[Kill], Batch, float, list[int]]:
    """The batch from its start to its end -> kills, how it ended, seconds, predictions of each task."""
    made = make_photos(photos, min(PHOTOS, TASKS))
    project, tasks = new_project(studio, "Kills", list(islice(cycle(made), TASKS)))
    read_small(studio.settings, project, SIDE)
    spec = spec_for(studio.settings, project, connect.LABEL_CONFIG)
    batches = services.batch_service(studio.settings)
    with studio.workers(more=len(WORKERS) - 1), bar("tasks", TASKS) as show:
        trial = Trial(studio, batches, batches.submit(spec, tasks).id, show)
        planned = enumerate(victims(trial.luck), start=1)
        kills = [done for number, what in planned if (done := kill(trial, what, TASKS * number // KILLS or 1))]
        ended = trial.until(lambda batch: batch.state == "done", "the end of the batch")
        seconds = time.monotonic() - trial.began
    return kills, ended, seconds, predictions(studio, project, spec.version)


def predictions(studio: Studio, project: int, version: str) -> list[int]:
    """How many of a version each task has, as Label Studio's database says."""
    file = label_studio_folder(studio.home) / "label_studio.sqlite3"
    query = (
        "SELECT COUNT(prediction.id) FROM task LEFT JOIN prediction "
        "ON prediction.task_id = task.id AND prediction.model_version = ? WHERE task.project_id = ? GROUP BY task.id"
    )
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        return [int(count) for (count,) in database.execute(query, (version, project))]


def tell(kills: list[Kill], figures: dict[str, float]) -> None:
    console = Console()
    table = Table("killed", "at, s", "done before", "done after", "went on after, s", title=f"kills: {machine()}")
    for one in kills:
        table.add_row(one.what, str(one.at), str(one.before), str(one.after), str(one.seconds))
    console.print(table)
    for name, value in figures.items():
        console.print(f"{name}: {value:,}")
    console.print(
        f"The shipped weights read photos at {SIDE} pixels here: speed and masks are no figures of the model."
    )


def main() -> None:
    torch.set_num_threads(1)
    listen_to_signals()
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        # The promotion of the small model would start a batch of its own.
        knobs = {"prelabel_remember": False, "prelabel_refresh": False, "local_files_root": photos}
        with running_studio(Path(folder), **knobs) as studio:
            # Deaths are what is wanted here.
            studio.supervisor.say = lambda text: None
            kills, ended, seconds, counts = run(studio, photos)
    figures: dict[str, float] = {
        "tasks": TASKS,
        "kills": len(kills),
        "done": ended.done,
        "written, but handed in by nobody": ended.skipped,
        "failed": ended.failed,
        "lost": sum(count == 0 for count in counts),
        "doubled": sum(count > 1 for count in counts),
        "seconds": round(seconds),
        "longest until it went on, s": max((one.seconds for one in kills), default=0),
    }
    tell(kills, figures)
    keep("kills", figures, quick=QUICK, seed=SEED, side=SIDE, kills=[asdict(one) for one in kills])
    if len(counts) != TASKS or figures["lost"] or figures["doubled"] or ended.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
