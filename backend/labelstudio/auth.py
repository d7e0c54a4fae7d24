"""Getting in: personal access tokens, and the short-lived ones that Label Studio's API wants instead.

A personal access token is a JSON Web Token of type "refresh": it opens nothing by itself, but is exchanged for access
tokens. The legacy tokens of older versions, 40 hexadecimal digits, are sent as they are; Label Studio 1.23 refuses
them unless they are switched on. Knows no endpoint but those of tokens. No message, log line or `repr` holds a token.
"""

import base64
import json
import re
import threading
import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import httpx

from backend.errors import LabelStudioRefused, LabelStudioUnauthorized
from backend.labelstudio.outbound import DIRECT, Outbound
from backend.labelstudio.responses import check, json_list, json_object, nonsense, unreachable

TIMEOUT = httpx.Timeout(connect=5.0, read=60.0, write=60.0, pool=60.0)
# An access token lives 300 s. Counted here from its arrival, as the clocks of two machines may differ.
_ACCESS_SECONDS = 240.0
MAKE_ONE = "Make a personal access token in Label Studio, under Account & Settings; set RIS_LABEL_STUDIO_TOKEN to it."
_LEGACY = re.compile(r"[0-9a-f]{40}")
_CSRF_FIELD = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class TokenAuth(httpx.Auth):
    """Signs requests with an access token, renewed when it is old and once more if Label Studio refuses it.

    Safe for threads: one renews, the others wait for it. Raises LabelStudioError if it can't be renewed. A legacy token
    is sent itself.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._access: str | None = None
        self._stale_at = 0.0
        self._lock = threading.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """The request, signed, and again if the access token is refused; before it, a renewal where one is due."""
        if is_legacy(self._token):
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
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
                fault = objection(self._token)
                if response.status_code == httpx.codes.UNAUTHORIZED and fault:
                    raise LabelStudioUnauthorized(f"RIS_LABEL_STUDIO_TOKEN {fault}. {MAKE_ONE}")
                self._access = _field(response, "access")
                self._stale_at = time.monotonic() + _ACCESS_SECONDS
            return str(self._access)

    def _renewal(self, request: httpx.Request) -> httpx.Request:
        # The time-outs travel in the extensions: without them, a silent server would hold every thread.
        body = {"refresh": self._token}
        return httpx.Request("POST", f"{self._url}/api/token/refresh/", json=body, extensions=request.extensions)


def is_legacy(token: str) -> bool:
    """Whether a token is of the old kind, which is sent as it is."""
    return _LEGACY.fullmatch(token) is not None


def objection(token: str) -> str | None:
    """Why a token can't be a good one, as far as its text says ("is an access token, ..."); None if nothing does."""
    if is_legacy(token):
        return None
    claims = _claims(token)
    if claims is None:
        return "isn't a personal access token: those begin with eyJ, without Bearer or Token before them"
    if claims.get("token_type") == "access":
        return "is an access token, which lives for five minutes"
    expires = claims.get("exp")
    if isinstance(expires, int) and expires < time.time():
        return f"expired on {datetime.fromtimestamp(expires, UTC):%d %B %Y}"
    if token.count(".") == 1:
        return "has lost its third part: Label Studio shows a token whole only once, when it is made"
    return None


def _claims(token: str) -> dict[str, Any] | None:
    """What a JSON Web Token says of itself, unverified; None if it isn't one."""
    parts = token.split(".")
    if not token.startswith("eyJ") or len(parts) not in (2, 3):
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def login_for_token(url: str, email: str, password: str, replace: bool = False, outbound: Outbound = DIRECT) -> str:
    """Log in as a person does in the browser and make a personal access token.

    Label Studio allows each user one token and never shows it again. With `replace`, one that exists is
    revoked first; without it, LabelStudioRefused is raised. LabelStudioUnauthorized means a wrong password.
    """
    url = url.rstrip("/")
    try:
        with outbound.client(url, base_url=url, timeout=TIMEOUT) as http:
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
