"""The backend as people run it, for tests: real gunicorn in a process of its own, its settings from a ris.env."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from ports import free_port

HERE = Path(__file__).parent
AUTH = ("ris", "backend-pass")
WEBHOOK_SECRET = "hook-secret"
COMMAND = (sys.executable, "-m", "gunicorn", "-c", "python:backend.web.gunicorn_conf", "wsgi_under_test:app")


@dataclass
class Served:
    """A backend that runs. log: the file that all its output goes to."""

    port: int
    process: subprocess.Popen[str]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def environment(home: Path, weights: Path) -> dict[str, str]:
    """That of the process: no settings but those of `home`, and `weights` as the shipped model."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    return clean | {"RIS_HOME": str(home), "WEIGHTS": str(weights), "PYTHONPATH": path(), "OMP_NUM_THREADS": "1"}


def path() -> str:
    """Where the process finds this checkout, and the tests' helpers."""
    return os.pathsep.join([str(HERE), str(HERE.parents[1])])


@contextmanager
def serve(home: Path, weights: Path, valkey_port: int, **knobs: object) -> Iterator[Served]:
    """A backend for as long as it takes; `knobs` are settings, in small letters."""
    port, log = free_port(), home / "log"
    given = {
        "port": port,
        "password": AUTH[1],
        "webhook_secret": WEBHOOK_SECRET,
        "label_studio_token": "studio-token",
        "redis_url": f"redis://:valkey-pass@127.0.0.1:{valkey_port}/0",
        **knobs,
    }
    (home / "ris.env").write_text("".join(f"RIS_{name.upper()}={value}\n" for name, value in given.items()))
    with log.open("w") as file:
        process = subprocess.Popen(COMMAND, env=environment(home, weights), stderr=file, stdout=file, text=True)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process, log)
            yield Served(port, process, log)
        finally:
            process.kill()
            process.wait()


def wait_until_up(url: str, process: subprocess.Popen[str], log: Path) -> None:
    """Return once /health answers; fail with the log where the process ends before, or takes two minutes."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(f"{url}/health", timeout=5)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(log.read_text())
