"""docs/openapi.json and docs/http.md: what the backend's addresses take and answer, written anew from the code.

    python scripts/http_contract.py            writes both
    python scripts/http_contract.py --check    fails, and says how to write them, where they aren't current

Error codes, their statuses and their sentences come from the exceptions themselves, the version from pyproject.toml;
`http_schemas` has the bodies. The console's pages, which are for people, are left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from http_schemas import ANSWERS, INTERFACE, PICTURE, REQUESTS, Schema, ref

from backend.errors import (
    BadRequest,
    ConfigError,
    FetchError,
    LabelStudioError,
    NotFound,
    RegionError,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
)
from backend.inference.model_pool import ModelBusy
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.prompts.sheet import SheetError
from backend.registry import RegistryError
from backend.web.app import RETRY_SECONDS
from backend.web.ml_backend import LAST_PROJECT, InBackground
from backend.web.ready import NotReady
from backend.web.scrape import CONTENT_TYPE
from ris_core.errors import CheckpointError, ImageError, InputError, OutOfMemory, PromptError, RisError

ROOT = Path(__file__).resolve().parents[1]
OPENAPI, REFERENCE = ROOT / "docs" / "openapi.json", ROOT / "docs" / "http.md"
COMMAND = "python scripts/http_contract.py"

OF_A_PROJECT = "/projects/{project}"
Raised = type[RisError]
# Before a request is one: answered by the worker that reads it, in HTML, and the connection ends.
UNREADABLE = {
    400: "The head or the body isn't framed as HTTP/1.1.",
    408: "The request came too slowly.",
    414: "The first line is too long.",
    417: "It expects something else than 100-continue.",
    431: "The head is too long.",
    501: "Its transfer coding isn't chunked.",
}
# Of any route: nobody's mistake but the backend's.
INTERNAL = "internal_error"
NO_SUCH = "http_error"


@dataclass(frozen=True)
class Route:
    """An address. errors: what may be raised there; a class stands for itself alone, see `_with_kinds`.

    everywhere: whether it is also there below /projects/<id>. locks: how to get in; none: it is open.
    """

    method: Literal["get", "post"]
    path: str
    name: str
    summary: str
    answer: str
    says: str = ""
    request: str = ""
    errors: tuple[Raised, ...] = ()
    everywhere: bool = True
    locks: tuple[str, ...] = ("password",)
    example: str = ""


def _with_kinds(error: Raised) -> tuple[Raised, ...]:
    """An error and all that are kinds of it, in the order in which they are written."""
    return (error, *(kind for sub in error.__subclasses__() for kind in _with_kinds(sub)))


def _curl(path: str, body: str = "", login: str = '-u "ris:$RIS_PASSWORD"') -> str:
    data = f" -d @- <<'END'\n{body}\nEND" if body else ""
    return " ".join(filter(None, ("curl", login, f"http://localhost:9090{path}"))) + data


ROUTES = (
    Route(
        "get",
        "/health",
        "health",
        "Whether the process answers",
        "Health",
        "Open, and answered whatever else runs. Label Studio asks it before each prediction.",
        locks=(),
        example=_curl("/health", login=""),
    ),
    Route("get", "/", "root", "The same, behind the password", "Health", example=_curl("/")),
    Route(
        "get",
        "/ready",
        "ready",
        "Whether the backend can do its work",
        "Ready",
        "For probes: Valkey answers, and the versions that serve are whole.",
        errors=(NotReady,),
        everywhere=False,
        example=_curl("/ready"),
    ),
    Route(
        "post",
        "/setup",
        "setup",
        "The version string of a project's predictions",
        "Version",
        "Answered within milliseconds, without the model. Label Studio predicts a task anew where the version changed.",
        "Setup",
        (BadRequest, ConfigError, SheetError, RegistryError),
        example=_curl("/setup", f'{{"project": "7.1795226436",\n "schema": "{INTERFACE}"}}'),
    ),
    Route(
        "post",
        "/predict",
        "predict",
        "Masks",
        "Predictions",
        "One prediction a task. With a `context` somebody waits in the editor for one answer, and what is wrong with "
        "the task is an error; in a batch it costs that task alone. A batch that takes too long for a request is done "
        "in the background: 503, code `in_background`.",
        "Predict",
        (
            BadRequest,
            ConfigError,
            RegionError,
            SheetError,
            InputError,
            ImageError,
            PromptError,
            *_with_kinds(FetchError),
            *_with_kinds(LabelStudioError),
            TooMany,
            Unavailable,
            ModelBusy,
            InBackground,
            RegistryError,
            CheckpointError,
            OutOfMemory,
        ),
        example=_curl(
            "/predict",
            f'''{{"project": "7.1795226436",
 "label_config": "{INTERFACE}",
 "tasks": [{{"id": 1, "data": {{"image": "{PICTURE}"}}}}],
 "params": {{"context": {{"result": [
   {{"from_name": "prompt", "to_name": "img", "type": "textarea", "value": {{"text": ["the cat"]}}}}]}}}}}}''',
        ),
    ),
    Route(
        "post",
        "/webhook",
        "webhook",
        "An event",
        "EventReceipt",
        f"Logged, and answered at once; it is never refused because Valkey is away, but for new tasks. The header "
        f"`{SECRET_HEADER}` with RIS_WEBHOOK_SECRET opens it as well: Label Studio signs *Start Training* alone with "
        "the password.",
        "Event",
        (BadRequest, ConfigError, SheetError, Unavailable, RegistryError),
        locks=("password", "secret"),
        example=_curl(
            "/webhook",
            """{"action": "ANNOTATION_UPDATED", "project": {"id": 7},
 "annotation": {"id": 3, "task": 1, "updated_at": "2026-11-21T02:02:23.852858Z", "was_cancelled": false}}""",
            f'-H "{SECRET_HEADER}: $RIS_WEBHOOK_SECRET"',
        ),
    ),
    Route(
        "get",
        "/versions",
        "versions",
        "The versions of the model",
        "Versions",
        "Of the project whose address is called; of all projects at the address that they share.",
        errors=(RegistryError,),
        example=_curl("/projects/7/versions"),
    ),
    Route(
        "get",
        "/jobs/{job_id}",
        "job",
        "How a job goes",
        "Job",
        "`/webhook` names the jobs that it queues.",
        errors=(NotFound, Unavailable),
        example=_curl("/jobs/some-job"),
    ),
    Route(
        "get",
        "/metrics",
        "metrics",
        "Metrics for Prometheus",
        "",
        "[metrics.md](metrics.md) lists them.",
        everywhere=False,
        example=_curl("/metrics"),
    ),
)

_PARAMETERS: dict[str, Schema] = {
    "project": {
        "name": "project",
        "in": "path",
        "required": True,
        "description": "The project's number. What is about another project is refused.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LAST_PROJECT},
    },
    "job_id": {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
}


def openapi() -> Schema:
    """The document."""
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        for prefix in ("", OF_A_PROJECT) if route.everywhere else ("",):
            paths.setdefault(prefix + route.path, {})[route.method] = _operation(route, prefix)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ris-studio, a Label Studio ML backend",
            "version": _version(),
            "description": "What Label Studio 1.23.2 asks of an ML backend, and what operators ask of this one.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost:9090"}],
        "paths": paths,
        "components": {
            "schemas": REQUESTS | ANSWERS | {"Error": _error()},
            "responses": {str(status): _unreadable(reason) for status, reason in UNREADABLE.items()},
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic", "description": "RIS_USERNAME and RIS_PASSWORD."},
                "secret": {"type": "apiKey", "in": "header", "name": SECRET_HEADER},
            },
        },
    }


def _version() -> str:
    found = re.search(r'(?m)^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found
    return found[1]


def _error() -> Schema:
    return {
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": "^[a-z_]+$", "description": "Stable, for programs."},
            "message": {"type": "string", "minLength": 1, "description": "For people: what to change."},
            "request_id": {"type": "string", "pattern": "^[0-9a-f]{16}$", "description": "As in the log."},
        },
        "required": ["code", "message", "request_id"],
        "additionalProperties": False,
    }


def _operation(route: Route, prefix: str) -> Schema:
    names = [name for name in _PARAMETERS if f"{{{name}}}" in prefix + route.path]
    body = (
        {"required": True, "content": {"application/json": {"schema": ref(route.request)}}} if route.request else None
    )
    return {
        "operationId": route.name + ("_of_project" if prefix else ""),
        "summary": route.summary,
        **({"description": route.says} if route.says else {}),
        **({"parameters": [_PARAMETERS[name] for name in names]} if names else {}),
        **({"requestBody": body} if route.request else {}),
        "security": [{lock: []} for lock in route.locks],
        "responses": {"200": _success(route), **_refusals(route, "{" in prefix + route.path)},
    }


def _success(route: Route) -> Schema:
    content: Schema = {"application/json": {"schema": ref(route.answer)}}
    if not route.answer:
        content = {CONTENT_TYPE: {"schema": {"type": "string"}}}
    return {"description": route.summary, "headers": _headers(), "content": content}


def _refusals(route: Route, is_variable: bool) -> Schema:
    """What an error's status means at a route, by rising status."""
    by_status = codes(route)
    if is_variable:
        by_status.setdefault(404, []).append(NO_SUCH)
    answers = {status: _refusal(status, known) for status, known in by_status.items()}
    answers |= {status: {"$ref": f"#/components/responses/{status}"} for status in UNREADABLE}
    return {str(status): answers[status] for status in sorted(answers)}


def _refusal(status: int, known: Sequence[str]) -> Schema:
    schema = {"allOf": [ref("Error"), {"properties": {"code": {"enum": list(known)}}}]}
    headers = _headers()
    if status == Unauthorized.status:
        headers["WWW-Authenticate"] = {"required": True, "schema": {"type": "string"}}
    if status in (429, 503):
        headers["Retry-After"] = {"required": True, "schema": {"const": str(RETRY_SECONDS)}}
    content = {"application/json": {"schema": schema}}
    return {"description": HTTPStatus(status).phrase, "headers": headers, "content": content}


def _unreadable(reason: str) -> Schema:
    return {"description": reason, "content": {"text/html": {"schema": {"type": "string"}}}}


def _headers() -> Schema:
    return {"X-Request-ID": {"required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"}}}


def raised(route: Route) -> Iterator[Raised]:
    """What may go wrong at a route, as the exceptions that say so."""
    if route.locks:
        yield Unauthorized
    if route.request:
        yield TooLarge
    yield from route.errors


def status_of(error: Raised) -> int:
    """The HTTP status that an error is answered with."""
    return int(getattr(error, "status", BadRequest.status if issubclass(error, InputError) else 500))


def codes(route: Route) -> dict[int, list[str]]:
    """The codes of a route's errors by status."""
    by_status: dict[int, list[str]] = {}
    for error in raised(route):
        by_status.setdefault(status_of(error), []).append(error.code)
    by_status.setdefault(500, []).append(INTERNAL)
    return by_status


def reference(document: Schema) -> str:
    """docs/http.md."""
    return "\n".join([*_introduction(), *_table(), *_sections(document), *_errors()])


def _introduction() -> Iterator[str]:
    yield f"""# HTTP
What the backend answers to Label Studio, to probes and to scripts; [openapi.json](openapi.json) says the same to
programs, with every field. Both are written by `{COMMAND}`. The [console](console.md) is for people.

**Getting in**: HTTP Basic with `RIS_USERNAME` (ris) and `RIS_PASSWORD`. `/health` is open, and `/webhook` opens to the
header `{SECRET_HEADER}` as well.

**Addresses**: most are there twice, by themselves and below `/projects/<id>`, the address of one project, as
`/projects/7/predict`. There, what is about another project is refused.

**Bodies** are JSON in UTF-8, whatever their `Content-Type`. Every answer bears `X-Request-ID`, by which the log tells
what came of it. An error is `{{"code": ..., "message": ..., "request_id": ...}}`; its message is the HTTP reason, too,
which Label Studio shows.
"""


def _table() -> Iterator[str]:
    yield "| | | of a project | errors |\n|---|---|---|---|"
    for route in ROUTES:
        statuses = ", ".join(str(status) for status in sorted(codes(route)))
        there = "yes" if route.everywhere else ""
        yield f"| `{route.method.upper()} {route.path}` | {route.summary} | {there} | {statuses} |"
    yield ""


def _sections(document: Schema) -> Iterator[str]:
    for route in ROUTES:
        yield f"## {route.method.upper()} {route.path}\n{_wrapped(route.says or route.summary + '.')}\n"
        yield f"```\n{route.example}\n```"
        if route.request:
            yield from _fields("Sent", route.request, document)
        if route.answer:
            yield from _fields("Answered", route.answer, document)
        yield ""


def _fields(title: str, name: str, document: Schema) -> Iterator[str]:
    schema = document["components"]["schemas"][name]
    for branch in schema.get("oneOf", [schema]):
        schema = document["components"]["schemas"][branch["$ref"].rpartition("/")[2]] if "$ref" in branch else branch
        fields = "; ".join(_field(key, value, schema) for key, value in schema["properties"].items())
        says = schema.get("description", "").rstrip(".")
        yield _wrapped(f"- *{title}*{f', {_running(says)}' if says else ''}: {fields}.", "  ")


def _field(key: str, value: Schema, schema: Schema) -> str:
    shown = f"`{key}`" if key in schema.get("required", ()) else f"`{key}`?"
    if "enum" in value:
        return f"{shown} {' or '.join(map(str, value['enum']))}"
    says = value.get("description", "").rstrip(".")
    return f"{shown} ({_running(says)})" if says else shown


def _errors() -> Iterator[str]:
    yield "## Errors\n| status | code | |\n|---|---|---|"
    errors = {error.code: error for route in ROUTES for error in raised(route)}
    for error in sorted(errors.values(), key=lambda error: (status_of(error), error.code)):
        yield f"| {status_of(error)} | `{error.code}` | {(error.__doc__ or '').splitlines()[0]} |"
    yield f"| 404, 405 | `{NO_SUCH}` | There is no such address, or not with this method. |"
    yield f"| 500 | `{INTERNAL}` | A mistake of the backend's. Its log says which, under the request's id. |\n"
    yield _wrapped(
        f"After 429 and 503, `Retry-After` says {RETRY_SECONDS} seconds. What is no HTTP request is answered in HTML: "
        + "; ".join(f"{status}, {_running(reason.rstrip('.'))}" for status, reason in UNREADABLE.items())
        + ".\n"
    )


def _running(text: str) -> str:
    """A sentence as it goes on within another."""
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def _wrapped(text: str, indent: str = "") -> str:
    """Lines of at most 120 characters, broken between words."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) >= 120:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def main() -> None:
    document = openapi()
    current = {OPENAPI: json.dumps(document, indent=2) + "\n", REFERENCE: reference(document)}
    if "--check" not in sys.argv[1:]:
        for path, text in current.items():
            path.write_text(text, encoding="utf-8")
    elif any(not path.exists() or path.read_text(encoding="utf-8") != text for path, text in current.items()):
        raise SystemExit(f"docs/openapi.json or docs/http.md isn't current: run `{COMMAND}`.")


if __name__ == "__main__":
    main()
