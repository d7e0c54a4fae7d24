"""Getting in: personal access tokens, and the short-lived ones that Label Studio's API wants instead.

Knows no endpoint but those of tokens. No message, log line or `repr` holds a token.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator

import httpx

from backend.errors import LabelStudioRefused, LabelStudioUnauthorized
from backend.labelstudio.answers import check, json_list, json_object, nonsense, unreachable

TIMEOUT = httpx.Timeout(connect=5.0, read=60.0, write=60.0, pool=60.0)
# An access token lives 300 s. Counted here from its arrival, as the clocks of two machines may differ.
_ACCESS_SECONDS = 240.0
_CSRF_FIELD = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class TokenAuth(httpx.Auth):
    """Signs requests with an access token, renewed when it is old and once more if Label Studio refuses it.

    Safe for threads: one renews, the others wait for it. Raises LabelStudioError if it can't be renewed.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._access: str | None = None
        self._stale_at = 0.0
        self._lock = threading.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        access = yield from self._current(request, refused=None)
        request.headers["Authorization"] = f"Bearer {access}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            access = yield from self._current(request, refused=access)
            request.headers["Authorization"] = f"Bearer {access}"
            yield request

    def _current(self, request: httpx.Request, refused: str | None) -> Generator[httpx.Request, httpx.Response, str]:
        with self._lock:
            if self._access in (None, refused) or time.monotonic() > self._stale_at:
                response = yield self._renewal(request)
                response.read()
                self._access = _field(response, "access")
                self._stale_at = time.monotonic() + _ACCESS_SECONDS
            return str(self._access)

    def _renewal(self, request: httpx.Request) -> httpx.Request:
        # The time-outs travel in the extensions: without them, a silent server would hold every thread.
        return httpx.Request(
            "POST",
            f"{self._url}/api/token/refresh/",
            json={"refresh": self._token},
            extensions=request.extensions,
        )


def login_for_token(url: str, email: str, password: str, replace: bool = False) -> str:
    """Log in as a person does in the browser and make a personal access token.

    Label Studio allows each user one token and never shows it again. With `replace`, one that exists is
    revoked first; without it, LabelStudioRefused is raised. LabelStudioUnauthorized means a wrong password.
    """
    url = url.rstrip("/")
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as http:
            _log_in(http, email, password)
            # Behind https, Django refuses a form that doesn't say where it came from.
            http.headers.update({"X-CSRFToken": http.cookies.get("csrftoken") or "", "Referer": url})
            if replace:
                _revoke_tokens(http)
            return _make_token(http, email)
    except httpx.RequestError as error:
        raise unreachable(url, error) from error


def _log_in(http: httpx.Client, email: str, password: str) -> None:
    page = http.get("/user/login/")
    check(page)
    field = _CSRF_FIELD.search(page.text)
    if field is None:
        raise nonsense(page)
    form = {"csrfmiddlewaretoken": field[1], "email": email, "password": password}
    # A wrong password shows the form again; the right one leads away from it.
    if not http.post("/user/login/", data=form, headers={"Referer": str(page.url)}).is_redirect:
        raise LabelStudioUnauthorized(f"Label Studio doesn't let {email} in. Check the address and the password.")


def _revoke_tokens(http: httpx.Client) -> None:
    for token in json_list(http.get("/api/token/")):
        check(http.post("/api/token/blacklist/", json={"refresh": token["token"]}))


def _make_token(http: httpx.Client, email: str) -> str:
    response = http.post("/api/token/", json={})
    if response.status_code == httpx.codes.CONFLICT:
        raise LabelStudioRefused(
            f"{email} has a personal access token already, and Label Studio shows it only once. "
            "Set RIS_LABEL_STUDIO_TOKEN to it, or revoke it under Account & Settings and try again."
        )
    return _field(response, "token")


def _field(response: httpx.Response, name: str) -> str:
    return str(json_object(response, name)[name])
