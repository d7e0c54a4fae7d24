"""`make bench-million`: what a project of a million tasks would take, measured where that is quick; 15 minutes.

queue      measured whole: a batch of a million tasks in a real Valkey with the settings of `ris up`. Memory is that of
           Valkey (used_memory) beyond what it held before; a turn is a claim and a hand-in of a chunk, by one runner
           that does nothing else; Valkey is then killed, and reads its log on disk until it answers.
studio     measured on a real Label Studio on SQLite with up to 8,000 tasks and reckoned beyond that by a straight line
           through the sizes: a listing of all ids, the request that looks for what webhooks lost, tasks of a chunk
           read as a runner reads them, and the import of 64 predictions, whose masks are those of the sample photos.
           Seconds are those of the processor that Label Studio took (the mean of ten), so that others on the machine
           count for little.
records    what an export keeps of each region between two exports, and what a snapshot takes besides its pictures, in
           bytes; of the same masks.
model      images a second of one worker as benchmarks/results/load.json has them, for a million.

ONLY=queue,records runs some parts; TASKS= is the size of the batch, QUICK=1 takes a hundredth of all. Appended to
benchmarks/results/million.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from record import record, results
from redis import Redis
from redis.exceptions import RedisError
from studio import Studio, running_studio

from backend.batches.store import CLOSING, BatchSpec, BatchStore, chunk_size
from backend.datasets.annotations import read_corrections
from backend.datasets.records import open_records
from backend.datasets.snapshots import build_snapshot
from backend.home import valkey_folder
from backend.labelstudio.client import IMPORT_TIMEOUT, LONG_PAGE, SHORT_PAGE, LabelStudio
from backend.labelstudio.label_config import Defaults, parse
from backend.labelstudio.regions import mask_regions
from backend.local.services import LABEL_STUDIO, VALKEY
from backend.local.up import listen_to_signals
from backend.projects import connect, samples

ROOT = Path(__file__).parents[1]
# Builders of what the API answers, as the tests have them.
sys.path.append(str(ROOT / "tests" / "backend"))

from annotated import CONFIG, XML, annotation, drawn, task  # noqa: E402

Figures = dict[str, float]

MILLION = 1_000_000
QUICK = bool(os.environ.get("QUICK"))
TASKS = int(os.environ.get("TASKS") or (10_000 if QUICK else MILLION))
SIZES = (20, 40, 80) if QUICK else (1000, 2000, 4000, 8000)
RECORDS, CORRECTIONS = (20, 10) if QUICK else (2000, 400)
REPEATS, STORED = 10, 64
PATIENCE = IMPORT_TIMEOUT.read or 0.0
PROJECT, VERSION = 1, "lda-00000000"
DAY = 86400


def queue(studio: Studio) -> Figures:
    redis = Redis.from_url(studio.settings.secret("redis_url"))
    batches, before = BatchStore(redis), _memory(redis)
    started = time.perf_counter()
    batch = batches.create(BatchSpec(PROJECT, VERSION, VERSION), range(1, TASKS + 1)).id
    figures = {
        "tasks of the batch": TASKS,
        "making the batch, s": _since(started),
        "Valkey's memory for it, MB": round((_memory(redis) - before) / 2**20, 1),
        "Valkey's memory, bytes a task": round((_memory(redis) - before) / TASKS, 1),
        "its log on disk, MB": round(_size(valkey_folder(studio.home)) / 2**20, 1),
        "Valkey back after it was killed, s": restarted(studio, redis),
    }
    turns = list(work_off(batches, batch))
    share = max(1, len(turns) // 20)
    listed = time.perf_counter()
    assert sum(1 for _ in batches.tasks(batch)) == TASKS
    return figures | {
        "a turn at its start, ms": round(1000 * median(turns[:share]), 2),
        "a turn at its end, ms": round(1000 * median(turns[-share:]), 2),
        "all turns, s": round(sum(turns)),
        "looking through its ids at the end, s": _since(listed),
    }


def work_off(batches: BatchStore, batch: str) -> Iterator[float]:
    """Claim and hand in all chunks -> seconds that each took."""
    while True:
        started = time.perf_counter()
        chunk = batches.claim(batch, "benchmark")
        if chunk is None or chunk.name == CLOSING:
            return
        batches.finish(batch, "benchmark", chunk.name, done=len(chunk.tasks))
        yield time.perf_counter() - started


def restarted(studio: Studio, redis: Redis) -> float:
    """Kill Valkey -> seconds from its next start until it answers."""
    killed = studio.supervisor.pid(VALKEY)
    os.kill(killed, signal.SIGKILL)
    while studio.supervisor.pid(VALKEY) == killed:
        studio.supervisor.tend()
        time.sleep(0.01)
    started = time.perf_counter()
    while True:
        with suppress(RedisError):
            redis.ping()
            return _since(started)
        time.sleep(0.05)


@dataclass(frozen=True)
class Timed:
    """Seconds of the processor that Label Studio takes in a project of so many tasks."""

    tasks: int
    adding: float
    listing: float
    probing: float
    reading: float
    writing: float


def studio(studio: Studio) -> Figures:
    meter = Meter(psutil.Process(studio.supervisor.pid(LABEL_STUDIO)))
    with studio.client() as client:
        project = int(client.create_project("Million", connect.LABEL_CONFIG)["id"])
        timed = [measured(client, meter, project, size) for size in SIZES]
    sizes = [each.tasks for each in timed]

    def at_a_million(name: str) -> float:
        slope, start = np.polyfit(sizes, [getattr(each, name) for each in timed], 1)
        return float(start + max(0.0, slope) * MILLION)

    figures: Figures = {"1,000 tasks added, s": round(timed[-1].adding, 2)}
    for each in timed:
        figures |= {
            f"of {each.tasks:,} tasks: all ids listed, s": round(each.listing, 2),
            f"of {each.tasks:,} tasks: a look for lost events, s": round(each.probing, 3),
            f"of {each.tasks:,} tasks: {SHORT_PAGE} tasks read, s": round(each.reading, 3),
            f"of {each.tasks:,} tasks: {STORED} predictions stored, s": round(each.writing, 2),
        }
    chunk, storing, reading = chunk_size(MILLION), at_a_million("writing"), at_a_million("reading")
    return figures | {
        "a million: requests to list all ids": MILLION // LONG_PAGE,
        "a million: ids listed, reckoned, minutes": round(at_a_million("listing") / 60, 1),
        "a million: a look for lost events, reckoned, s": round(at_a_million("probing"), 2),
        f"a million: {SHORT_PAGE} tasks read, reckoned, s": round(reading, 2),
        "a million: a chunk stored, reckoned, s": round(storing),
        f"a million: stored in chunks of {chunk}, reckoned, days": round(MILLION / chunk * storing / DAY, 1),
        f"tasks at which that takes {PATIENCE:.0f} s, reckoned": round(tasks_within(timed, PATIENCE), -3),
    }


def tasks_within(timed: Sequence[Timed], seconds: float) -> int:
    """The size of a project whose chunks take so long."""
    slope, start = np.polyfit([each.tasks for each in timed], [each.writing for each in timed], 1)
    return int((seconds - start) / slope)


class Meter:
    """What a process takes of the processor."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def seconds(self, call: Callable[[], object], repeats: int = 1) -> float:
        """Seconds of the processor that it takes while `call` runs, in the mean."""
        before = self._spent()
        for _ in range(repeats):
            call()
        return (self._spent() - before) / repeats

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def measured(client: LabelStudio, meter: Meter, project: int, size: int) -> Timed:
    """Fill the project up to that size, and ask what a batch asks."""
    known = len(list(client.task_ids(project)))
    new = [{"image": "https://example.com/a.jpg"}] * min(LONG_PAGE, size - known)
    adding = meter.seconds(lambda: client.import_tasks(project, new), (size - known) // len(new))
    ids: list[int] = []
    listing = meter.seconds(lambda: ids.extend(client.task_ids(project)))
    assert len(ids) == size
    bodies, places = predictions(), iter(cycle(ids[known:]))

    def store() -> None:
        assert client.import_predictions(project, [next(bodies) % next(places) for _ in range(STORED)]) == STORED

    return Timed(
        size,
        adding * 1000 / len(new),
        listing,
        meter.seconds(lambda: client.newest_task(project), REPEATS),
        meter.seconds(lambda: list(client.tasks_of(project, ids[-SHORT_PAGE:])), REPEATS),
        meter.seconds(store, REPEATS),
    )


def predictions() -> Iterator[bytes]:
    """Predictions of the sample photos' masks for ever; % puts in the number of the task."""
    config, made = parse(connect.LABEL_CONFIG), []
    for mask in samples.corrections():
        result = mask_regions(config, config.label(mask.label), mask.mask(), 0.9, mask.prompts[0])
        body = json.dumps({"result": result, "score": 0.9, "model_version": VERSION}).replace("%", "%%")
        made.append(b'{"task": %d, ' + body[1:].encode())
    yield from cycle(made)


def records(studio: Studio) -> Figures:
    tasks = list(islice(annotated_tasks(), RECORDS))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with open_records(home, PROJECT) as kept:
            started = time.perf_counter()
            kept.update(Disk(tasks), PROJECT, XML, Defaults())  # type: ignore[arg-type]
            reading = time.perf_counter() - started
        size = _size(home)
    return {
        "tasks with a region": RECORDS,
        "kept of a region for exports, bytes": round(size / RECORDS),
        "1,000 regions read, s": round(1000 * reading / RECORDS, 2),
        "a million: kept for exports, reckoned, GB": round(size / RECORDS * MILLION / 2**30, 2),
        **snapshot(tasks[:CORRECTIONS]),
    }


def snapshot(tasks: Sequence[dict[str, Any]]) -> Figures:
    pictures = dict(samples.photos())
    [shown] = [next(iter(pictures.values()))]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = build_snapshot(PROJECT, read_corrections(tasks, CONFIG), CONFIG, lambda _: shown, Path(folder))
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in made.folder.glob("*.json"))
    return {
        "corrections of a snapshot": len(tasks),
        "a snapshot besides its pictures, bytes a correction": round(size / len(tasks)),
        "a million: such a snapshot, reckoned, GB": round(size / len(tasks) * MILLION / 2**30, 2),
        "a snapshot, ms a correction": round(1000 * seconds / len(tasks), 1),
    }


class Disk:
    """As much of Label Studio's API as reading annotations takes."""

    def __init__(self, tasks: Sequence[dict[str, Any]]) -> None:
        self._tasks = tasks

    def annotation_versions(self, _project: int) -> Iterator[dict[str, Any]]:
        return iter(self._tasks)

    def annotations_of(self, _project: int, _ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        return iter(self._tasks)


def annotated_tasks() -> Iterator[dict[str, Any]]:
    """Tasks with one of the sample photos' masks each, for ever."""
    first = next(iter(samples.corrections())).photo
    masks = [mask for mask in samples.corrections() if mask.photo == first]
    for number, mask in zip(count(1), cycle(masks), strict=False):
        region = drawn("r", mask.mask(), "cat", mask.prompts[0])
        yield task(number, annotation(number, region), image=f"https://example.com/{number}.jpg")


def model(_studio: Studio) -> Figures:
    whole = [entry for entry in results("load") if entry["part"] == "batch" and not entry["quick"]]
    rate = whole[-1]["figures"]["images a second, written to Label Studio"]
    return {
        "images a second of one worker": rate,
        "a million: worker's time, reckoned, days": round(MILLION / rate / DAY, 1),
    }


PARTS: dict[str, Callable[[Studio], Figures]] = {"queue": queue, "studio": studio, "records": records, "model": model}


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 2)


def _memory(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])  # type: ignore[index]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    chosen = [part for part in os.environ.get("ONLY", "").split(",") if part] or list(PARTS)
    if unknown := [part for part in chosen if part not in PARTS]:
        raise SystemExit(f"There is no part {', '.join(unknown)}. Choose from {', '.join(PARTS)}.")
    listen_to_signals()
    with tempfile.TemporaryDirectory() as folder, running_studio(Path(folder)) as running:
        # The death of Valkey is wanted.
        running.supervisor.say = lambda text: None
        for part in chosen:
            record("million", PARTS[part](running), part=part, quick=QUICK)


if __name__ == "__main__":
    main()
