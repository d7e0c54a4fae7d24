"""Faults between the backend and Label Studio, planted one by one: each is found, and its remedy named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from labelstudio.site import Answer, Asked, serve
from labelstudio.tokens import json_web_token
from pointers import fake_pointer
from ports import free_port

from backend.doctor import studio
from backend.labelstudio.webhooks import SECRET_HEADER

from .chain import PHOTO, PROJECT, Chain

LINKS = (
    *("label-studio", "clock", "token", "project", "backend"),
    *("setup", "registration", "webhook", "image", "predictions"),
)
CONNECT = f"ris connect --project {PROJECT}"


@pytest.mark.parametrize("link", LINKS)
def test_a_whole_link(chain: Chain, link: str) -> None:
    assert chain.expect(link, "ok").remedy == ""


def test_label_studio_is_down(chain: Chain) -> None:
    chain.knobs["label_studio_url"] = f"http://127.0.0.1:{free_port()}"
    chain.expect("label-studio", "broken", remedy="RIS_LABEL_STUDIO_URL")
    assert chain.expect("webhook", "skipped").what == "Needs project."


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b'{"status": "UP"}', b"[]"])
def test_something_else_answers(chain: Chain, body: bytes) -> None:
    with serve(lambda _: Answer(200, body)) as site:
        chain.knobs["label_studio_url"] = site.url
        chain.expect("label-studio", "broken", "isn't Label Studio", "RIS_LABEL_STUDIO_URL")


def test_label_studio_has_moved(chain: Chain) -> None:
    with serve(lambda _: Answer(301, b"", {"Location": "https://labels.example/api/version/"})) as site:
        chain.knobs["label_studio_url"] = site.url
        chain.expect("label-studio", "broken", "redirects to https://labels.example", "RIS_LABEL_STUDIO_URL")


@pytest.mark.parametrize(("ahead", "words"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_that_is_off(chain: Chain, ahead: float, words: str) -> None:
    chain.label_studio.clock = ahead
    chain.expect("clock", "warning", words, "NTP")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (json_web_token(), "Token is blacklisted"),
        (json_web_token("access"), "is an access token"),
        (json_web_token(expires=0), "expired on 01 January 1970"),
        (json_web_token().rpartition(".")[0], "third part"),
        ("0123456789abcdef" * 2 + "01234567", "legacy token authentication has been disabled"),
        (f"Bearer {json_web_token()}", "without Bearer or Token"),
        ("password", "isn't a personal access token"),
    ],
    ids=["revoked", "access", "expired", "cut", "legacy", "prefixed", "none"],
)
def test_a_token_that_is_none(chain: Chain, token: str, words: str) -> None:
    chain.label_studio.token = "another"
    chain.knobs["label_studio_token"] = f'"{token}"'
    finding = chain.expect("token", "broken", words, "personal access token")
    assert token not in finding.what


def test_a_legacy_token_that_is_still_accepted(chain: Chain) -> None:
    chain.label_studio.token = chain.knobs["label_studio_token"] = "ab" * 20
    chain.label_studio.legacy_refused = False
    chain.expect("token", "warning", remedy="personal access token")
    chain.expect("image", "ok")


def test_a_project_that_is_not_there(chain: Chain) -> None:
    chain.expect("project", "broken", "no project 4", "RIS_LABEL_STUDIO_TOKEN", project=4)


def test_without_a_project(chain: Chain) -> None:
    chain.expect("project", "skipped", remedy="--project N", project=None)
    chain.expect("backend", "ok", project=None)
    chain.expect("webhook", "skipped", project=None)


def test_an_interface_without_masks(chain: Chain) -> None:
    chain.label_studio.project["label_config"] = '<View><Image name="image" value="$image"/></View>'
    finding = chain.expect("project", "broken", "BrushLabels")
    assert finding.remedy.startswith("Add <BrushLabels")


def test_the_backend_is_down(chain: Chain) -> None:
    chain.stop_backend()
    chain.expect("backend", "broken", remedy="RIS_BACKEND_URL")


def test_something_else_is_at_the_backends_address(chain: Chain) -> None:
    with serve(lambda _: Answer(200, b"hello")) as site:
        chain.knobs["backend_url"] = site.url
        chain.expect("backend", "broken", "isn't the backend", "RIS_BACKEND_URL")


@pytest.mark.parametrize("address", ["backend:9090", "http://backend:99999", "http://backend.invalid:9090"])
def test_an_address_that_is_none(chain: Chain, address: str) -> None:
    chain.knobs["backend_url"] = address
    chain.expect("backend", "broken", address)


def test_the_backend_runs_with_another_password(chain: Chain) -> None:
    chain.knobs["password"] = "changed since"
    chain.expect("backend", "broken", "another user name or password", "Start it again")


def test_a_slow_backend(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "HEALTH_SECONDS", 0.0)
    chain.expect("backend", "warning", "Label Studio waits")


def test_a_backend_that_is_not_registered(chain: Chain) -> None:
    chain.label_studio.registrations.clear()
    chain.expect("registration", "broken", remedy=CONNECT)
    chain.expect("predictions", "skipped")


def test_a_backend_at_the_address_that_all_share(chain: Chain) -> None:
    chain.label_studio.registrations[0]["url"] = chain.label_studio.backend
    chain.expect("registration", "warning", remedy=CONNECT)


def test_a_backend_that_is_registered_elsewhere(chain: Chain) -> None:
    chain.label_studio.registrations[0]["url"] = "http://127.0.0.1:1"
    chain.expect("registration", "broken", "http://127.0.0.1:1", CONNECT)


@pytest.mark.parametrize(
    ("state", "message", "reason", "words"),
    [
        ("DI", None, (403, "URL resolves to a reserved network address (block: 127.0.0.0/8)"), "BANNED_SUBNETS=false"),
        ("DI", "an old one", (403, "The provided URL was not allowed."), "BANNED_SUBNETS=false"),
        ("DI", None, (400, "Able to connect to ML Server, but authentication parameters were either not ..."), CONNECT),
        ("DI", None, (400, "Can't connect to ML backend, health check failed."), "RIS_BACKEND_URL"),
        ("DI", None, None, "RIS_BACKEND_URL"),
        ("ER", "401 Client Error", None, CONNECT),
        ("ER", "500 Server Error: no BrushLabels", None, "RIS_BACKEND_URL"),
    ],
)
def test_label_studio_can_not_reach_the_backend(
    chain: Chain, state: str, message: str | None, reason: tuple[int, str] | None, words: str
) -> None:
    chain.label_studio.registrations[0] |= {"state": state, "error_message": message}
    chain.label_studio.reason = reason
    chain.expect("registration", "broken", remedy=words)
    # What it is asked to save is what it has already; an empty password keeps the one it knows.
    for saved in chain.label_studio.saved:
        assert (saved["url"], saved["title"], saved["basic_auth_pass"]) == (chain.label_studio.address, "RIS", "")


def test_a_backend_that_is_not_asked_interactively(chain: Chain) -> None:
    chain.label_studio.registrations[0]["is_interactive"] = False
    chain.expect("registration", "broken", remedy=CONNECT)


def test_another_backend_comes_first(chain: Chain) -> None:
    other = chain.label_studio.registration(id=4, title="SAM", url="http://sam:9090")
    chain.label_studio.registrations.insert(0, other)
    chain.expect("registration", "warning", "SAM")


def test_no_webhook(chain: Chain) -> None:
    chain.label_studio.webhooks.clear()
    finding = chain.expect("webhook", "broken", remedy=CONNECT)
    assert "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false" in finding.remedy


def test_a_webhook_that_goes_elsewhere(chain: Chain) -> None:
    chain.label_studio.webhooks[0]["url"] = "http://old:9090/webhook"
    chain.expect("webhook", "broken", "http://old:9090/webhook", CONNECT)


@pytest.mark.parametrize(("headers", "words"), [({}, "no secret"), ({SECRET_HEADER: "wrong"}, "a wrong secret")])
def test_a_webhook_that_is_turned_away(chain: Chain, headers: dict[str, str], words: str) -> None:
    chain.label_studio.webhooks[0]["headers"] = headers
    chain.expect("webhook", "broken", words, CONNECT)


def test_the_backend_runs_with_another_webhook_secret(chain: Chain) -> None:
    chain.knobs["webhook_secret"] = "changed since"
    chain.label_studio.webhooks[0]["headers"] = {SECRET_HEADER: "changed since"}
    chain.expect("webhook", "broken", "another RIS_WEBHOOK_SECRET", "Start it again")


@pytest.mark.parametrize(
    "fields",
    [
        {"is_active": False},
        {"send_payload": False},
        {"send_for_all_actions": False, "actions": ["ANNOTATION_CREATED"]},
    ],
)
def test_a_webhook_that_sends_too_little(chain: Chain, fields: dict[str, object]) -> None:
    chain.label_studio.webhooks[0] |= fields
    chain.expect("webhook", "broken", remedy="Webhooks")


def test_a_webhook_for_the_events_that_count(chain: Chain) -> None:
    events = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"]
    chain.label_studio.webhooks[0] |= {"send_for_all_actions": False, "actions": events}
    chain.expect("webhook", "ok")


def test_an_image_that_is_gone(chain: Chain) -> None:
    chain.label_studio.tasks[0]["data"]["image"] = "/data/upload/3/gone.png"
    chain.expect("image", "broken", remedy="import the image again")


def test_an_image_that_is_none(chain: Chain) -> None:
    chain.label_studio.photo = b"<html>log in</html>"
    chain.expect("image", "broken", "isn't a picture")


def test_an_image_that_lies_inside(chain: Chain) -> None:
    chain.label_studio.tasks[0]["data"]["image"] = "http://127.0.0.1:1/cat.png"
    chain.expect("image", "broken", remedy="RIS_IMAGE_HOSTS")


def test_a_task_without_its_image(chain: Chain) -> None:
    chain.label_studio.tasks[0]["data"] = {"photo": PHOTO}
    chain.expect("image", "broken", remedy='"$image"')


def test_a_project_without_tasks(chain: Chain) -> None:
    chain.label_studio.tasks.clear()
    chain.expect("image", "skipped")


def test_the_image_is_fetched_past_the_cache(chain: Chain) -> None:
    chain.expect("image", "ok")
    chain.label_studio.photo = b""
    chain.expect("image", "broken")


@pytest.mark.parametrize(
    ("shown", "words", "remedy"),
    [
        ("RIS", "can't order", "ris refresh"),
        ("lda-11111111", "is in production", "ris refresh"),
        ("", "no predictions", "Settings"),
    ],
)
def test_what_the_project_shows(chain: Chain, shown: str, words: str, remedy: str) -> None:
    chain.label_studio.project["model_version"] = shown
    chain.expect("predictions", "warning", words, remedy)


def test_a_label_studio_that_hangs_does_not_hold_the_doctor(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "TIMEOUT", 0.2)

    def hang(_: Asked) -> Answer:
        time.sleep(1)
        return Answer()

    with serve(hang) as site:
        chain.knobs["label_studio_url"] = site.url
        start = time.monotonic()
        chain.expect("label-studio", "broken", "no answer in time")
    assert time.monotonic() - start < 3


def interface(chain: Chain, old: str, new: str) -> None:
    chain.label_studio.project["label_config"] = chain.label_studio.project["label_config"].replace(old, new)


def test_an_interface_to_point_in(chain: Chain) -> None:
    chain.expect("clicks", "ok", "behind Auto-Detect")


def test_an_interface_without_anything_to_point_with(chain: Chain) -> None:
    interface(chain, '<KeyPoint name="point" toName="image" smart="true" smartOnly="true"/>', "")
    chain.expect("clicks", "warning", "no smart tag for a click", remedy='<KeyPoint name="point" toName="image"')


def test_an_interface_in_which_each_click_needs_its_label(chain: Chain) -> None:
    labels = '<KeyPointLabels name="point" toName="image"><Label value="cat"/></KeyPointLabels>'
    interface(chain, '<KeyPoint name="point" toName="image" smart="true" smartOnly="true"/>', labels)
    chain.expect("clicks", "warning", "In point a label has to be chosen", remedy="Keep label selected")


def test_a_zero_shot_segmenter_without_clicks_is_told(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.knobs["model"] = str(fake_pointer("clipseg", tmp_path / "cache", monkeypatch))
    chain.expect("clicks", "warning", "clipseg-", remedy="a zero-shot segmenter that `ris models` says clicks of")
    chain.knobs["model"] = str(fake_pointer("owlv2+sam2", tmp_path / "cache", monkeypatch))
    chain.expect("clicks", "ok", "behind Auto-Detect")
