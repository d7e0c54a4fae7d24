"""The contract over HTTP, with Label Studio's recorded requests, a real queue and the real predictor."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from PIL import Image
from recorded import NAMES, recorded
from redis import Redis
from werkzeug.test import TestResponse

from backend import services
from backend.batches.store import Batch, BatchStore
from backend.home import prompt_sheet_file
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.queue.names import BATCHES, TRAINING
from backend.queue.queue import least_new, open_queue
from backend.registry import Registry
from backend.settings import Settings, SettingsError
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core import checkpoint_files

Post = Callable[..., TestResponse]
BASIC = {"Authorization": "Basic " + base64.b64encode(b"ris:backend-pass").decode()}
HOOK = {SECRET_HEADER: "hook-secret"}
LEARNING = ("annotation-created", "annotation-updated", "annotations-deleted", "start-training")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def settings(make_settings: Callable[..., Settings], redis_url: str) -> Settings:
    return make_settings(redis_url=redis_url)


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


def send(client: FlaskClient, name: str, body: object = None, headers: dict[str, str] = BASIC) -> TestResponse:
    request = recorded(name)
    content = request["body"] if body is None else body
    return client.open(
        request["path"],
        method=request["method"],
        json=content,
        headers={"User-Agent": request["headers"]["User-Agent"], **headers},
    )


def with_images(name: str) -> dict[str, Any]:
    """A recorded request, its uploads replaced by the images themselves."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    body: dict[str, Any] = recorded(name)["body"]
    for task in body["tasks"]:
        task["data"]["image"] = uri
    return body


# What Label Studio sends


def test_health_is_open_and_says_up(client: FlaskClient) -> None:
    answer = send(client, "health", headers={})
    assert (answer.status_code, answer.json) == (200, {"status": "UP", "model_class": "RISModel"})


def test_setup_names_the_version_in_production(client: FlaskClient, weights: Path) -> None:
    [(key, version)] = send(client, "setup").json.items()
    assert key == "model_version"
    assert re.fullmatch(re.escape(checkpoint_files.version(weights)) + r"\.[0-9a-f]{6}", version)


def test_setup_follows_a_promotion_at_once(
    client: FlaskClient, settings: Settings, tmp_path: Path, weights: Path
) -> None:
    tuned = random_checkpoint(tmp_path / "tuned", seed=1)
    registry = Registry(settings.home / "models", weights)
    version = registry.promote(1, registry.add(1, tuned, {}).name)
    named = send(client, "setup").json["model_version"]
    assert named.rpartition(".")[0] == version.name
    versions = send(client, "versions").json["versions"]
    assert [each.rpartition(".")[0] for each in versions] == [registry.base.name, version.name]
    assert versions[-1] == named


# Measured in processor time, which other work on the machine can't lengthen.


def test_health_and_setup_answer_at_once_while_the_model_loads(
    make_client: Callable[[Settings], FlaskClient], settings: Settings
) -> None:
    client = make_client(settings)
    send(client, "setup")
    times = []
    for _ in range(20):
        start = time.thread_time()
        assert send(client, "health").status_code == send(client, "setup").status_code == 200
        times.append(time.thread_time() - start)
    assert sorted(times)[len(times) // 2] < 0.02


def test_versions_lists_the_shipped_model(client: FlaskClient, weights: Path) -> None:
    assert send(client, "versions").json == {"versions": [checkpoint_files.version(weights)]}
    version = send(client, "setup").json["model_version"]
    assert send(client, "versions").json == {"versions": [version]}


def test_the_sentence_typed_in_the_browser_becomes_one_mask(client: FlaskClient, version: str) -> None:
    answer = send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    assert answer.status_code == 200
    [prediction] = answer.json["results"]
    assert prediction["model_version"] == version
    [region] = prediction["result"]
    assert (region["from_name"], region["to_name"], region["type"]) == ("brush", "img", "brushlabels")
    assert (region["original_width"], region["original_height"]) == (64, 48)
    assert region["value"]["brushlabels"] == ["Thing"]


def test_a_keypoint_that_says_nothing_asks_for_nothing(client: FlaskClient, version: str) -> None:
    answer = send(client, "predict-interactive-keypoint")
    assert answer.json == {"results": [{"result": [], "score": 0.0, "model_version": version}]}


def test_a_keypoint_is_about_what_the_draft_says(client: FlaskClient, version: str) -> None:
    body = with_images("predict-interactive-keypoint")
    typed = recorded("predict-interactive-text")["body"]["params"]["context"]
    body["tasks"][0]["drafts"] = [{**typed, "updated_at": "2026-11-21T02:02:23Z"}]
    [prediction] = send(client, "predict-interactive-keypoint", body).json["results"]
    [region] = prediction["result"]
    assert (region["type"], region["meta"]["text"][0]) == ("brushlabels", "prompt: red circle")
    assert prediction["model_version"] == version


def test_a_batch_of_labels_that_stand_for_anything_is_done_without_a_look(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    client = make_client(make_settings(prelabel_labels=False))
    version = send(client, "setup").json["model_version"]
    answer = send(client, "predict-batch")
    assert answer.json == {"results": [{"result": [], "score": 0.0, "model_version": version}] * 2}


def test_a_batch_has_one_answer_a_task(client: FlaskClient, version: str) -> None:
    body = with_images("predict-batch")
    body["tasks"][1]["data"] |= {"prompt": "the red thing"}
    results = send(client, "predict-batch", body).json["results"]
    # The first is asked for "Stuff", a label; the other for what its data says.
    kinds = [[region["type"] for region in result["result"]] for result in results]
    assert kinds == [["brushlabels"], ["brushlabels", "textarea"]]
    assert {result["model_version"] for result in results} == {version}


def test_a_task_that_somebody_opens_is_left_to_them(client: FlaskClient) -> None:
    body = with_images("predict-batch")
    del body["tasks"][1]
    assert send(client, "predict-batch", body).json == {"results": [[]]}


def test_what_was_typed_is_tried_on_the_next_picture(client: FlaskClient, version: str) -> None:
    send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    body = with_images("predict-batch")
    del body["tasks"][0]
    [offered] = send(client, "predict-batch", body).json["results"]
    mask, sentence = offered["result"]
    assert mask["meta"]["text"][0].startswith("prompt: red circle\n")
    assert sentence["value"]["text"] == ["red circle"]
    assert offered["model_version"] == f"{version}#offered"
    # It isn't taken for the answer of a batch, which has its own string, and asks its own.
    assert send(client, "setup").json["model_version"] == version
    results = send(client, "predict-batch", with_images("predict-batch")).json["results"]
    assert {result["model_version"] for result in results} == {version}
    assert "red circle" not in json.dumps(results)


# Each project has an address of its own


def test_a_project_is_answered_at_its_own_address(client: FlaskClient, version: str) -> None:
    def ask(name: str, headers: dict[str, str] = BASIC) -> TestResponse:
        request = recorded(name)
        return client.open(
            f"/projects/1{request['path']}", method=request["method"], json=request["body"], headers=headers
        )

    assert ask("health", {}).json == send(client, "health", headers={}).json
    assert ask("setup").json == {"model_version": version}
    assert ask("versions").json == {"versions": [version]}
    assert ask("predict-interactive-keypoint").status_code == 200
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
    "path", ["/projects/x/health", "/projects/-1/health", "/projects/0x1/health", "/projects//health"]
)
def test_an_address_without_a_number_is_none(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 401
    assert client.get(path, headers=BASIC).status_code == 404


def test_a_damaged_prompt_sheet_is_what_label_studio_shows(client: FlaskClient, settings: Settings) -> None:
    file = prompt_sheet_file(settings.home, 1)
    file.parent.mkdir(parents=True)
    file.write_text("{")
    answer = send(client, "setup")
    assert (answer.status_code, answer.json["code"]) == (422, "bad_prompt_sheet")
    assert "1.prompts.json isn't JSON" in answer.status


def test_enough_changed_annotations_queue_learning_once(
    make_client: Callable[[Settings], FlaskClient], settings: Settings, redis: Redis
) -> None:
    client = make_client(settings.model_copy(update={"finetune_min_new": 3}))
    body = recorded("webhook-annotation-created")["body"]

    def submit(number: int) -> TestResponse:
        changed = {**body["annotation"], "id": number, "task": number}
        return send(client, "webhook-annotation-created", body | {"annotation": changed}, HOOK)

    assert [submit(number).json for number in (1, 2, 2, 1)] == [{"logged": 1}] * 2 + [{"logged": 0}] * 2
    third = submit(3).json
    assert (third["logged"], third["new"]) == (1, True)
    assert submit(3).json == {"logged": 0}
    assert submit(4).json == {"logged": 1, "job": third["job"], "new": False}
    [job] = open_queue(redis, name=TRAINING).jobs
    assert (job.func_name, list(job.args), least_new(job)) == ("backend.jobs.functions.learn", [1], 3)


def test_start_training_is_content_with_one(client: FlaskClient, redis: Redis) -> None:
    first = send(client, "webhook-start-training", headers=HOOK).json
    assert send(client, "webhook-start-training", headers=HOOK).json == first | {"new": False}
    [job] = open_queue(redis, name=TRAINING).jobs
    assert (job.id, least_new(job)) == (first["job"], 1)


@pytest.mark.parametrize("name", LEARNING)
def test_events_are_logged(client: FlaskClient, redis: Redis, name: str) -> None:
    answer = send(client, f"webhook-{name}", headers=HOOK)
    assert (answer.status_code, answer.json["logged"]) == (200, 1)
    [(_, fields)] = redis.xrange("ris:events:1")
    assert json.loads(fields[b"event"])["action"] == recorded(f"webhook-{name}")["body"]["action"]


@pytest.mark.parametrize("action", ["PROJECT_UPDATED", "TASKS_CREATED", "LABEL_LINK_CREATED", "SOMETHING_NEW"])
def test_other_events_are_none_of_ours(client: FlaskClient, redis: Redis, action: str) -> None:
    body = recorded("webhook-project-updated")["body"] | {"action": action}
    answer = send(client, "webhook-project-updated", body, HOOK)
    assert (answer.status_code, answer.json) == (200, {"ignored": action})
    assert redis.keys("ris:events*") == []


def test_a_webhook_is_answered_at_once(client: FlaskClient) -> None:
    times = []
    for _ in range(20):
        start = time.thread_time()
        send(client, "webhook-annotation-created", headers=HOOK)
        times.append(time.thread_time() - start)
    assert sorted(times)[len(times) // 2] < 0.05


@pytest.mark.parametrize("name", LEARNING)
def test_without_valkey_a_webhook_is_kept_in_a_file(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings], name: str
) -> None:
    settings = make_settings()
    client = make_client(settings)
    answer = send(client, f"webhook-{name}", headers=HOOK)
    assert (answer.status_code, answer.json) == (200, {"logged": 0, "degraded": True})
    assert recorded(f"webhook-{name}")["body"]["action"] in (settings.home / "spool" / "events.jsonl").read_text()
    assert send(client, "setup").status_code == 200


def test_a_job_can_be_asked_about(client: FlaskClient) -> None:
    job = send(client, "webhook-start-training").json["job"]
    answer = client.get(f"/jobs/{job}", headers=BASIC)
    assert answer.json["status"] == "queued"
    assert client.get("/jobs/none", headers=BASIC).status_code == 404


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


@pytest.mark.parametrize("knob", ["password", "webhook_secret"])
def test_without_a_secret_nothing_is_served(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings], knob: str
) -> None:
    with pytest.raises(SettingsError, match=f"RIS_{knob.upper()} isn't set"):
        make_client(make_settings(**{knob: None}))


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


def test_the_limit_of_tasks_counts(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    client = make_client(make_settings(max_tasks=2, prelabel_labels=False))
    body = recorded("predict-batch")["body"]
    assert send(client, "predict-batch", body).status_code == 200
    body["tasks"].append(body["tasks"][0])
    answer = send(client, "predict-batch", body)
    assert answer.status_code == 413
    assert "RIS_MAX_TASKS" in answer.json["message"]


@pytest.mark.parametrize(
    ("knob", "value", "tasks", "status"),
    [
        ("max_prompt_length", 9, [{"prompt": "red circle"}], "failed"),
        ("max_prompts", 1, [{"prompts": ["a", "b"]}], "failed"),
        ("max_image_pixels", 64 * 48 - 1, [{"prompt": "red"}], "failed"),
        ("max_image_bytes", 10, [{"prompt": "red"}], "failed"),
    ],
)
def test_the_limits_of_a_task_count(
    make_client: Callable[[Settings], FlaskClient],
    make_settings: Callable[..., Settings],
    knob: str,
    value: float,
    tasks: list[dict[str, Any]],
    status: str,
) -> None:
    body = with_images("predict-batch")
    body["tasks"] = [
        {**task, "data": {**task["data"], **data}} for task, data in zip(body["tasks"], tasks, strict=False)
    ]
    for settings, expected in ((make_settings(), ""), (make_settings(**{knob: value}), f"#{status}")):
        [result] = send(make_client(settings), "predict-batch", body).json["results"]
        assert result["model_version"].endswith(expected)
        assert bool(result["result"]) == (not expected)


# More than fits a request


def ordered(settings: Settings) -> list[Batch]:
    return services.batch_service(settings).all()


@pytest.mark.parametrize("knobs", [{"batch_from": 2}, {"predict_seconds": 1e-9}])
def test_tasks_that_do_not_fit_a_request_become_one_batch_however_often_they_are_sent(
    make_client: Callable[[Settings], FlaskClient],
    make_settings: Callable[..., Settings],
    redis_url: str,
    redis: Redis,
    knobs: dict[str, Any],
) -> None:
    settings = make_settings(redis_url=redis_url, **knobs)
    client = make_client(settings)
    body = with_images("predict-batch")
    body["tasks"] = [{**body["tasks"][0], "id": number, "data": {**body["tasks"][0]["data"], "prompt": "red"}}
                     for number in (4, 5)]  # fmt: skip
    answers = [send(client, "predict-batch", body) for _ in range(2)]
    [batch] = ordered(settings)
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (503, "in_background")
        # Label Studio shows people the reason, if anything.
        assert f"2 tasks are being pre-labelled in the background as batch {batch.id}" in answer.status
    assert sorted(BatchStore(redis).tasks(batch.id)) == [4, 5]
    assert batch.spec.version == send(client, "setup").json["model_version"]
    assert len(open_queue(redis, name=BATCHES)) == 1
    # More of them: only those that no batch has yet make another.
    body["tasks"].append({**body["tasks"][0], "id": 6})
    send(client, "predict-batch", body)
    assert [each.total for each in ordered(settings)] == [1, 2]


def test_without_valkey_tasks_that_do_not_fit_are_refused_with_a_sentence(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    answer = send(make_client(make_settings(batch_from=1)), "predict-batch", with_images("predict-batch"))
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")


def test_new_tasks_are_pre_labelled_where_the_project_wants_it_and_join_one_batch(
    make_client: Callable[[Settings], FlaskClient], settings: Settings, redis: Redis
) -> None:
    client = make_client(settings)
    schema = recorded("setup")["body"]["schema"]

    def arrive(project: int, *tasks: int) -> Any:
        event = {"action": "TASKS_CREATED", "project": {"id": project, "label_config": schema}}
        body = {**event, "tasks": [{"id": task} for task in tasks]}
        return client.post("/webhook", json=body, headers=HOOK).json

    (settings.home / "projects").mkdir(parents=True)
    (settings.home / "projects" / "1.env").write_text("RIS_PRELABEL_NEW=true\n")
    assert arrive(2, 1) == {"ignored": "TASKS_CREATED"}
    first = arrive(1, 1, 2)
    for task in range(3, 13):
        assert arrive(1, task) == {"batch": first["batch"], "new": 1}
    assert arrive(1, 12) == {"batch": first["batch"], "new": 0}
    [batch] = ordered(settings)
    assert (batch.total, batch.spec.origin, batch.spec.project) == (12, "webhook", 1)
    assert len(open_queue(redis, name=BATCHES)) == 1


def test_a_long_sentence_in_the_editor_is_refused(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings]
) -> None:
    client = make_client(make_settings(max_prompt_length=9))
    answer = send(client, "predict-interactive-text")
    assert (answer.status_code, answer.json["code"]) == (422, "bad_prompt")
    assert "RIS_MAX_PROMPT_LENGTH" in answer.json["message"]


def test_hosts_and_local_files_are_let_through_as_set(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    images = services.image_resolver(make_settings(local_files_root=tmp_path, image_hosts=("10.0.0.7",)))
    assert images.fetch("/data/local-files/?d=a.png", 1) == b"image"


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
