"""A world for runners whose leases and pauses are short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_world import World, running
from checkpoints import random_checkpoint
from redis import Redis

from backend.batches import leases, store
from backend.settings import Settings


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def world(
    tmp_path: Path, weights: Path, redis: Redis, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(leases, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(leases, "WRITING_SECONDS", 1.0)
    monkeypatch.setattr(store, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    with running(tmp_path, weights, redis, make_settings) as world:
        yield world
