"""Health checks, as containers run them and as `ris up` asks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from labelstudio.site import Answer, serve
from redis import Redis
from rq import Queue, SimpleWorker

from backend.local import readiness
from backend.local.readiness import http_answers, worker_registered


@pytest.mark.parametrize(("status", "ready"), [(200, True), (204, True), (302, False), (401, False), (503, False)])
def test_http_is_ready_with_a_success(status: int, ready: bool) -> None:
    with serve(lambda _: Answer(status)) as site:
        assert http_answers(f"{site.url}/health") is ready


def test_a_dropped_or_refused_connection_is_not_ready() -> None:
    with serve(lambda _: Answer(reset=True)) as site:
        assert not http_answers(site.url)
    assert not http_answers(site.url)


def test_a_worker_is_ready_once_it_is_registered(redis: Redis, redis_url: str) -> None:
    worker: Any = SimpleWorker([Queue(connection=redis)], connection=redis)
    assert not worker_registered(redis_url, os.getpid())
    worker.register_birth()
    assert worker_registered(redis_url, os.getpid())
    assert not worker_registered(redis_url, os.getpid() + 1)
    worker.register_death()
    assert not worker_registered(redis_url, os.getpid())


def test_a_worker_of_another_machine_does_not_count(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker: Any = SimpleWorker([Queue(connection=redis)], connection=redis)
    worker.register_birth()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert not worker_registered(redis_url, os.getpid())


def test_the_arguments_of_a_health_check(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, clean_environment: Callable[[], None]
) -> None:
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    assert readiness.main("valkey")
    assert not readiness.main("worker", "1")
    assert not readiness.main("http://127.0.0.1:1/health")
