"""Connecting, against a small Label Studio over HTTP whose answers have the shape of 1.23.2's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from labelstudio.site import Site
from registrations import Studio

from backend.errors import ConfigError, LabelStudioFailed, LabelStudioUnreachable, StartError
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.projects import connect, samples
from backend.projects.connect import BACKEND, LABEL_CONFIG, PROJECT
from backend.settings import Settings
from backend.web import app

URL = "http://127.0.0.1:9090/projects/1"
PHOTOS = [("cat.jpg", b"cat"), ("cup.png", b"cup")]


@pytest.fixture
def studio() -> Studio:
    return Studio()


Make = Callable[..., Settings]


def join(site: Site, make_settings: Make, **knobs: object) -> connect.Connection:
    return connect.connect(make_settings(label_studio_url=site.url, **knobs), lambda: iter(PHOTOS))


def test_everything_is_made_once(studio: Studio, site: Site, make_settings: Make) -> None:
    first, second = join(site, make_settings), join(site, make_settings)
    assert (first.photos, second.photos) == (2, 0)
    assert (first.project, first.backend, first.webhook) == (second.project, second.backend, second.webhook)
    assert [row["title"] for row in studio.projects] == [PROJECT]
    assert [task["data"]["image"][-7:] for task in studio.tasks] == ["cat.jpg", "cup.png"]
    assert [(row["title"], row["url"]) for row in studio.backends] == [(BACKEND, URL)]
    assert [row["url"] for row in studio.webhooks] == [f"{URL}/webhook"]
    assert (first.made, first.registered, first.moved_from, first.url) == (True, True, None, URL)
    assert (second.made, second.registered, second.moved_from) == (False, False, None)


def test_the_backend_gets_its_password_and_the_webhook_its_secret(
    studio: Studio, site: Site, make_settings: Make
) -> None:
    join(site, make_settings)
    (row,) = studio.backends
    assert (row["auth_method"], row["basic_auth_user"], row["basic_auth_pass"], row["is_interactive"]) == (
        *("BASIC_AUTH", "ris", "backend-pass"),
        True,
    )
    assert studio.webhooks[0]["headers"] == {SECRET_HEADER: "hook-secret"}


def test_new_secrets_reach_label_studio(studio: Studio, site: Site, make_settings: Make) -> None:
    join(site, make_settings)
    join(site, make_settings, password="new-pass", webhook_secret="new-secret")
    assert [row["basic_auth_pass"] for row in studio.backends] == ["new-pass"]
    assert [row["headers"] for row in studio.webhooks] == [{SECRET_HEADER: "new-secret"}]


def test_a_backend_that_moved_leaves_no_webhook_behind(studio: Studio, site: Site, make_settings: Make) -> None:
    join(site, make_settings)
    foreign = studio.webhook(1, "http://elsewhere/webhook")
    connection = join(site, make_settings, port=9191)
    moved = "http://127.0.0.1:9191/projects/1"
    assert (connection.moved_from, connection.url, connection.registered) == (URL, moved, False)
    assert [row["url"] for row in studio.backends] == [moved]
    assert {row["url"] for row in studio.webhooks} == {foreign["url"], f"{moved}/webhook"}
    assert foreign["headers"] == {}


OLD = "http://127.0.0.1:9090"


@pytest.mark.parametrize(("title", "url"), [(BACKEND, OLD), ("My model", f"{OLD}/"), ("My model", URL)])
def test_a_registration_of_earlier_times_is_moved_to_the_projects_address(
    studio: Studio, site: Site, make_settings: Make, title: str, url: str
) -> None:
    studio.add(studio.projects, {"title": PROJECT, "description": "mine", "label_config": LABEL_CONFIG})
    studio.backend(project=1, title=title, url=url)
    studio.webhook(1, f"{OLD}/webhook")
    connection = join(site, make_settings)
    assert connection.moved_from == (None if url == URL else OLD)
    assert [(row["title"], row["url"], row["basic_auth_pass"]) for row in studio.backends] == [
        (title, URL, "backend-pass")
    ]
    assert [row["url"] for row in studio.webhooks] == [f"{URL}/webhook"]


def test_an_interrupted_move_leaves_no_second_webhook(studio: Studio, site: Site, make_settings: Make) -> None:
    studio.add(studio.projects, {"title": PROJECT, "description": "mine", "label_config": LABEL_CONFIG})
    studio.backend(project=1, title=BACKEND, url=OLD)
    studio.webhook(1, f"{OLD}/webhook")
    studio.keeps_webhooks = True
    with pytest.raises(LabelStudioFailed):
        join(site, make_settings)
    assert [row["url"] for row in studio.backends] == [URL]
    studio.keeps_webhooks = False
    join(site, make_settings)
    assert [row["url"] for row in studio.webhooks] == [f"{URL}/webhook"]


def connected(site: Site, settings: Settings, title: str, interface: str = LABEL_CONFIG) -> connect.Connection:
    with LabelStudio(site.url, "token") as client:
        return connect.connect_titled(client, title, interface, settings)


def test_each_project_has_an_address_of_its_own(studio: Studio, site: Site, make_settings: Make) -> None:
    settings = make_settings(label_studio_url=site.url)
    connections = [connected(site, settings, title) for title in ("Dogs", "Cats", "Dogs")]
    assert [(connection.project, connection.made, connection.url.rpartition("/")[2]) for connection in connections] == [
        (1, True, "1"),
        (2, True, "2"),
        (1, False, "1"),
    ]
    assert len(studio.backends) == len(studio.webhooks) == 2


def test_an_interface_that_carries_no_masks_is_refused_before_anything_is_made(
    studio: Studio, site: Site, make_settings: Make
) -> None:
    settings = make_settings(label_studio_url=site.url)
    with pytest.raises(ConfigError, match="no Image tag"):
        connected(site, settings, "Dogs", "<View/>")
    assert studio.projects == []
    studio.add(studio.projects, {"title": "Texts", "label_config": ""})
    with LabelStudio(site.url, "token") as client, pytest.raises(ConfigError, match="no Image tag"):
        connect.connect_backend(client, 1, settings)
    assert studio.backends == []


def test_a_lost_webhook_is_made_again(studio: Studio, site: Site, make_settings: Make) -> None:
    join(site, make_settings)
    studio.webhooks.clear()
    join(site, make_settings)
    assert [row["headers"] for row in studio.webhooks] == [{SECRET_HEADER: "hook-secret"}]


def test_other_peoples_backends_are_left_alone(studio: Studio, site: Site, make_settings: Make) -> None:
    studio.add(studio.projects, {"title": PROJECT, "description": "mine", "label_config": LABEL_CONFIG})
    studio.add(studio.backends, {"project": 1, "title": "SAM", "url": "http://sam", "state": "CO"})
    connection = join(site, make_settings)
    assert connection.backend == 2
    assert studio.backends[0] == {"id": 1, "project": 1, "title": "SAM", "url": "http://sam", "state": "CO"}


def test_an_interrupted_import_goes_on(studio: Studio, site: Site, make_settings: Make) -> None:
    studio.breaks_after = 1
    with pytest.raises(Exception, match="500"):
        join(site, make_settings)
    studio.breaks_after = 99
    assert join(site, make_settings).photos == 1
    assert [task["data"]["image"][-7:] for task in studio.tasks] == ["cat.jpg", "cup.png"]


def test_a_photo_that_was_deleted_stays_deleted(studio: Studio, site: Site, make_settings: Make) -> None:
    join(site, make_settings)
    del studio.tasks[0]
    assert join(site, make_settings).photos == 0
    assert len(studio.tasks) == 1


def test_a_backend_that_label_studio_cannot_reach_is_said(studio: Studio, site: Site, make_settings: Make) -> None:
    studio.state = "ER"
    with pytest.raises(StartError, match=r"can't talk to the backend at http://127\.0\.0\.1:9090/projects/1 .*refused"):
        join(site, make_settings)


def test_a_webhook_without_its_secret_is_said(studio: Studio, site: Site, make_settings: Make) -> None:
    studio.forgets_headers = True
    with pytest.raises(StartError, match=f"secret header of webhook 1.*{SECRET_HEADER}"):
        join(site, make_settings)


def test_no_label_studio_is_one_sentence(make_settings: Make) -> None:
    settings = make_settings(label_studio_url="http://127.0.0.1:1", label_studio_password="pass")
    with pytest.raises(LabelStudioUnreachable, match="RIS_LABEL_STUDIO_URL"):
        connect.sign_in(settings)


@pytest.mark.parametrize(
    ("knobs", "url"),
    [
        ({}, "http://127.0.0.1:9090"),
        ({"port": 9191}, "http://127.0.0.1:9191"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:9090"),
        ({"backend_url": "http://backend:9090/"}, "http://backend:9090"),
    ],
)
def test_the_address_that_label_studio_calls(knobs: dict[str, Any], url: str, make_settings: Make) -> None:
    assert connect.backend_url(make_settings(**knobs)) == url


def test_the_backend_reads_the_header_that_is_installed() -> None:
    assert SECRET_HEADER == app.SECRET_HEADER


def test_the_labelling_interface_has_what_the_backend_looks_for() -> None:
    config = parse(LABEL_CONFIG)
    boxes = [config.prompt and config.prompt.name, config.answer and config.answer.name]
    assert [area.name for area in config.areas] == boxes == ["prompt", "ris_answer"]
    assert config.absent
    assert {mask.label for mask in samples.corrections()} == {label.value for label in config.labels}
