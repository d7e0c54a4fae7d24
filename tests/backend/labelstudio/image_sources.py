"""A Label Studio that serves images, a host that does, and a resolver of what they serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.labelstudio.images import ImageResolver

from .site import Answer, Asked, Site

TOKEN = "personal-token-0123456789"
PHOTO = b"\x89PNG photo"
LIMIT = 10_000


class Studio:
    """Label Studio's files: with a right access token, `PHOTO` for what it holds; it sets a session cookie, too."""

    def __init__(self) -> None:
        self.files = {"/data/upload/1/cat.png": Answer(200, PHOTO)}

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            right = json.loads(asked.body) == {"refresh": TOKEN}
            return Answer(200, b'{"access": "access"}') if right else Answer(401, b"{}")
        if asked.headers.get("Authorization") != "Bearer access":
            return Answer(401, b'{"detail": "Authentication credentials were not provided."}')
        answer = self.files.get(asked.path, Answer(404))
        answer.headers["Set-Cookie"] = "sessionid=opens-a-session; Path=/"
        return answer


def resolver(label_studio: Site, tmp_path: Path, **settings: Any) -> ImageResolver:
    defaults: dict[str, Any] = {
        "hosts": ["photos.example"],
        "max_bytes": LIMIT,
        "seconds": 5.0,
        "resolve": lambda host, _: ["127.0.0.1"] if host != "inside.example" else ["10.0.0.1"],
    }
    return ImageResolver(label_studio.url, TOKEN, cache=tmp_path / "cache", **defaults | settings)


def photos(site: Site, path: str = "/cat.png") -> str:
    return f"http://photos.example:{site.port}{path}"
