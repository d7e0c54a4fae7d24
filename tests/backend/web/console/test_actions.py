"""The buttons do what the commands do: once, and only what was shown."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from recorded import BASIC
from redis import Redis
from studio import PROJECT

from backend import services
from backend.batches.store import BatchSpec
from backend.queue.queue import JobQueue
from backend.registry import Version
from backend.settings import Settings

from .conftest import HERE, Browser

OF_PROJECT = f"projects/{PROJECT}"
EXPORT = {"format": "coco", "annotations": "best", "images": "copy", "tolerance": "0", "report": "yes"}


def production(settings: Settings) -> str:
    return services.registry(settings).pointer(PROJECT).version


def queued(redis: Redis) -> dict[str, list[Any]]:
    return {job["function"]: job["arguments"] for job in JobQueue(redis).recent()}


def test_a_version_is_promoted_and_taken_back(
    console: Browser, console_settings: Settings, learnt: list[Version], redis: Redis
) -> None:
    base, first, second = (version.name for version in learnt)
    answer = console.submit(f"{OF_PROJECT}/versions/{first}/promote")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"../../../{PROJECT}?done=promoted")
    assert production(console_settings) == first
    assert queued(redis)["refresh"] == [PROJECT]
    assert "It is in production now." in console.open(f"{OF_PROJECT}?done=promoted").text
    assert console.submit(f"{OF_PROJECT}/versions/{second}/promote").status_code == 303
    assert f"Roll back to {first} ?" in console.open(f"{OF_PROJECT}/roll-back").text
    assert console.submit(f"{OF_PROJECT}/roll-back").status_code == 303
    assert production(console_settings) == first
    assert console.submit(f"{OF_PROJECT}/roll-back").status_code == 303
    assert production(console_settings) == base
    assert "no version to go back to" in console.open(f"{OF_PROJECT}/roll-back").text
    assert "Roll back" not in console.open(OF_PROJECT).text


@pytest.mark.parametrize("path", [f"{OF_PROJECT}/roll-back", f"{OF_PROJECT}/versions/{{}}/promote"])
def test_a_page_that_is_too_old_changes_nothing(
    console: Browser, console_settings: Settings, learnt: list[Version], path: str
) -> None:
    """Somebody else promoted in between: what the person saw isn't what would be replaced."""
    registry = services.registry(console_settings)
    registry.promote(PROJECT, learnt[1].name)
    form = {name: console.open(path.format(learnt[2].name)).field(name) for name in ("token", "instead_of")}
    registry.promote(PROJECT, learnt[0].name)
    answer = console.client.post(f"/console/{path.format(learnt[2].name)}", data=form, headers={**BASIC, **HERE})
    assert answer.status_code == 409
    assert production(console_settings) == learnt[0].name


def test_a_form_without_the_version_that_was_seen_changes_nothing(
    console: Browser, console_settings: Settings, learnt: list[Version]
) -> None:
    answer = console.submit(f"{OF_PROJECT}/versions/{learnt[1].name}/promote", {"instead_of": ""})
    assert answer.status_code == 422
    assert production(console_settings) == learnt[0].name


def test_fine_tuning_is_queued_however_few_corrections_are_new(console: Browser, redis: Redis) -> None:
    answer = console.submit(f"{OF_PROJECT}/fine-tune")
    job = answer.headers["Location"].rpartition("/")[2]
    assert redis.hget(f"rq:job:{job}", "least") == b"0"
    again = console.submit(f"{OF_PROJECT}/fine-tune")
    assert again.headers["Location"] == answer.headers["Location"]


def test_an_export_is_queued_as_it_is_filled_in(console: Browser, redis: Redis) -> None:
    form = EXPORT | {"format": "refcoco", "tolerance": "1.5", "strict": "yes", "name": "mine"}
    answer = console.submit(f"{OF_PROJECT}/export", form)
    assert answer.status_code == 303
    project, name, spec = queued(redis)["export"]
    assert (project, name) == (PROJECT, "mine")
    assert spec == {
        "format": "refcoco",
        "annotations": "best",
        "images": "copy",
        "tolerance": 1.5,
        "strict": True,
        "report": True,
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "../../etc"}, "can't name an export"),
        ({"format": "nonsense"}, "There is no export format"),
        ({"annotations": ""}, "There is no choice of annotations"),
        ({"tolerance": "far"}, "isn't a number of pixels"),
        ({"tolerance": "nan"}, "A tolerance is"),
        ({"tolerance": "-1"}, "A tolerance is"),
    ],
)
def test_a_mistake_is_said_above_the_form_which_stays_filled_in(
    console: Browser, redis: Redis, change: dict[str, str], sentence: str
) -> None:
    answer = console.submit(f"{OF_PROJECT}/export", EXPORT | {"name": "<b>mine"} | change)
    assert answer.status_code == 422
    assert sentence in answer.text.replace("&#39;", "'")
    assert "<b>mine" not in answer.text
    assert redis.keys("rq:job:*") == []


def test_tasks_are_pre_labelled_with_the_prompts_of_the_form(
    console: Browser, console_settings: Settings, redis: Redis
) -> None:
    form = {"prompts": " the cat \n\nthe cup\n", "label": "cat", "force": "yes"}
    answer = console.submit(f"{OF_PROJECT}/pre-label", form)
    assert answer.status_code == 303, answer.text
    batch = services.batch_service(console_settings).get(answer.headers["Location"].rpartition("/")[2])
    assert batch.spec.prompts == (("the cat", "cat"), ("the cup", "cat"))
    assert (batch.total, batch.spec.force) == (12, True)
    wrong = console.submit(f"{OF_PROJECT}/pre-label", {"prompts": "a cat " * 200})
    assert wrong.status_code == 422
    assert "RIS_MAX_PROMPT_LENGTH" in wrong.text


def test_a_batch_is_cancelled_and_goes_on(console: Browser, console_settings: Settings) -> None:
    batches = services.batch_service(console_settings)
    batch = batches.submit(BatchSpec(PROJECT, "lda-1", "lda-1.2"), range(1, 40)).id
    assert f"Cancel batch {batch}" in console.open(f"batches/{batch}/cancel").text
    assert console.submit(f"batches/{batch}/cancel").headers["Location"] == f"../{batch}"
    assert batches.get(batch).state == "cancelled"
    assert console.submit(f"batches/{batch}/resume", page=f"batches/{batch}").status_code == 303
    assert batches.get(batch).state == "running"


def test_the_doctor_examines_aside_and_once(console: Browser, console_settings: Settings) -> None:
    knobs = {
        "RIS_PASSWORD": "backend-pass",
        "RIS_WEBHOOK_SECRET": "hook-secret",
        "RIS_LABEL_STUDIO_URL": console_settings.label_studio_url,
        "RIS_LABEL_STUDIO_TOKEN": console_settings.secret("label_studio_token"),
        "RIS_REDIS_URL": console_settings.secret("redis_url"),
    }
    (console_settings.home / "ris.env").write_text("".join(f"{name}={value}\n" for name, value in knobs.items()))
    assert "hasn't been run" in console.open("doctor").text
    assert console.submit("doctor").status_code == 303
    assert "are running already" in console.submit("doctor").text
    end = time.monotonic() + 100
    while "data-live" in (page := console.open("doctor")).answer.text:
        assert time.monotonic() < end
        time.sleep(0.5)
    # No worker runs here.
    assert "worker broken No worker is registered" in page.text
    assert "redis ok" in page.text or "redis warning" in page.text or "redis broken" in page.text
    for secret in ("backend-pass", "hook-secret"):
        assert secret not in page.text


def test_without_valkey_the_page_says_so(
    console: Browser, console_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.web import ml_backend
    from backend.web.app import create_app

    away = console_settings.model_copy(update={"redis_url": type(console_settings.redis_url)("redis://127.0.0.1:1/0")})
    page = Browser(create_app(away, ml_backend.build(away)).test_client()).open("jobs")
    assert page.answer.status_code == 503
    assert "The job queue can't be reached" in page.text
    assert page.answer.headers["Retry-After"]


def test_json_is_for_label_studio_alone(console: Browser) -> None:
    answer = console.client.get("/nowhere", headers=BASIC)
    assert json.loads(answer.text)["code"] == "http_error"
