"""The real job functions in the real worker, which reads a small Label Studio over HTTP."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from annotated import annotation, drawn, task
from checkpoints import random_checkpoint
from labelstudio.site import serve
from PIL import Image
from studio import PROJECT, Studio

from backend.errors import BadRequest, LabelStudioUnreachable
from backend.jobs import functions
from backend.queue.queue import JobQueue, connect
from backend.queue.signature import Signer
from backend.settings import SettingsError

HERE = Path(__file__).parent
SIZE = (40, 30)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", SIZE, "red").save(file, "PNG")
    return file.getvalue()


def small_studio() -> Studio:
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[5:9, 5:9] = True
    tasks = [task(number, annotation(number, drawn("r", mask, prompt="the cat"))) for number in (1, 2)]
    return Studio(tasks, {each["data"]["image"]: picture() for each in tasks})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


def work(redis_url: str, studio_url: str, home: Path, weights: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    environment = clean | {
        "RIS_HOME": str(home),
        "RIS_REDIS_URL": redis_url,
        "RIS_WEBHOOK_SECRET": "hook-secret",
        "RIS_LABEL_STUDIO_URL": studio_url,
        "RIS_LABEL_STUDIO_TOKEN": "studio-token",
        "WEIGHTS": str(weights),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "worker_under_test.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_worker_learns_and_exports(redis_url: str, tmp_path: Path, weights: Path, signing: Signer) -> None:
    jobs, home = JobQueue(connect(redis_url)), tmp_path / "home"
    learning, exporting = jobs.learn(PROJECT), jobs.export(PROJECT, "mine", {})
    with serve(small_studio()) as site:
        log = work(redis_url, site.url, home, weights)
    learnt, exported = jobs.describe(learning.job), jobs.describe(exporting.job)
    assert learnt["status"] == exported["status"] == "finished", log
    assert (learnt["result"]["decision"], learnt["result"]["new"]) == ("waiting", 2)
    assert learnt["progress"]["stage"] == "reading"
    assert exported["result"]["images"] == 2
    assert (home / "exports" / "mine" / "instances.json").is_file()
    for secret in ("studio-token", "valkey-pass", "access-token"):
        assert secret not in log


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    for name, value in {
        "HOME": str(tmp_path),
        "LABEL_STUDIO_TOKEN": "t",
        "LABEL_STUDIO_URL": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"RIS_{name}", value)


@pytest.mark.parametrize("name", ["", ".", "..", ".ssh", "../../outside", "a/b", "/etc", "a\0", "x" * 101, None, 3])
def test_an_export_stays_in_its_folder(environment: None, tmp_path: Path, name: object) -> None:
    with pytest.raises(BadRequest, match="can't name an export"):
        functions.export(PROJECT, name, {})  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("project", ["../3", "3", -1, 0, True, None, 1.0, [3]])
def test_a_project_is_a_number(environment: None, project: object) -> None:
    for job in (functions.learn, lambda number: functions.export(number, "mine", {})):
        with pytest.raises(BadRequest, match="isn't the number of a project"):
            job(project)  # type: ignore[arg-type]


def test_without_label_studio_a_job_says_so(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "STUDIO_SECONDS", 0.1)
    with pytest.raises(LabelStudioUnreachable):
        functions.export(PROJECT, "mine", {})


def test_without_a_token_a_job_says_so(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIS_LABEL_STUDIO_TOKEN")
    with pytest.raises(SettingsError, match="RIS_LABEL_STUDIO_TOKEN isn't set"):
        functions.learn(PROJECT)
