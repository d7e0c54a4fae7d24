"""Requests that change something come from the console's own pages, and from nowhere else.

A browser sends the password along with whatever it sends here, also with what another site had it send. So whatever
changes anything has to say where it comes from, which no page can forge (Sec-Fetch-Site, or Origin or Referer where a
browser leaves that out, as over plain HTTP), and to bring a token that only our pages show: an HMAC, by the password,
of a random cookie that is sent from our own pages alone.
"""

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from flask import Response, g, request

from backend.errors import BackendError

FIELD, COOKIE = "token", "ris_console"
_SAFE = ("GET", "HEAD", "OPTIONS")
_COOKIE_BYTES = 16

_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class CrossSite(BackendError, code="cross_site", status=403):
    """A request that would change something, and that doesn't come from a page of the console."""


class Guard:
    """Knows the tokens by the password: with another one, those of all open pages are void."""

    def __init__(self, password: str) -> None:
        self._key = hashlib.sha256(b"console:" + password.encode()).digest()

    def token(self) -> str:
        """What the forms of this answer bring along."""
        return self._sign(_cookie())

    def check(self) -> None:
        """Raise CrossSite if the request would change something, and isn't from a page of the console."""
        if request.method in _SAFE:
            return
        if not _is_from_here():
            raise CrossSite("This didn't come from a page of the console: nothing was done. Open the console itself.")
        expected = self._sign(request.cookies.get(COOKIE) or secrets.token_hex(_COOKIE_BYTES))
        if not hmac.compare_digest(request.form.get(FIELD, "").encode("utf-8", "replace"), expected.encode()):
            raise CrossSite("This page was too old, so nothing was done. Go back, reload it, and try again.")

    def finish(self, response: Response) -> Response:
        """The answer with what keeps it in its place: no frames, no scripts but ours, nothing kept by others."""
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        fresh = g.get("console_cookie")
        if fresh:
            # At the root, whatever the path is called by a proxy; with a name and a value of no use to others.
            response.set_cookie(COOKIE, fresh, path="/", secure=request.is_secure, httponly=True, samesite="Strict")
        return response

    def _sign(self, cookie: str) -> str:
        return hmac.new(self._key, cookie.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _cookie() -> str:
    """The browser's cookie; it gets one with this answer if it has none."""
    given = request.cookies.get(COOKIE)
    if given:
        return given
    if not g.get("console_cookie"):
        g.console_cookie = secrets.token_hex(_COOKIE_BYTES)
    return str(g.console_cookie)


def _is_from_here() -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin") or request.headers.get("Referer") or ""
    try:
        return urlsplit(origin).netloc.lower() == request.host.lower() != ""
    except ValueError:
        return False
