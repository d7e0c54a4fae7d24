"""Calls of Label Studio's API that its own pages make, and the product doesn't."""

from __future__ import annotations

from typing import Any

import httpx

from backend.labelstudio.client import LabelStudio


def call(client: LabelStudio, method: str, path: str, **request: Any) -> Any:
    """One request as the client's user, which must succeed -> the JSON of the answer, None if it is empty."""
    response = httpx.request(method, client.url + path, auth=client.auth, timeout=130, trust_env=False, **request)
    assert response.is_success, response.text
    return response.json() if response.content else None
