"""What changes something comes from the console's own pages, and every page keeps to itself."""

from __future__ import annotations

import pytest
from recorded import BASIC
from redis import Redis
from studio import PROJECT
from werkzeug.test import EnvironBuilder

from backend.registry import Version
from backend.web.app import App
from backend.web.console.guard import COOKIE, FIELD

from .conftest import HERE, Browser

FINE_TUNE = f"projects/{PROJECT}/fine-tune"

ELSEWHERE = {
    "no word of it": {},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port of this host": {"Sec-Fetch-Site": "same-site"},
    "typed": {"Sec-Fetch-Site": "none"},
    "another origin": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://localhost:8080"},
    "a sandbox": {"Origin": "null"},
    "no address": {"Origin": "http://[localhost"},
    "another page": {"Referer": "http://evil.example/localhost/console/"},
    "a site that says it is here": {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
}


def addresses(console: Browser) -> list[tuple[str, str]]:
    rules = [rule for rule in console.client.application.url_map.iter_rules() if rule.endpoint.startswith("console.")]
    values = {"number": PROJECT, "name": "x", "identity": "x", "snapshot": "x", "expression": 1, "rest": "x"}
    values |= {"filename": "console.css"}
    built = []
    for rule in rules:
        _, path = rule.build({name: values[name] for name in rule.arguments}, append_unknown=False)
        built += [(method, path) for method in sorted(rule.methods - {"OPTIONS", "HEAD"})]
    return built


def test_every_address_wants_the_password(console: Browser) -> None:
    listed = addresses(console)
    assert len(listed) > 20
    for method, path in listed:
        answer = console.client.open(path, method=method, headers=HERE)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert "Content-Security-Policy" in answer.headers
        answer.close()


def test_no_address_changes_anything_without_a_token(console: Browser, redis: Redis, learnt: list[Version]) -> None:
    posts = [path for method, path in addresses(console) if method == "POST"]
    assert len(posts) >= 7
    for path in posts:
        for form in ({}, {FIELD: ""}, {FIELD: "0" * 64}, {FIELD: "ä"}):
            answer = console.client.post(path, data=form, headers={**BASIC, **HERE})
            assert answer.status_code == 403, path
            assert "nothing was done" in answer.text
    assert redis.keys("rq:job:*") == []


@pytest.mark.parametrize("where", ELSEWHERE)
def test_what_comes_from_elsewhere_is_refused(console: Browser, redis: Redis, where: str) -> None:
    token = console.open(FINE_TUNE).field(FIELD)
    answer = console.client.post(f"/console/{FINE_TUNE}", data={FIELD: token}, headers={**BASIC, **ELSEWHERE[where]})
    assert answer.status_code == 403
    assert redis.keys("rq:job:*") == []


@pytest.mark.parametrize(
    "headers", [HERE, {"Origin": "http://localhost"}, {"Referer": "http://LOCALHOST/console/projects/3"}]
)
def test_what_comes_from_here_is_done(console: Browser, redis: Redis, headers: dict[str, str]) -> None:
    token = console.open(FINE_TUNE).field(FIELD)
    answer = console.client.post(f"/console/{FINE_TUNE}", data={FIELD: token}, headers={**BASIC, **headers})
    assert answer.status_code == 303
    assert len(redis.keys("rq:job:*")) == 1


def test_a_token_is_of_one_browser(console: Browser) -> None:
    token = console.open(FINE_TUNE).field(FIELD)
    assert console.open(FINE_TUNE).field(FIELD) == token
    console.client.delete_cookie(COOKIE)
    assert console.open(FINE_TUNE).field(FIELD) != token
    stolen = console.client.post(f"/console/{FINE_TUNE}", data={FIELD: token}, headers={**BASIC, **HERE})
    assert stolen.status_code == 403


def test_the_cookie_is_sent_by_our_own_pages_alone_and_read_by_no_script(console: Browser) -> None:
    cookie = console.open(FINE_TUNE).answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    console.client.delete_cookie(COOKIE)
    secure = console.client.get(f"/console/{FINE_TUNE}", headers=BASIC, base_url="https://localhost")
    assert "Secure" in secure.headers["Set-Cookie"]


def test_pages_are_framed_by_nobody_and_run_nothing_but_their_own(console: Browser) -> None:
    for path in ("", f"projects/{PROJECT}", "nowhere", "static/console.js"):
        answer = console.open(path).answer
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_form_is_read_of_whoever_knows_the_password(console: Browser) -> None:
    """The token stands in the body: the head alone decides whether that is read at all."""
    app = console.client.application
    assert isinstance(app, App)
    for method, path in addresses(console):
        if method == "POST":
            heads = [EnvironBuilder(path, method="POST", headers=headers).get_environ() for headers in (BASIC, {})]
            assert [app.wants_body(head) for head in heads] == [True, False]
