"""Planted secrets never reach the log, wherever in a record they hide."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from backend.logs import BLOT, JsonFormatter, RedactingFormatter, request_id

SECRETS = ["valkey-4", "redis://:valkey-4@localhost/0", "pass-1"]


def formatted(message: str, *args: object, exc_info: object = None) -> str:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, message, args, exc_info)  # type: ignore[arg-type]
    return RedactingFormatter(SECRETS).format(record)


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("the password is pass-1", ()),
        ("the password is %s", ("pass-1",)),
        ("connecting to %s", ("redis://:valkey-4@localhost/0",)),
        ("%s", ({"password": "pass-1"},)),
    ],
)
def test_a_known_secret_is_blotted_out(message: str, args: tuple[object, ...]) -> None:
    text = formatted(message, *args)
    assert BLOT in text
    assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Basic cmlzOnBhc3M=", "cmlzOnBhc3M="),
        ("headers: {'Authorization': 'Bearer eyJhbGciOi.abc.def'}", "eyJhbGciOi.abc.def"),
        ("authorization: token 0123abcd", "0123abcd"),
        ('{"access_token": "feas-token", "project": 1}', "feas-token"),
        ("{'task_data': 1, 'password': 'studio-pass'}", "studio-pass"),
        ('{"token": "xis6JEFi3X"}', "xis6JEFi3X"),
        ('{"refresh":"eyJ0eXAi"}', "eyJ0eXAi"),
    ],
)
def test_credentials_of_requests_are_blotted_out(text: str, secret: str) -> None:
    assert secret not in formatted(text)
    assert BLOT in formatted(text)


def test_a_traceback_is_blotted_too() -> None:
    try:
        raise ValueError("could not use pass-1")
    except ValueError:
        text = formatted("failed", exc_info=sys.exc_info())
    assert "Traceback" in text
    assert "pass-1" not in text


def test_what_is_no_secret_stays() -> None:
    assert formatted("Task %s of project %s is left out.", 3, 7).endswith("Task 3 of project 7 is left out.")


def test_a_process_logs_to_standard_error_alone_and_blotted() -> None:
    code = (
        "import logging; from backend.logs import configure; configure('INFO', ['pass-1']);"
        "logging.getLogger('rq.worker').error('pass-1 one'); logging.getLogger('any').debug('two')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert f"ERROR rq.worker: {BLOT} one" in done.stderr
    assert "two" not in done.stderr


def as_json(message: str, *args: object, exc_info: object = None) -> dict[str, str]:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, message, args, exc_info)  # type: ignore[arg-type]
    line = JsonFormatter(SECRETS).format(record)
    assert "\n" not in line
    return json.loads(line)


def test_json_has_the_same_in_fields() -> None:
    fields = as_json('Task %s\n of "seven"', 3)
    assert fields.items() >= {"level": "ERROR", "logger": "x", "message": 'Task 3\n of "seven"'}.items()
    assert "request_id" not in fields
    named = request_id.set("abc")
    try:
        assert as_json("two")["request_id"] == "abc"
    finally:
        request_id.reset(named)


@pytest.mark.parametrize(
    "message", ["the password is pass-1", '{"token": "xis6JEFi3X"}', "Basic cmlzOnBhc3M=", "at redis://:valkey-4@x"]
)
def test_json_hides_what_text_hides(message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError:
        fields = as_json(message, exc_info=sys.exc_info())
    assert BLOT in fields["message"]
    assert BLOT in fields["traceback"]
    for secret in (*SECRETS, "xis6JEFi3X", "cmlzOnBhc3M="):
        assert secret not in json.dumps(fields)


def test_a_process_logs_json_where_that_is_wanted() -> None:
    code = (
        "import logging; from backend.logs import configure; configure('INFO', ['pass-1'], 'json');"
        "logging.getLogger('rq.worker').error('pass-1 one')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["message"] == f"{BLOT} one"
