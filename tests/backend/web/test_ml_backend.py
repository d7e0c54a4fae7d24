"""The contract as Label Studio's recorded requests meet it, with a real queue and the real predictor."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from recorded import BASIC, HOOK, recorded, send, with_images
from redis import Redis
from werkzeug.test import TestResponse

from backend import services
from backend.batches.store import Batch, BatchStore
from backend.home import prompt_sheet_file
from backend.queue.names import BATCHES, TRAINING
from backend.queue.queue import min_new_of, open_queue
from backend.registry import Registry
from backend.settings import Settings
from ris_core import checkpoint_files

LEARNING = ("annotation-created", "annotation-updated", "annotations-deleted", "start-training")

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
    assert [name.rpartition(".")[0] for name in versions] == [registry.base.name, version.name]
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


def test_a_keypoint_without_words_is_answered_with_a_mask(client: FlaskClient, version: str) -> None:
    body = with_images("predict-interactive-keypoint")
    [prediction] = send(client, "predict-interactive-keypoint", body).json["results"]
    assert [region["type"] for region in prediction["result"]] == ["brushlabels"]
    assert prediction["model_version"] == version


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


def test_what_was_typed_is_not_shown_on_the_next_picture_where_its_mask_is_below_the_floor(
    make_client: Callable[[Settings], FlaskClient], make_settings: Callable[..., Settings], redis_url: str
) -> None:
    """Submitted, a sentence without a mask would say that the thing isn't there."""
    client = make_client(make_settings(redis_url=redis_url, prelabel_min_score=1))
    send(client, "predict-interactive-text", with_images("predict-interactive-text"))
    body = with_images("predict-batch")
    del body["tasks"][0]
    assert send(client, "predict-batch", body).json == {"results": [[]]}


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
    assert (job.func_name, list(job.args), min_new_of(job)) == ("backend.jobs.functions.learn", [1], 3)


def test_start_training_is_content_with_one(client: FlaskClient, redis: Redis) -> None:
    first = send(client, "webhook-start-training", headers=HOOK).json
    assert send(client, "webhook-start-training", headers=HOOK).json == first | {"new": False}
    [job] = open_queue(redis, name=TRAINING).jobs
    assert (job.id, min_new_of(job)) == (first["job"], 1)


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


def test_an_event_of_annotations_names_its_project_whether_it_holds_any(client: FlaskClient) -> None:
    assert (
        client.post("/webhook", json={"action": "ANNOTATIONS_DELETED", "annotations": []}, headers=HOOK).status_code
        == 422
    )
    of_one = {"action": "ANNOTATIONS_DELETED", "annotations": [], "project": {"id": 1}}
    assert client.post("/webhook", json=of_one, headers=HOOK).json == {"ignored": "ANNOTATIONS_DELETED"}


@pytest.mark.parametrize("params", ["", 0, [], False, "context"])
def test_params_that_are_no_object_are_refused(client: FlaskClient, params: object) -> None:
    answer = send(client, "predict-batch", with_images("predict-batch") | {"params": params})
    assert (answer.status_code, answer.json["code"]) == (422, "bad_request")


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
    assert [batch.total for batch in ordered(settings)] == [1, 2]


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
