"""Requests as Label Studio 1.23.2 sent them to a connected ML backend, recorded one a file."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from backend.labelstudio.webhooks import SECRET_HEADER

FOLDER = Path(__file__).parent.parent / "fixtures" / "label-studio-1.23.2"
BASIC = {"Authorization": "Basic " + base64.b64encode(b"ris:backend-pass").decode()}
HOOK = {SECRET_HEADER: "hook-secret"}
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def recorded(name: str) -> dict[str, Any]:
    """`method`, `path`, `headers` and `body` of one request."""
    request: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return request


def send(client: FlaskClient, name: str, body: object = None, headers: dict[str, str] = BASIC) -> TestResponse:
    request = recorded(name)
    content = request["body"] if body is None else body
    return client.open(
        request["path"],
        method=request["method"],
        json=content,
        headers={"User-Agent": request["headers"]["User-Agent"], **headers},
    )


def with_images(name: str) -> dict[str, Any]:
    """A recorded request, its uploads replaced by the images themselves."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    body: dict[str, Any] = recorded(name)["body"]
    for task in body["tasks"]:
        task["data"]["image"] = uri
    return body
