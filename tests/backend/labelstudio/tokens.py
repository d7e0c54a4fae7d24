"""Tokens as Label Studio makes them, but for their signature."""

from __future__ import annotations

import base64
import json
import time


def json_web_token(kind: str = "refresh", expires: float | None = None) -> str:
    """A JSON Web Token, signed with nonsense; `expires` counts from 1970, unset: in an hour."""
    claims = {"token_type": kind, "exp": int(time.time() + 3600 if expires is None else expires)}
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, claims))
    return b".".join((*parts, b"signature")).decode()
