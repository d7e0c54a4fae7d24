"""A request's id follows what comes of it: from HTTP through the queue into the lines of the worker's log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from flask.testing import FlaskClient
from recorded import BASIC, send
from redis import Redis

from backend.metrics.shared import pushed
from backend.queue.queue import JobQueue

_WORK = (
    "from backend.jobs import functions; functions.STUDIO_SECONDS = 0.0;"
    "from backend.jobs.worker import run_worker; from backend.settings import load; run_worker(load(), burst=True)"
)


def work(redis_url: str, home: Path, form: str) -> list[str]:
    """Run the production worker until the queues are empty -> the lines of its log."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    environment |= {
        "RIS_REDIS_URL": redis_url,
        "RIS_HOME": str(home),
        "RIS_LOG_FORMAT": form,
        "RIS_LABEL_STUDIO_URL": "http://127.0.0.1:1",
        "RIS_LABEL_STUDIO_TOKEN": "not-for-the-log",
        "RIS_PASSWORD": "neither",
        "RIS_WEBHOOK_SECRET": "hook-secret",
    }
    done = subprocess.run(
        [sys.executable, "-c", _WORK], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_from_http_to_the_workers_log(
    client: FlaskClient, version: str, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    answer = send(client, "webhook-start-training")
    request, job = answer.headers["X-Request-ID"], answer.json["job"]
    assert len(request) == 16
    other = JobQueue(redis).export(9, "of-nobody", {}).job
    lines = [json.loads(line) for line in work(redis_url, tmp_path, "json")]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    named = [line for line in lines if line.get("request_id") == request]
    # The worker that took the job, and the process that ran it.
    assert any(job in line["message"] for line in named)
    assert any("127.0.0.1:1" in line["message"] for line in named)
    assert not any(other in line["message"] for line in named)
    assert not any("request_id" in line for line in lines if other in line["message"])
    assert "not-for-the-log" not in json.dumps(lines)
    assert JobQueue(redis).describe(job)["status"] == "failed"
    assert pushed(redis) is not None


def test_text_stays_text(client: FlaskClient, version: str, redis_url: str, tmp_path: Path) -> None:
    send(client, "webhook-start-training")
    lines = work(redis_url, tmp_path, "text")
    assert lines
    assert not any(line.startswith("{") for line in lines)


def test_each_request_has_an_id_of_its_own(client: FlaskClient) -> None:
    ids = {client.get("/versions", headers=BASIC).headers["X-Request-ID"] for _ in range(20)}
    assert len(ids) == 20
