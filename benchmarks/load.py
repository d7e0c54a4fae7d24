"""`make bench-load`: the whole studio under load, with a real Label Studio and the shipped model; 25 minutes.

Everything runs on the machine that measures: Label Studio, Valkey, the backend, workers, and the client whose waiting
is what is measured. 1,000 photos of 640 pixels at the longer side are made of the sample photos (`make_photos`).

interactive  milliseconds from a request to the backend's /predict, with what somebody typed, to the answer: a new
             sentence on a photo that was asked before, and on a new one; through Label Studio's interactive-annotating;
             all of them alone, and with a batch running.
doors        /health, /setup and webhooks, a connection each, in turn, while a batch and a fine-tuning run.
batch        a runner as a worker's job runs it, alone with Label Studio. In the model: between begin and end of each
             call of RISModel.encode_levels, of the design's read_levels and forward, and of the text encoder's; the
             rest is waiting for images (Reader.next) and making regions of masks. Loading the model counts as the
             worker's time.
workers      tasks a second of one and of two runners of one torch thread each, Label Studio replaced by the stand-in of
             the tests, whose time counts; the model is loaded before the clock starts. Forward passes an image say how
             much of a loss is the processor's.
memory       resident memory of the backend over 10,000 predictions asked of it over HTTP: in turn a request of eight
             tasks with four sentences each, and eight as the editor sends them; each task another photo, each sentence
             a new one. The shipped weights read photos at 192 pixels there, to be done in minutes: what could leak
             (requests, fetching, decoding, caches, masks, regions) is the same.

ONLY=batch,workers runs some parts, QUICK=1 a short version. Appended to benchmarks/results/load.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from record import record
from studio import Door, Photo, Studio, annotate_samples, make_photos, running_studio, typed

from backend import services
from backend.batches.store import BatchSpec, BatchStore
from backend.local.up import listen_to_signals
from backend.projects import connect
from backend.queue.queue import JobQueue
from backend.queue.queue import connect as connect_queue
from backend.settings import Settings, load
from ris_core import checkpoint, checkpoint_files
from ris_core.errors import RisError

Figures = dict[str, float]


class Failed(Exception):
    """What was to be measured didn't happen."""


ROOT = Path(__file__).parents[1]
QUICK = bool(os.environ.get("QUICK"))
TASKS, STAND_IN_TASKS = (64, 32) if QUICK else (1000, 320)
ASKED, DOORS = (5, 30) if QUICK else (40, 500)
EARLY, LATE = (40, 160) if QUICK else (1000, 10_000)
# Eight tasks of four sentences, then eight sentences one by one.
ROUND, SENTENCES = 8, 4
SMALL_SIDE = 192
CORES = torch.get_num_threads()
TRAINING_SECONDS = 600
_WAIT = 300

AIMS = {
    "in the model, share of the worker's time": "at least 0.9",
    "two workers against one": "at least 1.8",
    "two workers against one, were forward passes as fast": "at least 1.8",
    "memory, last against first": "at most 1.05",
    "/health, p99 ms": "under 50",
    "/setup, p99 ms": "under 50",
    "webhook, p99 ms": "under 100",
}


def interactive(studio: Studio, photos: Sequence[Photo]) -> Figures:
    project, tasks = new_project(studio, "Interactive", photos)
    measure, half = partial(interactive_once, studio, project, tasks[0], photos[0], count()), len(photos) // 2
    figures = {f"{name}, alone": value for name, value in measure(photos[1:half]).items()}
    with batch_running(studio, "Beside the editor", photos):
        beside = measure(photos[half:])
    return figures | {f"{name}, beside a batch": value for name, value in beside.items()}


def interactive_once(
    studio: Studio, project: int, task: int, known: Photo, numbers: Iterator[int], new: Sequence[Photo]
) -> Figures:
    """`task` is that of the photo known."""
    door = Door(studio.settings)

    def ask(photo: Photo) -> float:
        return door.ask("/predict", predict_body(project, [photo.task()], f"{photo.prompts[0]} {next(numbers)}"))

    with studio.client() as client, httpx.Client(base_url=client.url, auth=client.auth, timeout=130) as editor:
        [backend] = (row["id"] for row in client.ml_backends(project))

        def through_label_studio() -> float:
            body = {"task": task, "context": typed(f"{known.prompts[0]} {next(numbers)}")}
            started = time.perf_counter()
            answer = editor.post(f"/api/ml/{backend}/interactive-annotating", json=body).json()
            assert "errors" not in answer, answer
            return time.perf_counter() - started

        ask(known)
        through_label_studio()
        return {
            **percentiles("known photo", [ask(known) for _ in range(ASKED)], 50, 95),
            **percentiles("new photo", [ask(photo) for photo in new[:ASKED]], 50, 95),
            **percentiles("through Label Studio", [through_label_studio() for _ in range(ASKED)], 50, 95),
        }


def doors(studio: Studio, photos: Sequence[Photo]) -> Figures:
    door = Door(studio.settings)
    with studio.client() as client:
        project = connected(studio, "Learning")
        annotate_samples(client, project)
        described, task = client.project(project), next(client.tasks(project))
    setup = {"project": f"{project}.1", "schema": connect.LABEL_CONFIG, "hostname": "", "access_token": ""}

    def event() -> dict[str, Any]:
        """The same annotation, changed again."""
        annotation = {**task["annotations"][0], "task": task["id"], "updated_at": datetime.now(UTC).isoformat()}
        return {"action": "ANNOTATION_UPDATED", "project": described, "annotation": annotation, "task": task}

    spent: dict[str, list[float]] = {"/health": [], "/setup": [], "webhook": []}
    with batch_running(studio, "Beside learning", photos), training(studio, project):
        for _ in range(DOORS):
            spent["/health"].append(door.ask("/health"))
            spent["/setup"].append(door.ask(f"/projects/{project}/setup", setup))
            spent["webhook"].append(door.ask(f"/projects/{project}/webhook", event()))
    return {name: value for each, times in spent.items() for name, value in percentiles(each, times, 50, 99).items()}


def batch(studio: Studio, photos: Sequence[Photo]) -> Figures:
    project, tasks = new_project(studio, "Batch", photos[:TASKS])
    settings = studio.settings
    # As many threads as the job of a batch takes.
    [worked] = work_on(settings, project, connect.LABEL_CONFIG, tasks, [max(1, CORES - 1)])
    total = worked["loading"] + worked["seconds"]
    return {
        "in the model, share of the worker's time": round(worked["model"] / total, 3),
        "in the model, share once it is loaded": round(worked["model"] / worked["seconds"], 3),
        "waiting for tasks and images, share": round(worked["waiting"] / worked["seconds"], 3),
        "images a second, written to Label Studio": round(len(tasks) / worked["seconds"], 2),
        "loading the model, s": round(worked["loading"], 1),
    }


def workers(studio: Studio, photos: Sequence[Photo]) -> Figures:
    sys.path.append(str(ROOT / "tests" / "backend"))
    from labelstudio.site import serve  # noqa: PLC0415
    from shelf import PROJECT, TOKEN, XML, Shelf  # noqa: PLC0415

    rates, forward = [], []
    for threads in ([1], [1, 1]):
        shelf = Shelf(studio.home / f"shelf-{len(threads)}.db")
        shelf.fill([photo.task() for photo in photos[:STAND_IN_TASKS]])
        with serve(shelf) as site, environment(RIS_LABEL_STUDIO_URL=site.url, RIS_LABEL_STUDIO_TOKEN=TOKEN):
            found = work_on(load(), PROJECT, XML, range(1, STAND_IN_TASKS + 1), threads)
        rates.append(STAND_IN_TASKS / max(each["seconds"] for each in found))
        forward.append(1000 * sum(each["model"] for each in found) / STAND_IN_TASKS)
    return {
        "one worker, images a second": round(rates[0], 2),
        "two workers, images a second": round(rates[1], 2),
        "two workers against one": round(rates[1] / rates[0], 2),
        "two workers against one, were forward passes as fast": round(at_equal_passes(rates, forward), 2),
        "one worker, forward passes an image, ms": round(forward[0]),
        "two workers, forward passes an image, ms": round(forward[1]),
    }


def at_equal_passes(rates: Sequence[float], forward: Sequence[float]) -> float:
    """Two workers against one, less what the processor does to the model when both run: what is ours.

    rates: images a second of one worker and of two; forward: milliseconds of forward passes an image, of each.
    """
    alone, beside = 1 / rates[0], 2 / rates[1]
    return 2 * alone / (beside - (forward[1] - forward[0]) / 1000)


def memory(studio: Studio, photos: Sequence[Photo]) -> Figures:
    project, door = connected(studio, "Memory"), Door(studio.settings)
    read_small(studio.settings, project)
    numbers, pictures = count(), (photos[number % len(photos)] for number in count())
    figures, asked = {}, 0
    for checked in (EARLY, LATE // 4, LATE // 2, 3 * LATE // 4, LATE):
        while asked < checked:
            tasks = [prompted(photo, numbers) for photo in islice(pictures, ROUND)]
            door.ask("/predict", predict_body(project, tasks))
            for photo in islice(pictures, ROUND):
                door.ask("/predict", predict_body(project, [photo.task()], f"{photo.prompts[0]} {next(numbers)}"))
            asked += ROUND * SENTENCES + ROUND
        figures[f"memory after {checked:,} predictions, MB"] = round(studio.backend_memory())
    first, *_, last = figures.values()
    return figures | {"memory, last against first": round(last / first, 3)}


PARTS: dict[str, Callable[[Studio, Sequence[Photo]], Figures]] = {
    "interactive": interactive,
    "doors": doors,
    "batch": batch,
    "workers": workers,
    "memory": memory,
}


def predict_body(project: int, tasks: Sequence[Mapping[str, Any]], sentence: str | None = None) -> dict[str, Any]:
    """What Label Studio sends to /predict, from the editor if somebody typed a sentence."""
    params = {"context": typed(sentence)} if sentence else {}
    return {
        "tasks": [{"id": number, "data": data} for number, data in enumerate(tasks, 1)],
        "project": f"{project}.1",
        "label_config": connect.LABEL_CONFIG,
        "params": params,
    }


def prompted(photo: Photo, numbers: Iterator[int]) -> dict[str, Any]:
    labels = ("person", "cat", "cup", "sky")
    return {"image": photo.reference, "prompt": {label: f"the {label} {next(numbers)}" for label in labels[:SENTENCES]}}


def read_small(settings: Settings, project: int, side: int = SMALL_SIDE) -> None:
    """Promote a version of the shipped weights that reads photos at `side` pixels."""
    model, point = checkpoint.load(checkpoint_files.shipped())
    registry = services.registry(settings)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(model, replace(point, side=side), Path(folder) / "small", "# Reads fewer pixels\n")
        version = registry.add(project, Path(folder) / "small", {"origin": "benchmark"})
    registry.promote(project, version.name)


def connected(studio: Studio, title: str) -> int:
    with studio.client() as client:
        return connect.connect_titled(client, title, connect.LABEL_CONFIG, studio.settings).project


def new_project(studio: Studio, title: str, photos: Sequence[Photo]) -> tuple[int, list[int]]:
    """A connected project with a task for each photo."""
    project = connected(studio, title)
    with studio.client() as client:
        tasks = []
        for start in range(0, len(photos), 200):
            tasks += client.import_tasks(project, [photo.task() for photo in photos[start : start + 200]])
    return project, tasks


@contextmanager
def batch_running(studio: Studio, title: str, photos: Sequence[Photo]) -> Iterator[None]:
    """Workers, and a batch over a project of that title that outlasts what is measured."""
    project, tasks = new_project(studio, title, photos)
    spec = spec_for(studio.settings, project, connect.LABEL_CONFIG)
    batches = services.batch_service(studio.settings)
    with studio.workers():
        name = batches.submit(spec, tasks).id
        until(lambda: batches.get(name).handled > 0, "the batch's first tasks")
        before = batches.get(name).handled
        yield
        if batches.get(name).state != "running":
            raise Failed("The batch ended before all was measured.")
        until(lambda: batches.get(name).handled > before, "more of the batch's tasks")
        batches.cancel(name)


@contextmanager
def training(studio: Studio, project: int) -> Iterator[None]:
    """A fine-tuning that outlasts what is measured."""
    jobs = JobQueue.from_settings(studio.settings)
    # The events of the annotations may have begun one already.
    jobs.learn(project, min_new=0)

    def trains() -> bool:
        learning = [job for job in jobs.recent() if job.get("function") == "learn" and job["arguments"] == [project]]
        return any(job["status"] == "started" and _stage(job) == "training" for job in learning)

    until(trains, "the fine-tuning")
    yield
    if not trains():
        raise Failed("The fine-tuning ended before all was measured.")


def _stage(job: Mapping[str, Any]) -> str:
    return str((job.get("progress") or {}).get("stage"))


def spec_for(settings: Settings, project: int, config: str) -> BatchSpec:
    project_models = services.project_models(settings)
    project_model = project_models.of_interface(project, config)
    return BatchSpec(project, project_model.version.name, project_model.name)


def work_on(
    settings: Settings, project: int, config: str, tasks: Sequence[int], threads: Sequence[int]
) -> list[dict[str, float]]:
    """A batch by runners in processes of their own, so many torch threads each."""
    command = [sys.executable, str(Path(__file__).with_name("load_runner.py"))]
    runners = [
        subprocess.Popen([*command, str(each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in threads
    ]
    for runner in runners:
        assert runner.stdout
        runner.stdout.readline()
    batches = BatchStore(connect_queue(settings.secret("redis_url"), patient=True))
    name = batches.create(spec_for(settings, project, config), tasks).id
    for runner in runners:
        assert runner.stdin
        runner.stdin.write(f"{name}\n")
        runner.stdin.flush()
    found = [json.loads(runner.communicate()[0]) for runner in runners]
    ended = batches.get(name)
    if (ended.state, ended.done) != ("done", len(tasks)):
        raise Failed(f"The batch is {ended.state} with {ended.done} of {len(tasks)} tasks. {ended.note}")
    return found


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _WAIT
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"Waited {_WAIT} s for {what}.")
        time.sleep(0.5)


def percentiles(name: str, seconds: Sequence[float], *which: int) -> Figures:
    return {f"{name}, p{each} ms": round(1000 * float(np.percentile(seconds, each)), 1) for each in which}


def main() -> None:
    chosen = [part for part in os.environ.get("ONLY", "").split(",") if part] or list(PARTS)
    if unknown := [part for part in chosen if part not in PARTS]:
        raise SystemExit(f"There is no part {', '.join(unknown)}. Choose from {', '.join(PARTS)}.")
    torch.set_num_threads(1)
    listen_to_signals()
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder) / "photos", TASKS)
        knobs = {"local_files_root": Path(folder) / "photos", "finetune_seconds": TRAINING_SECONDS}
        with running_studio(Path(folder), prelabel_remember=False, **knobs) as studio:
            done = [measured(part, studio, photos) for part in chosen]
    if not all(done):
        raise SystemExit(1)


def measured(part: str, studio: Studio, photos: Sequence[Photo]) -> bool:
    """Measure and record a part. One that fails says why, and the others go on."""
    started = time.monotonic()
    try:
        figures = PARTS[part](studio, photos)
    except (Failed, RisError, OSError):
        traceback.print_exc()
        return False
    figures[f"{part} took, s"] = round(time.monotonic() - started)
    record("load", figures, AIMS, part=part, quick=QUICK, version=checkpoint_files.version(checkpoint_files.shipped()))
    return True


if __name__ == "__main__":
    main()
