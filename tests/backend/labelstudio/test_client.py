"""The client against a local server that behaves as Label Studio 1.23.2 was seen to, well and badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from backend.errors import (
    LabelStudioError,
    LabelStudioFailed,
    LabelStudioNotFound,
    LabelStudioRateLimited,
    LabelStudioRefused,
    LabelStudioUnauthorized,
    LabelStudioUnreachable,
)
from backend.labelstudio import auth, client
from backend.labelstudio.auth import login_for_token
from backend.labelstudio.client import LabelStudio

from .site import Answer, Asked, Site, serve

TOKEN = "personal-token-0123456789"
ME = "/api/current-user/whoami"


def as_json(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def detail(status: int, text: str, **more: object) -> Answer:
    return as_json({"id": "x", "status_code": status, "version": "1.23.2", "detail": text, **more}, status)


class Studio:
    """Label Studio's door: gives out access tokens, refuses others, and answers the rest by a table."""

    def __init__(self) -> None:
        self.valid: set[str] = set()
        self.given = 0
        self.routes: dict[str, Answer] = {ME: as_json({"id": 1, "email": "a@example.com"})}

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            return self.refresh(asked)
        if asked.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
            return detail(401, "Authentication credentials were not provided.")
        return self.routes.get(asked.path, detail(404, "No Task matches the given query."))

    def refresh(self, asked: Asked) -> Answer:
        if json.loads(asked.body) != {"refresh": TOKEN}:
            return detail(401, "Token is invalid")
        self.given += 1
        self.valid = {f"access-{self.given}"}
        return as_json({"access": f"access-{self.given}"})


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def connected(site: Site) -> Iterator[LabelStudio]:
    with LabelStudio(site.url + "/", TOKEN) as connected:
        yield connected


def test_the_token_is_exchanged_once_and_never_sent_as_it_is(connected: LabelStudio, site: Site) -> None:
    assert [connected.whoami()["id"] for _ in range(3)] == [1, 1, 1]
    assert site.paths() == ["/api/token/refresh/", ME, ME, ME]
    assert {asked.headers.get("Authorization") for asked in site.asked[1:]} == {"Bearer access-1"}


def test_an_access_token_that_expired_early_is_renewed(connected: LabelStudio, studio: Studio) -> None:
    connected.whoami()
    studio.valid.clear()
    assert connected.whoami()["id"] == 1
    assert studio.given == 2


def test_an_access_token_is_renewed_before_it_expires(
    connected: LabelStudio, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_ACCESS_SECONDS", 0.05)
    connected.whoami()
    time.sleep(0.1)
    connected.whoami()
    assert studio.given == 2


def test_a_second_refusal_is_final(connected: LabelStudio, studio: Studio, site: Site) -> None:
    studio.routes[ME] = detail(401, "User is inactive")
    with pytest.raises(LabelStudioUnauthorized, match="RIS_LABEL_STUDIO_TOKEN"):
        connected.whoami()
    assert site.paths().count(ME) == 2
    assert studio.given == 2


def test_many_threads_share_one_renewal(connected: LabelStudio, studio: Studio) -> None:
    start = threading.Barrier(8)

    def ask(_: int) -> int:
        start.wait()
        return int(connected.whoami()["id"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {1}
        assert studio.given == 1
        studio.valid.clear()
        assert set(pool.map(ask, range(8))) == {1}
    assert studio.given == 2


def test_a_wrong_token_is_named_but_not_shown(site: Site) -> None:
    with LabelStudio(site.url, "secret-and-wrong") as wrong, pytest.raises(LabelStudioUnauthorized) as caught:
        wrong.whoami()
    assert "RIS_LABEL_STUDIO_TOKEN" in str(caught.value)
    assert "secret-and-wrong" not in str(caught.value) + repr(caught.value) + repr(wrong) + repr(wrong.auth)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (detail(403, "URL resolves to a reserved network address"), LabelStudioUnauthorized, "reserved network"),
        (detail(404, "No Task matches the given query."), LabelStudioNotFound, ME),
        (detail(429, "Request was throttled."), LabelStudioRateLimited, "try again"),
        (detail(400, "Validation error", validation_errors={"title": ["Too short."]}), LabelStudioRefused, "Too short"),
        (detail(500, "'NoneType' object"), LabelStudioFailed, "500: 'NoneType' object"),
        (Answer(503, b"<html>busy</html>"), LabelStudioFailed, "503"),
        (Answer(302, b"", {"Location": "https://elsewhere.example/"}), LabelStudioFailed, "RIS_LABEL_STUDIO_URL"),
        (Answer(200, b"<html>hello</html>"), LabelStudioFailed, "RIS_LABEL_STUDIO_URL"),
        (as_json(["a list"]), LabelStudioFailed, "RIS_LABEL_STUDIO_URL"),
        (Answer(200, b"this is no gzip stream", {"Content-Encoding": "gzip"}), LabelStudioUnreachable, "DecodingError"),
        (Answer(reset=True), LabelStudioUnreachable, "Check that it runs"),
    ],
)
def test_each_failure_has_its_own_sentence(
    connected: LabelStudio, studio: Studio, answer: Answer, kind: type[LabelStudioError], message: str
) -> None:
    studio.routes[ME] = answer
    with pytest.raises(kind) as caught:
        connected.whoami()
    assert type(caught.value) is kind
    assert message in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_renewal_is_reported_as_what_it_is(connected: LabelStudio, site: Site, status: int) -> None:
    site.answering = lambda _: detail(status, "no")
    with pytest.raises(LabelStudioRateLimited if status == 429 else LabelStudioFailed):
        connected.whoami()
    assert len(site.asked) == 1


def test_recovery_after_a_failing_renewal(connected: LabelStudio, site: Site, studio: Studio) -> None:
    site.answering = lambda _: Answer(reset=True)
    with pytest.raises(LabelStudioUnreachable):
        connected.whoami()
    site.answering = studio
    assert connected.whoami()["id"] == 1


def test_a_silent_server_times_out(site: Site) -> None:
    silent = threading.Event()

    def wait(_: Asked) -> Answer:
        silent.wait(5)
        return Answer()

    site.answering = wait
    with LabelStudio(site.url, TOKEN, httpx.Timeout(0.2)) as hurried:
        start = time.perf_counter()
        with pytest.raises(LabelStudioUnreachable, match="no answer in time"):
            hurried.whoami()
        assert time.perf_counter() - start < 2
    silent.set()


def test_nobody_listens() -> None:
    with serve(lambda _: Answer()) as gone:
        url = gone.url
    with LabelStudio(url, TOKEN) as lonely, pytest.raises(LabelStudioUnreachable, match=url):
        lonely.whoami()


def test_tasks_are_paged_to_the_last(
    connected: LabelStudio, site: Site, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAGE_SIZE", 2)
    rows = [{"id": number, "annotations": [{"id": number}]} for number in range(5)]

    def answer(asked: Asked) -> Answer:
        if asked.path != "/api/tasks/":
            return studio(asked)
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}
        assert (query["fields"], query["resolve_uri"], query["project"]) == ("all", "false", "7")
        first = (int(query["page"]) - 1) * int(query["page_size"])
        page = rows[first : first + 2]
        return as_json({"tasks": page, "total": len(rows)}) if page else detail(404, "Invalid page.")

    site.answering = answer
    assert list(connected.tasks(7)) == rows
    rows.pop()
    assert list(connected.tasks(7)) == rows
    rows.clear()
    with pytest.raises(LabelStudioNotFound):
        list(connected.tasks(7))


def test_tasks_are_read_by_id_in_pages_that_an_address_can_hold(
    connected: LabelStudio, site: Site, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SHORT_PAGE", 2)

    def answer(asked: Asked) -> Answer:
        if asked.path != "/api/tasks/":
            return studio(asked)
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}
        chosen = json.loads(query["query"])["selectedItems"]
        assert (chosen["all"], query["fields"], query["page"]) == (False, "all", "1")
        assert query["include"] == "id,data,predictions,annotations"
        there = [{"id": task} for task in chosen["included"] if task != 3]
        return as_json({"tasks": there, "total": len(there)})

    site.answering = answer
    assert [task["id"] for task in connected.tasks_of(7, [1, 2, 3, 4, 5])] == [1, 2, 4, 5]
    assert list(connected.tasks_of(7, [])) == []


def test_ids_are_those_of_the_project_or_of_a_tab(connected: LabelStudio, site: Site, studio: Studio) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path != "/api/tasks/":
            return studio(asked)
        query = parse_qs(urlsplit(asked.target).query)
        assert ("fields" in query, query["include"]) == (False, ["id"])
        tasks = [{"id": 4}] if query.get("view") == ["9"] else [{"id": 4}, {"id": 5}]
        return as_json({"tasks": tasks, "total": len(tasks)})

    site.answering = answer
    assert list(connected.task_ids(7)) == [4, 5]
    assert list(connected.task_ids(7, view=9)) == [4]


def test_predictions_are_imported_together_changed_and_deleted(
    connected: LabelStudio, site: Site, studio: Studio
) -> None:
    studio.routes["/api/projects/7/import/predictions"] = as_json({"created": 2}, 201)
    studio.routes["/api/predictions/5/"] = as_json({"id": 5})
    assert connected.import_predictions(7, [b'{"task": 1}', b'{"task": 2}']) == 2
    assert json.loads(site.asked[-1].body) == [{"task": 1}, {"task": 2}]
    assert site.asked[-1].headers["Content-Type"] == "application/json"
    connected.update_prediction(5, b'{"score": 0.5}')
    assert (site.asked[-1].method, json.loads(site.asked[-1].body)) == ("PATCH", {"score": 0.5})
    connected.delete_prediction(5)
    assert site.asked[-1].method == "DELETE"


def test_projects_are_paged_on_the_configured_host(connected: LabelStudio, site: Site, studio: Studio) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path != "/api/projects/":
            return studio(asked)
        last = "page=2" in asked.target
        following = None if last else "http://internal.example/api/projects/?page=2&page_size=100"
        return as_json({"results": [{"id": 2 if last else 1}], "next": following})

    site.answering = answer
    assert [project["id"] for project in connected.projects()] == [1, 2]


def test_a_backend_is_updated_with_all_that_label_studio_needs(
    connected: LabelStudio, site: Site, studio: Studio
) -> None:
    studio.routes["/api/ml/3"] = as_json({"id": 3, "project": 7})
    connected.update_ml_backend(3, "http://127.0.0.1:9090", "RIS", "ris", "word")
    sent = site.asked[-1]
    assert sent.method == "PATCH"
    assert json.loads(sent.body) == {
        "project": 7,
        "url": "http://127.0.0.1:9090",
        "title": "RIS",
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": "ris",
        "basic_auth_pass": "word",
    }


class LoginPage:
    """The login form of Label Studio, its cookie and its one token a user."""

    def __init__(self) -> None:
        self.tokens = ["old"]

    def __call__(self, asked: Asked) -> Answer:
        form = b'<input type="hidden" name="csrfmiddlewaretoken" value="f0rm">'
        if asked.path == "/user/login/" and asked.method == "GET":
            return Answer(200, form, {"Set-Cookie": "csrftoken=c00kie; Path=/"})
        if asked.path == "/user/login/":
            sent = parse_qs(asked.body.decode())
            right = sent == {"csrfmiddlewaretoken": ["f0rm"], "email": ["a@example.com"], "password": ["pass word"]}
            headers = {"Location": "/", "Set-Cookie": "sessionid=s3ssion; Path=/"}
            return Answer(302, b"", headers) if right else Answer(200, form)
        if "sessionid=s3ssion" not in asked.headers["Cookie"] or asked.headers.get("X-CSRFToken") != "c00kie":
            return detail(403, "CSRF Failed")
        return self.token_call(asked)

    def token_call(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/blacklist/":
            self.tokens.remove(json.loads(asked.body)["refresh"])
            return Answer(204)
        if asked.method == "GET":
            return as_json([{"token": token} for token in self.tokens])
        if self.tokens:
            return detail(409, "You already have a valid token. Please revoke it before creating a new one.")
        return as_json({"token": TOKEN}, 201)


def test_login_for_token() -> None:
    page = LoginPage()
    with serve(page) as site:
        with pytest.raises(LabelStudioRefused, match="revoke it"):
            login_for_token(site.url, "a@example.com", "pass word")
        assert login_for_token(site.url + "/", "a@example.com", "pass word", replace=True) == TOKEN
        assert page.tokens == []
        with pytest.raises(LabelStudioUnauthorized, match=r"a@example\.com") as caught:
            login_for_token(site.url, "a@example.com", "wrong word")
        assert "wrong word" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(200, b"hello"), LabelStudioFailed),
        (Answer(reset=True), LabelStudioUnreachable),
        (Answer(502), LabelStudioFailed),
    ],
)
def test_login_where_no_label_studio_is(answer: Answer, kind: type[LabelStudioError]) -> None:
    def reply(_: Asked) -> Answer:
        return answer

    with serve(reply) as site, pytest.raises(kind):
        login_for_token(site.url, "a@example.com", "x")


def test_importing_returns_the_tasks(connected: LabelStudio, site: Site, studio: Studio) -> None:
    studio.routes["/api/projects/7/import"] = as_json({"task_ids": [4, 5]}, 201)
    data: list[dict[str, Any]] = [{"image": "a"}, {"image": "b", "prompt": "the cat"}]
    assert connected.import_tasks(7, data) == [4, 5]
    assert json.loads(site.asked[-1].body) == [{"data": fields} for fields in data]
    connected.upload(7, "ä.png", b"\x89PNG")
    assert b"\x89PNG" in site.asked[-1].body
    studio.routes["/api/projects/7/import"] = as_json({"task_count": 2}, 201)
    with pytest.raises(LabelStudioFailed):
        connected.import_tasks(7, data)


def test_label_studio_below_a_sub_path(studio: Studio) -> None:
    page = LoginPage()

    def below(asked: Asked) -> Answer:
        assert asked.path.startswith("/label-studio/")
        inner = Asked(asked.method, asked.target.removeprefix("/label-studio"), asked.headers, asked.body)
        return page(inner) if asked.path.endswith(("/user/login/", "/api/token/", "/blacklist/")) else studio(inner)

    following = "http://elsewhere.example/label-studio/api/projects/?page=2"
    studio.routes["/api/projects/"] = as_json({"results": [{"id": 1}], "next": following})
    with serve(below) as site, LabelStudio(f"{site.url}/label-studio", TOKEN) as connected:
        assert login_for_token(f"{site.url}/label-studio/", "a@example.com", "pass word", replace=True) == TOKEN
        assert connected.whoami()["id"] == 1
        projects = connected.projects()
        assert [next(projects)["id"], next(projects)["id"]] == [1, 1]
        assert site.asked[-1].target == "/label-studio/api/projects/?page=2"


@pytest.mark.parametrize("not_yet", [Answer(502), Answer(reset=True)])
def test_label_studio_is_waited_for(
    connected: LabelStudio, site: Site, studio: Studio, monkeypatch: pytest.MonkeyPatch, not_yet: Answer
) -> None:
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    answers = iter([not_yet, not_yet])
    site.answering = lambda asked: next(answers, None) or studio(asked)
    connected.wait(30)
    assert connected.whoami()["id"] == 1
    site.answering = lambda _: not_yet
    connected.wait(0.2)
    connected.wait(30, stop=lambda: True)


def test_a_label_studio_that_refuses_is_up(connected: LabelStudio, site: Site) -> None:
    site.answering = lambda _: Answer(401, b"{}")
    connected.wait(30)
    assert len(site.asked) == 1
