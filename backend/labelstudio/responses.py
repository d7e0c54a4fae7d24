"""What Label Studio's answers mean: JSON where it is one, else the `LabelStudioError` that says what to do.

Knows no endpoint, and puts no token into a message.
"""

from typing import Any

import httpx

from backend.errors import (
    LabelStudioError,
    LabelStudioFailed,
    LabelStudioNotFound,
    LabelStudioRateLimited,
    LabelStudioRefused,
    LabelStudioUnauthorized,
    LabelStudioUnreachable,
)
from backend.labelstudio.json_values import read_json
from backend.labelstudio.outbound import explain

Json = dict[str, Any]
"""An object as Label Studio sends and takes it."""

_LONGEST_DETAIL = 400


def check(response: httpx.Response) -> None:
    """Raise the `LabelStudioError` that belongs to an answer which isn't a success."""
    if not response.is_success:
        response.read()
        raise _error(response)


def json_object(response: httpx.Response, *keys: str) -> Json:
    """The answer's JSON object, which has `keys`. Raises LabelStudioError if it hasn't, or is no success."""
    answer = _json(response)
    if not isinstance(answer, dict) or any(key not in answer for key in keys):
        raise nonsense(response)
    return answer


def json_list(response: httpx.Response) -> list[Json]:
    """The answer's JSON list. Raises LabelStudioError if it is none, or no success."""
    answer = _json(response)
    if not isinstance(answer, list):
        raise nonsense(response)
    return answer


def unreachable(url: str, error: httpx.RequestError) -> LabelStudioUnreachable:
    """The error for a Label Studio that can't be talked to."""
    reason, remedy = explain(error)
    remedy = remedy or "Check that it runs and that RIS_LABEL_STUDIO_URL is right."
    return LabelStudioUnreachable(f"Label Studio at {url} can't be reached ({reason}). {remedy}")


def nonsense(response: httpx.Response) -> LabelStudioFailed:
    """The error for an answer that Label Studio would not give."""
    what = f"What answers at {_origin(response)} doesn't speak Label Studio's API ({response.url.path})."
    return LabelStudioFailed(f"{what} Check RIS_LABEL_STUDIO_URL.")


def _json(response: httpx.Response) -> object:
    check(response)
    try:
        return read_json(response.content)
    except (ValueError, RecursionError):
        raise nonsense(response) from None


def _error(response: httpx.Response) -> LabelStudioError:
    status = response.status_code
    request = f"{response.request.method} {response.url.path}"
    if status in _SENTENCES:
        kind, sentence = _SENTENCES[status]
    elif response.is_redirect:
        kind, sentence = LabelStudioFailed, _REDIRECTED
    elif response.is_client_error:
        kind, sentence = LabelStudioRefused, "Label Studio refused {request} ({status}{detail})."
    else:
        kind, sentence = LabelStudioFailed, _FAILED
    return kind(sentence.format(origin=_origin(response), request=request, status=status, detail=_detail(response)))


_SENTENCES: dict[int, tuple[type[LabelStudioError], str]] = {
    401: (
        LabelStudioUnauthorized,
        "Label Studio at {origin} doesn't accept the token ({status}{detail}). Make a personal access token there, "
        "under Account & Settings, and set RIS_LABEL_STUDIO_TOKEN to it.",
    ),
    403: (
        LabelStudioUnauthorized,
        "Label Studio forbids {request} ({status}{detail}). Unless that says why, set RIS_LABEL_STUDIO_TOKEN "
        "to the token of someone who may.",
    ),
    404: (
        LabelStudioNotFound,
        "Label Studio has nothing for {request}: it was deleted, or the token's owner can't see it.",
    ),
    429: (LabelStudioRateLimited, "Label Studio asks for fewer requests. Wait a minute and try again."),
}
_REDIRECTED = "Label Studio at {origin} redirects {request}. Set RIS_LABEL_STUDIO_URL to where it leads."
_FAILED = "Label Studio failed at {request} ({status}{detail}). Its own log says why; try again later."


def _origin(response: httpx.Response) -> str:
    return str(response.url.copy_with(raw_path=b"/")).rstrip("/")


def _detail(response: httpx.Response) -> str:
    """What Label Studio says about its refusal, as ": text", or nothing."""
    try:
        answer = read_json(response.content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answer, dict):
        return ""
    fields = answer.get("validation_errors")
    fields = fields if isinstance(fields, dict) else {}
    texts = (f"{name}: {' '.join(map(str, text)) if isinstance(text, list) else text}" for name, text in fields.items())
    text = "; ".join(texts) or answer.get("detail")
    return f": {str(text)[:_LONGEST_DETAIL]}" if text else ""
