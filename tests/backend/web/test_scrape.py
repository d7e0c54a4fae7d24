"""/metrics: what Prometheus' own parser makes of it, whom it is shown to, and what it says when something is away."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import small_project
from flask.testing import FlaskClient
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from recorded import BASIC, send, with_images
from redis import Redis

from backend.batches.store import BatchSpec, BatchStore
from backend.datasets import history
from backend.datasets.snapshots import snapshots
from backend.jobs import worker
from backend.metrics import REGISTRY
from backend.metrics.shared import Pusher
from backend.queue.allow_list import GuardedJob
from backend.queue.queue import JobQueue
from backend.registry import Registry
from backend.settings import Settings
from backend.web.scrape import GAUGES

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "ris.json"


def scraped(client: FlaskClient) -> dict[str, Metric]:
    answer = client.get("/metrics", headers=BASIC)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    family = next(family for family in families.values() if any(sample.name == name for sample in family.samples))
    fitting = [one.value for one in family.samples if one.name == name and labels.items() <= one.labels.items()]
    return sum(fitting)


def test_it_is_behind_the_password(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.post("/metrics", headers=BASIC).status_code == 405


def test_requests_are_counted_by_route_whatever_else_they_say(client: FlaskClient) -> None:
    before = value(scraped(client), "ris_http_requests_total", route="/health", status="200")
    for _ in range(3):
        client.get("/health")
    for number in range(20):
        client.open(f"/nowhere-{number}", method=f"METHOD{number}")
    families = scraped(client)
    assert value(families, "ris_http_requests_total", route="/health", status="200") == before + 3
    labels = {sample.labels["route"] for sample in families["ris_http_requests"].samples}
    assert not any("nowhere" in label for label in labels)
    methods = {sample.labels["method"] for sample in families["ris_http_requests"].samples}
    assert methods <= {"GET", "HEAD", "OPTIONS", "POST", "other"}
    count = value(families, "ris_http_request_seconds_count", route="/health")
    assert value(families, "ris_http_request_seconds_bucket", route="/health", le="+Inf") == count


def test_stages_of_a_prediction_are_timed_and_the_cache_is_counted(client: FlaskClient) -> None:
    names = [f"ris_{stage}_seconds_count" for stage in ("fetch", "embed", "predict")]
    hits = {"name": "ris_embedding_cache_lookups_total", "process": "backend", "result": "hit"}
    # So that all of it is there.
    for _ in range(2):
        send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    before = scraped(client)
    send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    after = scraped(client)
    grown = [value(after, name, process="backend") - value(before, name, process="backend") for name in names]
    # The image is fetched from a cache of its own, and its embedding is there.
    assert grown == [1, 0, 1]
    assert value(after, **hits) - value(before, **hits) == 1


def test_what_workers_counted_is_added(client: FlaskClient, redis: Redis) -> None:
    from backend.metrics import LEARNING_RUNS

    pusher = Pusher(redis)
    before = value_or_none(scraped(client), "ris_learning_runs_total", project="8", decision="promoted")
    LEARNING_RUNS.labels("8", "promoted").inc()
    pusher.push()
    # Once here, as in any process, and once as of a worker.
    assert value(scraped(client), "ris_learning_runs_total", project="8", decision="promoted") == before + 2


def value_or_none(families: dict[str, Metric], name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_queues_are_told_as_they_stand(client: FlaskClient, redis: Redis) -> None:
    queue = JobQueue(redis)
    queue.export(3, "a", {})
    queue.export(3, "b", {})
    queue.learn(3)
    job = queue.recent()[0]["id"]
    redis.hset(GuardedJob.key_for(job), "enqueued_at", "2026-01-01T00:00:00.000000Z")
    families = scraped(client)
    assert value(families, "ris_queue_jobs", queue="ris") == 2
    assert value(families, "ris_queue_jobs", queue="ris-train") == 1
    assert value(families, "ris_queue_jobs", queue="ris-batch") == 0
    assert value(families, "ris_queue_oldest_seconds", queue="ris") < 60
    assert value(families, "ris_queue_oldest_seconds", queue="ris-train") > 86400
    assert value(families, "ris_queue_oldest_seconds", queue="ris-batch") == 0
    assert value(families, "ris_workers", kind="training") == 0
    assert value(families, "ris_scrape_errors") == 0


def test_tasks_of_the_batches_that_run_are_told(client: FlaskClient, redis: Redis) -> None:
    batches = BatchStore(redis)
    first, second, ended, other = (
        batches.create(BatchSpec(project, "lda", "lda.1"), range(1, 101)).id for project in (3, 3, 3, 4)
    )
    for batch, done in ((first, 14), (second, 16), (ended, 16)):
        chunk = batches.claim(batch, "me")
        assert chunk
        assert len(chunk.tasks) == 16
        batches.finish(batch, "me", chunk.name, done=done - 1, failed={1: "too large"}, skipped=16 - done)
    batches.cancel(ended)
    families = scraped(client)
    told = {
        (sample.labels["project"], sample.labels["state"]): sample.value
        for sample in families["ris_batch_tasks"].samples
    }
    assert told == {
        ("3", "waiting"): 168,
        ("3", "done"): 28,
        ("3", "skipped"): 2,
        ("3", "failed"): 2,
        ("4", "waiting"): 100,
        ("4", "done"): 0,
        ("4", "skipped"): 0,
        ("4", "failed"): 0,
    }
    batches.cancel(other)
    assert value_or_none(scraped(client), "ris_batch_tasks", project="4") == 0


def test_a_job_of_a_worker_is_counted(client: FlaskClient, redis: Redis) -> None:
    """A worker's process for the job counts, and is gone when Prometheus asks."""
    job = JobQueue(redis).export(3, "../../x", {}).job
    worker.work(redis, burst=True)
    assert JobQueue(redis).describe(job)["status"] == "failed"
    assert value(scraped(client), "ris_queue_jobs", queue="ris") == 0


def test_versions_and_acceptance_are_told(
    client: FlaskClient, settings: Settings, weights: Path, tmp_path: Path
) -> None:
    small_project.build(settings.home)
    registry = Registry(settings.home / "models", weights)
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    (other / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes() + b" ")
    name = registry.add(3, weights, {}).name
    send(client, "setup")
    (settings.home / "models" / "project-3").mkdir(parents=True, exist_ok=True)
    families = scraped(client)
    assert value(families, "ris_production_info", project="3", version=name) == 1
    assert value(families, "ris_expressions", project="3", origin="manual") == 3
    assert value(families, "ris_expressions", project="3", origin="absent") == 1


def test_a_snapshot_is_read_once_however_many_projects_and_scrapes_there_are(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_project.build(settings.home)
    snapshot = snapshots(settings.home, 3)[0]
    for project in range(4, 9):
        shutil.copytree(snapshot, settings.home / "snapshots" / str(project) / snapshot.name)
        settings.home.joinpath("models", f"project-{project}").mkdir(parents=True)
    settings.home.joinpath("models", "project-3").mkdir(parents=True, exist_ok=True)
    read: list[Path] = []
    whole = history.read_expressions
    monkeypatch.setattr(history, "read_expressions", lambda folder: (read.append(folder), whole(folder))[1])
    for _ in range(3):
        families = scraped(client)
        assert value(families, "ris_expressions", origin="manual") == 6 * 3
    assert len(read) == 6


def test_what_is_damaged_or_away_costs_its_part_alone(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(redis_url="redis://:x@127.0.0.1:1/0")
    client = make_client(settings)
    folder = settings.home / "models" / "project-5"
    folder.mkdir(parents=True)
    (folder / "production.json").write_text("{")
    families = scraped(client)
    errors = {sample.labels["part"]: sample.value for sample in families["ris_scrape_errors"].samples}
    assert errors == {"counters": 1, "queue": 1, "batches": 1, "versions": 1, "snapshots": 0, "gpu": 0}
    assert families["ris_http_requests"].samples


# What is written about it


def known() -> dict[str, tuple[str, tuple[str, ...]]]:
    """By name as it is scraped, its type and labels."""
    counted = {}
    for metric in REGISTRY._names_to_collectors.values():
        labels = tuple(metric._labelnames)  # type: ignore[attr-defined]
        [family] = metric.describe()  # type: ignore[attr-defined]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        counted[name] = (family.type, labels)
    return counted | {gauge.name: ("gauge", gauge.labels) for gauge in GAUGES}


def test_the_table_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(ris_\w+)` \| (\w+) \| ([^|]*) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert listed == known()


def test_names_follow_the_conventions() -> None:
    for name, (kind, _) in known().items():
        assert re.fullmatch(r"ris_[a-z][a-z_]*", name)
        assert name.endswith("_total") == (kind == "counter")
        assert kind != "histogram" or name.endswith("_seconds")


def test_the_dashboard_asks_for_nothing_that_is_not_there() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 10
    there = set()
    for name, (kind, _) in known().items():
        there |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    asked = {name for expression in expressions for name in re.findall(r"\bris_\w+", expression)}
    assert asked <= there
    # Each metric is on it, in one of its forms.
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked} == set(known())
    for expression in expressions:
        for name, labels in re.findall(r"(ris_\w+?)(?:_bucket|_count|_sum)?\{([^}]*)\}", expression):
            named = set(re.findall(r"(\w+)\s*[=!~]", labels))
            assert named <= {*known()[name][1], "le"}, expression


@pytest.mark.parametrize("gauge", GAUGES, ids=lambda gauge: gauge.name)
def test_a_gauge_says_what_it_is(gauge: object) -> None:
    assert str(getattr(gauge, "says", "")).endswith(".")
