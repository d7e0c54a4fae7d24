"""Buckets on a real S3 server and in a folder, and hosts that share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from version_folders import make_checkpoint

from backend.store.bucket import Bucket, open_bucket
from backend.store.versions import SharedRegistry


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
