"""`ris export --to`: the job makes the export, the command publishes it, and no job ever holds where."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rich.console import Console
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from small_project import build, contents, export_snapshot

from backend import terminal
from backend.datasets.export import ExportSpec
from backend.queue.queue import JobQueue

Run = Callable[..., tuple[int, str, str]]
REPORT = {"images": 4, "annotations": 5, "refs": 4, "left_out": {}, "problems": {}, "listed": []}
SENTENCE = "4 images, 5 masks, 4 expressions in"


@pytest.fixture
def home(redis_url: str, tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    monkeypatch.setenv("RIS_WEBHOOK_SECRET", "hook-secret")
    monkeypatch.setenv("RIS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def worker(redis: Redis, home: Path) -> Callable[[], AbstractContextManager[dict[str, Any]]]:
    """While it is open, the next job writes an export where a worker does; then what it was given stands there."""
    snapshot = build(home)

    def work(seen: dict[str, Any]) -> None:
        while not (waiting := JobQueue(redis).recent()):
            time.sleep(0.02)
        seen.update(waiting[0])
        job = Job.fetch(waiting[0]["id"], redis, JSONSerializer)
        export_snapshot(snapshot, home / "exports" / waiting[0]["arguments"][1])
        Result.create(job, Result.Type.SUCCESSFUL, ttl=60, return_value=REPORT)
        job.set_status(JobStatus.FINISHED)

    @contextmanager
    def at_work() -> Iterator[dict[str, Any]]:
        seen: dict[str, Any] = {}
        thread = threading.Thread(target=work, args=(seen,))
        thread.start()
        yield seen
        thread.join()
        redis.flushall()

    return at_work


@pytest.mark.parametrize("name", ["there", "there.zip"])
def test_an_export_is_published(
    worker: Callable[..., AbstractContextManager[dict[str, Any]]], run_ris: Run, home: Path, tmp_path: Path, name: str
) -> None:
    with worker() as job:
        code, printed, _ = run_ris("export", "--project", "7", "--to", str(tmp_path / name))
    made = home / "exports" / "project-7-coco"
    assert code == 0
    assert printed.splitlines() == [f"{SENTENCE} {made}", f"Published to {tmp_path / name}"]
    assert job["arguments"] == [7, "project-7-coco", asdict(ExportSpec())]
    assert str(tmp_path) not in json.dumps(job)
    if name == "there":
        assert contents(tmp_path / name) == contents(made)
    with worker():
        _, printed, _ = run_ris("export", "--project", "7", "--to", str(tmp_path / name), "--json")
    assert json.loads(printed) == REPORT | {"published": str(tmp_path / name)}


def test_a_bar_shows_how_far_it_is(
    worker: Callable[..., AbstractContextManager[dict[str, Any]]],
    run_ris: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=True, width=120))
    with worker():
        assert run_ris("export", "--project", "7", "--to", str(tmp_path / "there"))[0] == 0
    assert "publishing" in screen.getvalue()
    files = sum(path.is_file() for path in (tmp_path / "there").rglob("*"))
    assert f"{files}/{files}" in screen.getvalue()


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        ("dropbox://mine", "There is no way to publish to dropbox://. Known are file, memory, s3, gs, az"),
        ("taken", "holds thesis.txt, which no export wrote"),
        ("taken/thesis.txt", "thesis.txt is a file. Choose a folder to export to."),
    ],
)
def test_where_it_cant_go_is_said_before_the_work(
    home: Path, redis: Redis, run_ris: Run, tmp_path: Path, to: str, sentence: str
) -> None:
    export_snapshot(build(home), tmp_path / "taken")
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    code, printed, error = run_ris("export", "--project", "7", "--to", to if "://" in to else str(tmp_path / to))
    assert (code, printed) == (1, "")
    assert sentence in error
    assert JobQueue(redis).recent() == []


def test_what_was_exported_is_told_even_if_it_cant_be_published(
    worker: Callable[..., AbstractContextManager[dict[str, Any]]], run_ris: Run, home: Path
) -> None:
    made = home / "exports" / "project-7-coco"
    with worker():
        code, printed, error = run_ris("export", "--project", "7", "--to", str(made))
    assert (code, printed) == (1, f"{SENTENCE} {made}\n")
    assert "lie within each other" in error
