"""A bucket on a real S3 server behind a gateway that can be broken, and a folder; and hosts that share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from gateway import Gateway, gateway_to
from s3 import S3, serving
from version_folders import make_checkpoint

from backend.store.bucket import Bucket, open_bucket
from backend.store.versions import SharedRegistry

_NUMBERS = count()


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
    return f"s3://{s3.make_bucket(f'bucket-{next(_NUMBERS)}')}/studio"


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "s3":
        return open_bucket(request.getfixturevalue("address"))
    (tmp_path / "share").mkdir()
    return open_bucket(str(tmp_path / "share"))


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "shipped", "shipped")


@pytest.fixture
def host(tmp_path: Path, shipped: Path, bucket: Bucket) -> Callable[[str], SharedRegistry]:
    """A registry of a host by the name of its home; it asks the store each time."""

    def make(name: str) -> SharedRegistry:
        return SharedRegistry(tmp_path / name, shipped, bucket)

    return make


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.store.versions.FRESH_SECONDS", 0.0)
