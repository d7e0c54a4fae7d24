"""What a token is, as far as its text tells, and how each kind is sent. The client's tests cover the exchange."""

from __future__ import annotations

import json
import time

import pytest

from backend.errors import LabelStudioUnauthorized
from backend.labelstudio.auth import objection
from backend.labelstudio.client import LabelStudio

from .site import Answer, Asked, serve
from .tokens import json_web_token

LEGACY = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    "token",
    [json_web_token(), json_web_token(expires=time.time() + 6e9), LEGACY],
    ids=["an hour", "200 years", "legacy"],
)
def test_nothing_speaks_against_a_good_token(token: str) -> None:
    assert objection(token) is None


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (json_web_token("access"), "access token, which lives for five minutes"),
        (json_web_token("access", expires=0), "access token"),
        (json_web_token(expires=86400), "expired on 02 January 1970"),
        (json_web_token().rpartition(".")[0], "lost its third part"),
        (f"Bearer {json_web_token()}", "without Bearer"),
        (f"Token {LEGACY}", "isn't a personal access token"),
        (LEGACY[:-1], "isn't a personal access token"),
        (json_web_token().split(".")[1], "isn't a personal access token"),
        ("eyJ.eyJ.x", "isn't a personal access token"),
        ("eyJ.W10.x", "isn't a personal access token"),
        ("", "isn't a personal access token"),
    ],
    ids=["access", "old-access", "expired", "cut", "bearer", "token", "short", "middle", "no-json", "a-list", "empty"],
)
def test_each_mistake_has_its_own_words(token: str, words: str) -> None:
    assert words in (objection(token) or "")


def test_a_refused_token_is_told_what_it_is() -> None:
    def refuse(_: Asked) -> Answer:
        return Answer(401, json.dumps({"detail": "Token has wrong type"}).encode())

    token = json_web_token("access")
    with serve(refuse) as site, LabelStudio(site.url, token) as client:
        with pytest.raises(LabelStudioUnauthorized, match=r"is an access token.*personal access token") as caught:
            client.whoami()
        assert token not in str(caught.value)


def test_what_label_studio_says_of_a_token_is_passed_on() -> None:
    def refuse(_: Asked) -> Answer:
        return Answer(401, json.dumps({"detail": "Token is blacklisted"}).encode())

    with (
        serve(refuse) as site,
        LabelStudio(site.url, json_web_token()) as client,
        pytest.raises(LabelStudioUnauthorized, match="401: Token is blacklisted"),
    ):
        client.whoami()


@pytest.mark.parametrize("accepted", [True, False])
def test_a_legacy_token_is_sent_itself(accepted: bool) -> None:
    def answer(_: Asked) -> Answer:
        if accepted:
            return Answer(200, b'{"id": 1}')
        return Answer(401, b'{"detail": "legacy token authentication has been disabled"}')

    with serve(answer) as site, LabelStudio(site.url, LEGACY) as client:
        if accepted:
            assert client.whoami() == {"id": 1}
        else:
            with pytest.raises(LabelStudioUnauthorized, match="has been disabled"):
                client.whoami()
        assert [asked.headers["Authorization"] for asked in site.asked] == [f"Token {LEGACY}"]
