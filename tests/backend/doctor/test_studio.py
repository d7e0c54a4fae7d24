"""Faults between the backend and Label Studio, planted one by one: each is found, and its remedy named."""

from __future__ import annotations

import time

import pytest
from labelstudio.site import Answer, Asked, serve
from labelstudio.tokens import json_web_token
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
    finding = chain.look(link)
    assert (finding.state, finding.remedy) == ("ok", ""), finding


def test_label_studio_is_down(chain: Chain) -> None:
    chain.knobs["label_studio_url"] = f"http://127.0.0.1:{free_port()}"
    finding = chain.look("label-studio")
    assert finding.state == "broken"
    assert "RIS_LABEL_STUDIO_URL" in finding.remedy
    assert chain.look("webhook").what == "Needs project."


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b'{"status": "UP"}', b"[]"])
def test_something_else_answers(chain: Chain, body: bytes) -> None:
    with serve(lambda _: Answer(200, body)) as site:
        chain.knobs["label_studio_url"] = site.url
        finding = chain.look("label-studio")
    assert finding.state == "broken"
    assert "isn't Label Studio" in finding.what
    assert "RIS_LABEL_STUDIO_URL" in finding.remedy


def test_label_studio_has_moved(chain: Chain) -> None:
    with serve(lambda _: Answer(301, b"", {"Location": "https://labels.example/api/version/"})) as site:
        chain.knobs["label_studio_url"] = site.url
        finding = chain.look("label-studio")
    assert finding.state == "broken"
    assert "redirects to https://labels.example" in finding.what
    assert "RIS_LABEL_STUDIO_URL" in finding.remedy


@pytest.mark.parametrize(("ahead", "words"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_that_is_off(chain: Chain, ahead: float, words: str) -> None:
    chain.label_studio.clock = ahead
    finding = chain.look("clock")
    assert finding.state == "warning"
    assert words in finding.what
    assert "NTP" in finding.remedy


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
    finding = chain.look("token")
    assert finding.state == "broken"
    assert words in finding.what
    assert "personal access token" in finding.remedy
    assert token not in finding.what


def test_a_legacy_token_that_is_still_accepted(chain: Chain) -> None:
    chain.label_studio.token = chain.knobs["label_studio_token"] = "ab" * 20
    chain.label_studio.legacy_refused = False
    finding = chain.look("token")
    assert finding.state == "warning"
    assert "personal access token" in finding.remedy
    assert chain.look("image").state == "ok"


def test_a_project_that_is_not_there(chain: Chain) -> None:
    finding = chain.look("project", 4)
    assert finding.state == "broken"
    assert "no project 4" in finding.what
    assert "RIS_LABEL_STUDIO_TOKEN" in finding.remedy


def test_without_a_project(chain: Chain) -> None:
    assert "--project N" in chain.look("project", None).remedy
    assert chain.look("backend", None).state == "ok"
    assert chain.look("webhook", None).state == "skipped"


def test_an_interface_without_masks(chain: Chain) -> None:
    chain.label_studio.project["label_config"] = '<View><Image name="image" value="$image"/></View>'
    finding = chain.look("project")
    assert finding.state == "broken"
    assert "BrushLabels" in finding.what
    assert finding.remedy.startswith("Add <BrushLabels")


def test_the_backend_is_down(chain: Chain) -> None:
    chain.stop_backend()
    finding = chain.look("backend")
    assert finding.state == "broken"
    assert "RIS_BACKEND_URL" in finding.remedy


def test_something_else_is_at_the_backends_address(chain: Chain) -> None:
    with serve(lambda _: Answer(200, b"hello")) as site:
        chain.knobs["backend_url"] = site.url
        finding = chain.look("backend")
    assert finding.state == "broken"
    assert "isn't the backend" in finding.what
    assert "RIS_BACKEND_URL" in finding.remedy


@pytest.mark.parametrize("address", ["backend:9090", "http://backend:99999", "http://backend.invalid:9090"])
def test_an_address_that_is_none(chain: Chain, address: str) -> None:
    chain.knobs["backend_url"] = address
    finding = chain.look("backend")
    assert finding.state == "broken"
    assert address in finding.what


def test_the_backend_runs_with_another_password(chain: Chain) -> None:
    chain.knobs["password"] = "changed since"
    finding = chain.look("backend")
    assert finding.state == "broken"
    assert "another user name or password" in finding.what
    assert "Start it again" in finding.remedy


def test_a_slow_backend(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "HEALTH_SECONDS", 0.0)
    finding = chain.look("backend")
    assert finding.state == "warning"
    assert "Label Studio waits" in finding.what


def test_a_backend_that_is_not_registered(chain: Chain) -> None:
    chain.label_studio.registrations.clear()
    finding = chain.look("registration")
    assert finding.state == "broken"
    assert CONNECT in finding.remedy
    assert chain.look("predictions").state == "skipped"


def test_a_backend_at_the_address_that_all_share(chain: Chain) -> None:
    chain.label_studio.registrations[0]["url"] = chain.label_studio.backend
    finding = chain.look("registration")
    assert finding.state == "warning"
    assert CONNECT in finding.remedy


def test_a_backend_that_is_registered_elsewhere(chain: Chain) -> None:
    chain.label_studio.registrations[0]["url"] = "http://127.0.0.1:1"
    finding = chain.look("registration")
    assert finding.state == "broken"
    assert "http://127.0.0.1:1" in finding.what
    assert CONNECT in finding.remedy


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
    finding = chain.look("registration")
    assert finding.state == "broken"
    assert words in finding.remedy
    # What it is asked to save is what it has already; an empty password keeps the one it knows.
    for saved in chain.label_studio.saved:
        assert (saved["url"], saved["title"], saved["basic_auth_pass"]) == (chain.label_studio.address, "RIS", "")


def test_a_backend_that_is_not_asked_interactively(chain: Chain) -> None:
    chain.label_studio.registrations[0]["is_interactive"] = False
    finding = chain.look("registration")
    assert finding.state == "broken"
    assert CONNECT in finding.remedy


def test_another_backend_comes_first(chain: Chain) -> None:
    other = chain.label_studio.registration(id=4, title="SAM", url="http://sam:9090")
    chain.label_studio.registrations.insert(0, other)
    finding = chain.look("registration")
    assert finding.state == "warning"
    assert "SAM" in finding.what


def test_no_webhook(chain: Chain) -> None:
    chain.label_studio.webhooks.clear()
    finding = chain.look("webhook")
    assert finding.state == "broken"
    assert CONNECT in finding.remedy
    assert "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false" in finding.remedy


def test_a_webhook_that_goes_elsewhere(chain: Chain) -> None:
    chain.label_studio.webhooks[0]["url"] = "http://old:9090/webhook"
    finding = chain.look("webhook")
    assert finding.state == "broken"
    assert "http://old:9090/webhook" in finding.what
    assert CONNECT in finding.remedy


@pytest.mark.parametrize(("headers", "words"), [({}, "no secret"), ({SECRET_HEADER: "wrong"}, "a wrong secret")])
def test_a_webhook_that_is_turned_away(chain: Chain, headers: dict[str, str], words: str) -> None:
    chain.label_studio.webhooks[0]["headers"] = headers
    finding = chain.look("webhook")
    assert finding.state == "broken"
    assert words in finding.what
    assert CONNECT in finding.remedy


def test_the_backend_runs_with_another_webhook_secret(chain: Chain) -> None:
    chain.knobs["webhook_secret"] = "changed since"
    chain.label_studio.webhooks[0]["headers"] = {SECRET_HEADER: "changed since"}
    finding = chain.look("webhook")
    assert finding.state == "broken"
    assert "another RIS_WEBHOOK_SECRET" in finding.what
    assert "Start it again" in finding.remedy


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
    finding = chain.look("webhook")
    assert finding.state == "broken"
    assert "Webhooks" in finding.remedy


def test_a_webhook_for_the_events_that_count(chain: Chain) -> None:
    events = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"]
    chain.label_studio.webhooks[0] |= {"send_for_all_actions": False, "actions": events}
    assert chain.look("webhook").state == "ok"


def test_an_image_that_is_gone(chain: Chain) -> None:
    chain.label_studio.tasks[0]["data"]["image"] = "/data/upload/3/gone.png"
    finding = chain.look("image")
    assert finding.state == "broken"
    assert "import the image again" in finding.remedy


def test_an_image_that_is_none(chain: Chain) -> None:
    chain.label_studio.photo = b"<html>log in</html>"
    finding = chain.look("image")
    assert finding.state == "broken"
    assert "isn't a picture" in finding.what


def test_an_image_that_lies_inside(chain: Chain) -> None:
    chain.label_studio.tasks[0]["data"]["image"] = "http://127.0.0.1:1/cat.png"
    finding = chain.look("image")
    assert finding.state == "broken"
    assert "RIS_IMAGE_HOSTS" in finding.remedy


def test_a_task_without_its_image(chain: Chain) -> None:
    chain.label_studio.tasks[0]["data"] = {"photo": PHOTO}
    finding = chain.look("image")
    assert finding.state == "broken"
    assert '"$image"' in finding.remedy


def test_a_project_without_tasks(chain: Chain) -> None:
    chain.label_studio.tasks.clear()
    assert chain.look("image").state == "skipped"


def test_the_image_is_fetched_past_the_cache(chain: Chain) -> None:
    assert chain.look("image").state == "ok"
    chain.label_studio.photo = b""
    assert chain.look("image").state == "broken"


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
    finding = chain.look("predictions")
    assert finding.state == "warning"
    assert words in finding.what
    assert remedy in finding.remedy


def test_a_label_studio_that_hangs_does_not_hold_the_doctor(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "_TIMEOUT", 0.2)

    def hang(_: Asked) -> Answer:
        time.sleep(1)
        return Answer()

    with serve(hang) as site:
        chain.knobs["label_studio_url"] = site.url
        start = time.monotonic()
        finding = chain.look("label-studio")
    assert time.monotonic() - start < 3
    assert "no answer in time" in finding.what
