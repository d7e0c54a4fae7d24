"""The HTTP door: who may come in, how much they may bring, and what an error looks like."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from recorded import BASIC, HOOK, NAMES, recorded, send, with_images
from redis import Redis
from werkzeug.test import TestResponse

from backend.labelstudio.webhooks import SECRET_HEADER
from backend.settings import Settings, SettingsError
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core import checkpoint_files

# Who may come in


ROUTES = [("GET", "/"), ("POST", "/setup"), ("POST", "/predict"), ("POST", "/webhook"), ("GET", "/versions")]
ROUTES += [(method, f"/projects/1{path}") for method, path in ROUTES]
ROUTES += [
    ("GET", "/jobs/x"),
    ("GET", "/projects/1"),
    ("GET", "/projects/1/jobs/x"),
    ("GET", "/projects/1/health/"),
    ("GET", "/nowhere"),
    ("GET", "/health/"),
    ("POST", "/webhook/"),
    ("DELETE", "/setup"),
    ("OPTIONS", "/setup"),
]


def basic(username: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


WRONG = {
    "none": {},
    "password": basic("ris", "wrong"),
    "user": basic("admin", "backend-pass"),
    "empty": basic("", ""),
    "prefix": basic("ris", "backend-pas"),
    "not ascii": basic("ris", "bäckend-pass"),
    "bearer": {"Authorization": "Bearer backend-pass"},
    "garbage": {"Authorization": "Basic ///"},
    "hook": {SECRET_HEADER: "wrong"},
    "empty hook": {SECRET_HEADER: ""},
}


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("wrong", WRONG)
def test_no_route_but_health_opens_without_the_password(
    client: FlaskClient, redis: Redis, method: str, path: str, wrong: str
) -> None:
    answer = client.open(path, method=method, headers=WRONG[wrong], json={})
    assert answer.status_code == 401
    assert answer.json["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert redis.keys("ris:events*") == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_the_password_opens_every_route(client: FlaskClient, method: str, path: str) -> None:
    assert client.open(path, method=method, headers=BASIC, json={}).status_code not in (401, 500)


def test_the_webhooks_secret_opens_the_webhook_alone(client: FlaskClient) -> None:
    for method, path in ROUTES:
        status = client.open(path, method=method, headers=HOOK, json={}).status_code
        assert (status == 401) == (path not in ("/webhook", "/projects/1/webhook")), path


@pytest.mark.parametrize("address", ["", "/projects/1"])
def test_health_is_open_whatever_the_method(client: FlaskClient, address: str) -> None:
    assert client.get(f"{address}/health").json == {"status": "UP", "model_class": "RISModel"}
    assert client.head(f"{address}/health").status_code == 200
    assert set(client.options(f"{address}/health").headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("address", ["", "/projects/1"])
def test_another_method_is_refused_in_a_sentence(client: FlaskClient, address: str) -> None:
    answer = client.get(f"{address}/setup", headers=BASIC)
    assert (answer.status_code, answer.json["code"]) == (405, "http_error")
    assert answer.json["message"] == f"Method Not Allowed: there is no GET {address}/setup here."
    assert answer.headers["Allow"] == "OPTIONS, POST"


def test_what_no_status_line_may_hold_is_left_out_of_it(client: FlaskClient) -> None:
    answer = client.get("/no\\where%01%1B%0D%0A%7F%C3%A9", headers=BASIC)
    assert answer.status == "404 Not Found: there is no GET /no\\where     ? here."
    assert answer.json["message"] == "Not Found: there is no GET /no\\where\x01\x1b\r\n\x7f\xe9 here."


@pytest.mark.parametrize("knob", ["password", "webhook_secret"])
def test_without_a_secret_nothing_is_served(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings], knob: str
) -> None:
    with pytest.raises(SettingsError, match=f"RIS_{knob.upper()} isn't set"):
        make_client(make_settings(**{knob: None}))


# Each project has an address of its own


def test_a_project_is_answered_at_its_own_address(client: FlaskClient, version: str) -> None:
    def ask(name: str, headers: dict[str, str] = BASIC, body: object = None) -> TestResponse:
        request = recorded(name)
        body = body or request["body"]
        return client.open(f"/projects/1{request['path']}", method=request["method"], json=body, headers=headers)

    assert ask("health", {}).json == send(client, "health", headers={}).json
    assert ask("setup").json == {"model_version": version}
    assert ask("versions").json == {"versions": [version]}
    click = "predict-interactive-keypoint"
    assert ask(click, body=with_images(click)).status_code == 200
    assert ask("webhook-annotation-created", HOOK).json == {"logged": 1}
    job = ask("webhook-start-training").json["job"]
    assert client.get(f"/projects/1/jobs/{job}", headers=BASIC).json["status"] == "queued"
    assert client.get("/projects/1", headers=BASIC).status_code == client.get("/projects/1/", headers=BASIC).status_code


def test_versions_at_an_address_are_those_of_its_project(client: FlaskClient, version: str, weights: Path) -> None:
    schema = recorded("setup")["body"]["schema"].replace("Thing", "cat")
    other = send(client, "setup", recorded("setup")["body"] | {"project": "2.1", "schema": schema}).json[
        "model_version"
    ]
    assert other != version
    for path, expected in (("/projects/1", [version]), ("/projects/2", [other]), ("", [version, other])):
        assert client.get(f"{path}/versions", headers=BASIC).json == {"versions": expected}
    untouched = client.get("/projects/3/versions", headers=BASIC).json
    assert untouched == {"versions": [checkpoint_files.version(weights)]}


@pytest.mark.parametrize("name", ["setup", "predict-batch", "webhook-annotation-created", "webhook-start-training"])
def test_another_project_is_refused_there(client: FlaskClient, redis: Redis, name: str) -> None:
    request = recorded(name)
    answer = client.post(f"/projects/2{request['path']}", json=request["body"], headers=BASIC)
    assert answer.status_code == 422
    assert "about project 1, but this is the address of project 2" in answer.json["message"]
    assert "ris connect --project 1" in answer.json["message"]
    assert redis.keys("ris:events*") == []


@pytest.mark.parametrize(
    "path",
    [f"/projects/{number}/health" for number in ("x", "-1", "0x1", "", 2147483648)],
)
def test_an_address_without_a_number_is_none(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 401
    assert client.get(path, headers=BASIC).status_code == 404


# How much they may bring


def test_the_limit_of_request_bytes_counts(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    client = make_client(make_settings(max_request_bytes=1000))
    body = {"action": "PROJECT_UPDATED", "padding": ""}
    body["padding"] = "x" * (1000 - len(json.dumps(body)))
    assert client.post("/webhook", data=json.dumps(body), headers=HOOK).status_code == 200
    body["padding"] += "x"
    answer = client.post("/webhook", data=json.dumps(body), headers=HOOK)
    assert (answer.status_code, answer.json["code"]) == (413, "too_large")
    assert "RIS_MAX_REQUEST_BYTES" in answer.json["message"]


# What an error looks like


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ("<View/>", "no Image tag"),
        ('<View><Image name="i" value="$i"/></View>', "no BrushLabels, BitmaskLabels, PolygonLabels or Rectang"),
        ("<View>", "isn't valid XML"),
    ],
)
def test_an_interface_without_image_or_masks_says_what_to_add(client: FlaskClient, schema: str, sentence: str) -> None:
    """Label Studio shows the HTTP reason, and nothing of the body."""
    answer = send(client, "setup", recorded("setup")["body"] | {"schema": schema})
    assert answer.status_code == 422
    assert sentence in answer.json["message"]
    assert sentence in answer.status
    assert "\n" not in answer.status


BODIES = [b"", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100_000, b'{"tasks": []}', b'{"tasks": [3]}', b"{}"]
BODIES += [
    json.dumps(recorded("predict-batch")["body"] | change).encode()
    for change in ({"project": None}, {"project": "x.1"}, {"project": "-1"}, {"label_config": 3}, {"params": 3})
]
BODIES += [json.dumps(recorded("predict-batch")["body"] | {"params": {"context": 3}}).encode()]


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_nonsense_is_refused_in_a_sentence(client: FlaskClient, path: str, body: bytes) -> None:
    answer = client.post(path, data=body, headers=BASIC)
    assert answer.status_code == 422
    assert set(answer.json) == {"code", "message", "request_id"}
    assert answer.headers["X-Request-ID"] == answer.json["request_id"]


def test_a_stranger_bug_shows_nothing_but_its_number(
    client: FlaskClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # A folder where a file should be: an error that nobody foresaw.
    (settings.home / "models" / "project-1" / "production.json").mkdir(parents=True)
    answer = send(client, "setup")
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert str(settings.home) not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json["request_id"] in answer.json["message"]
    assert f"Request {answer.json['request_id']} failed." in caplog.text
    assert "IsADirectoryError" in caplog.text


def test_a_damaged_model_shows_no_path(
    make_client: Callable[[Settings], FlaskClient],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = random_checkpoint(tmp_path / "broken", seed=5)
    (folder / checkpoint_files.WEIGHTS).write_bytes(b"x")
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: folder)
    client = create_app(settings, ml_backend.build(settings)).test_client()
    answer = send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    assert (answer.status_code, answer.json["code"]) == (500, "bad_checkpoint")
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_of_a_request_is_logged(client: FlaskClient, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    send(client, name)
    body = json.dumps(recorded(name)["body"])
    for secret in ("feas-token-0123456789", "xis6JEFi3XKDth4RfkH0lQByOolwLbaRanvzDwyY", "backend-pass", "hook-secret"):
        assert secret not in caplog.text
    assert body == "null" or body not in caplog.text
    assert recorded(name)["path"] in caplog.text
