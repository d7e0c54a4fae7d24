"""The class for label-studio-ml 2.x, without that package and behind its published calling sequence."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask.testing import FlaskClient
from recorded import recorded, with_images
from redis import Redis

from backend.errors import ConfigError
from ris_core import checkpoint_files

WSGI = Path(__file__).parents[3] / "docs" / "label_studio_ml" / "_wsgi.py"
PUBLISHED = Path(__file__).parents[1] / "published"
MODULE = "backend.web.label_studio_ml"


@pytest.fixture
def load(
    weights: Path, tmp_path: Path, redis_url: str, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], ModuleType]]:
    """Imports the module anew, with services of its own."""
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    monkeypatch.setenv("RIS_HOME", str(tmp_path))
    secrets = {"LABEL_STUDIO_TOKEN": "token", "WEBHOOK_SECRET": "hook-secret", "REDIS_URL": redis_url}
    for name, value in secrets.items():
        monkeypatch.setenv(f"RIS_{name}", value)

    def forget() -> None:
        for name in [name for name in sys.modules if name == MODULE or name.split(".")[0] == "label_studio_ml"]:
            del sys.modules[name]

    forget()
    yield lambda: import_module(MODULE)
    forget()


@pytest.fixture
def client(load: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """The documented _wsgi.py, under a server with the published calling sequence."""
    monkeypatch.syspath_prepend(str(PUBLISHED))
    app = runpy.run_path(str(WSGI))["app"]
    client: FlaskClient = app.test_client()
    return client


def with_prompts(name: str) -> dict[str, Any]:
    body = with_images(name)
    for task in body["tasks"]:
        task["data"]["prompt"] = "the car"
    return body


def test_it_stands_without_the_package(load: Callable[[], ModuleType], weights: Path) -> None:
    module = load()
    body = with_prompts("predict-batch")
    model = module.RISModel(project_id="1", label_config=body["label_config"])
    assert module.RISModel.__mro__ == (module.RISModel, object)
    assert model.get("model_version").startswith(checkpoint_files.version(weights))
    answers = model.predict(body["tasks"], context={}, login=None, password=None)
    assert [answer["model_version"] for answer in answers] == [model.get("model_version")] * len(body["tasks"])
    assert all(answer["result"] for answer in answers)


def test_an_interface_without_masks_is_refused(load: Callable[[], ModuleType]) -> None:
    with pytest.raises(ConfigError):
        load().RISModel(project_id="1", label_config='<View><Image name="image" value="$image"/></View>')


def test_values_that_others_keep_in_a_model(load: Callable[[], ModuleType]) -> None:
    model = load().RISModel()
    assert (model.has("a"), model.get("a")) == (False, None)
    model.set("a", "1")
    model.set_extra_params({"any": "thing"})
    assert (model.has("a"), model.get("a")) == (True, "1")


def test_setup_and_predict_behind_the_published_server(client: FlaskClient, weights: Path) -> None:
    version = client.post("/setup", json=recorded("setup")["body"]).json["model_version"]
    assert version.startswith(checkpoint_files.version(weights))
    batch = with_prompts("predict-batch")
    results = client.post("/predict", json=batch).json["results"]
    assert [result["model_version"] for result in results] == [version] * len(batch["tasks"])
    (typed,) = client.post("/predict", json=with_prompts("predict-interactive-text")).json["results"]
    assert [region["type"] for region in typed["result"]] == ["brushlabels"]


@pytest.mark.parametrize(
    ("name", "logged"),
    [("webhook-annotation-created", 1), ("webhook-start-training", 1), ("webhook-project-updated", 0)],
)
def test_events_behind_the_published_server(client: FlaskClient, redis: Redis, name: str, logged: int) -> None:
    event = recorded(name)["body"]
    event["project"]["label_config"] = recorded("setup")["body"]["schema"]
    assert client.post("/webhook", json=event).status_code in (200, 201)
    assert redis.xlen("ris:events:1") == logged


def test_the_package_gets_a_class_of_its_own_kind(client: FlaskClient) -> None:
    base = import_module("label_studio_ml.model").LabelStudioMLBase
    assert issubclass(import_module(MODULE).RISModel, base)
    assert client.get("/health").json == {"status": "UP", "model_class": "RISModel"}
