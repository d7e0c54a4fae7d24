"""The app over a small model of random weights, and Label Studio's recorded requests sent to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from recorded import send

from backend.settings import Settings
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core import checkpoint_files


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model", clicks=True)


@pytest.fixture
def settings(make_settings: Callable[..., Settings], redis_url: str) -> Settings:
    # Random weights are sure of nothing.
    return make_settings(redis_url=redis_url, prelabel_min_score=0)


@pytest.fixture
def make_client(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], FlaskClient]:
    # The wheel's place for the shipped model; a checkout may have none yet.
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    return lambda settings: create_app(settings, ml_backend.build(settings)).test_client()


@pytest.fixture
def client(make_client: Callable[[Settings], FlaskClient], settings: Settings) -> FlaskClient:
    return make_client(settings)


@pytest.fixture
def version(client: FlaskClient) -> str:
    """What /setup names for the recorded project: predictions have to say the same."""
    return str(send(client, "setup").json["model_version"])
