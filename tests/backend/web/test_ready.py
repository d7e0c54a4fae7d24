"""/ready says yes when requests can be answered, and what is missing when they can't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from recorded import BASIC
from werkzeug.test import TestResponse

from backend.registry import Registry, Version
from backend.settings import Settings
from ris_core import segmenters


def ready(client: FlaskClient) -> TestResponse:
    return client.get("/ready", headers=BASIC)


@pytest.fixture
def version(settings: Settings, weights: Path, tmp_path: Path) -> Version:
    """A version of project 3 that is in production."""
    registry = Registry(settings.home / "models", weights)
    added = registry.add(3, random_checkpoint(tmp_path / "other", seed=3), {})
    return registry.promote(3, added.name)


def test_it_names_what_serves_and_loads_nothing(
    client: FlaskClient, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(segmenters, "load", refuse)
    answer = ready(client)
    assert answer.status_code == 200
    assert answer.json["ready"]
    assert answer.json["serving"]["3"] == version.name
    assert client.get("/ready").status_code == 401


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "are damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "are damaged"),
        (lambda folder: (folder / "config.json").write_text("{"), "are damaged"),
        (shutil.rmtree, "can't be looked up"),
        (lambda folder: (folder.parents[1] / "production.json").write_text("[]"), "can't be looked up"),
    ],
)
def test_a_version_that_could_not_serve_is_found(
    client: FlaskClient, version: Version, damage: Callable[[Path], object], sentence: str
) -> None:
    assert ready(client).status_code == 200
    damage(version.folder)
    answer = ready(client)
    assert (answer.status_code, answer.json["code"]) == (503, "not_ready")
    assert sentence in answer.json["message"]
    assert answer.headers["Retry-After"]
    assert str(version.folder.parents[3]) not in json.dumps(answer.json)
    # It is alive all the same.
    assert client.get("/health").status_code == 200


def test_without_valkey_it_is_not_ready(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    answer = ready(make_client(make_settings()))
    assert answer.status_code == 503
    assert "Valkey can't be reached" in answer.json["message"]
