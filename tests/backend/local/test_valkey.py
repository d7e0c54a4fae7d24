"""The Valkey that `ris up` runs: a password, this machine alone, and data that outlives it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from backend.local.readiness import valkey_answers
from backend.local.valkey import configuration
from backend.settings import SettingsError

# Percent signs, quotes and spaces: what a URL, and what the server's own file, would trip over.
PASSWORD, ENCODED = 'a "b%c', "a%20%22b%25c"


@contextmanager
def server(home: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "backend.local.valkey", "--bind", "127.0.0.1"]
    environment = {**os.environ, "RIS_HOME": str(home), "RIS_REDIS_URL": url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while not valkey_answers(url):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()


@pytest.fixture
def url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"redis://:{ENCODED}@127.0.0.1:{probe.getsockname()[1]}/0"


def test_it_needs_its_password_and_keeps_its_data(tmp_path: Path, url: str, clean_environment: None) -> None:
    with server(tmp_path, url) as process:
        assert PASSWORD.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        with Redis.from_url(url.replace(ENCODED, "wrong")) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with Redis.from_url(url) as connection:
            connection.set("correction", "1")
            assert connection.config_get("bind")["bind"] == "127.0.0.1"
    with server(tmp_path, url), Redis.from_url(url) as connection:
        assert connection.get("correction") == b"1"
    assert stat.S_IMODE((tmp_path / "valkey").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "valkey" / "valkey.conf").stat().st_mode) == 0o600


def test_a_queue_without_a_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RIS_REDIS_URL has no password"):
        configuration("redis://127.0.0.1:6390/0", tmp_path, "127.0.0.1")


def test_nobody_answers(url: str) -> None:
    assert not valkey_answers(url)
