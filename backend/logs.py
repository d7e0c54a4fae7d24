"""Logging of the backend and the worker: a line an event on standard error, with every secret blotted out.

As text for people, or as JSON for machines: an object a line, with the request that led to it. A request's id goes with
its job through the queue, so a worker's lines name the request that they come of.
"""

import json
import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the HTTP request that is being answered, or that the job comes of; empty where there is none."""

BLOT = "[secret]"

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Secrets that arrive in requests, which no setting names: credentials in headers and in Label Studio's JSON.
_CREDENTIALS = re.compile(
    r"""(\b(?:Basic|Bearer|Token)\s+|["'](?:access_token|refresh|token|password|login)["']\s*:\s*["'])[^\s"',;]+""",
    re.IGNORECASE,
)


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, then blots out `secrets` and whatever looks like credentials."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(_FORMAT)
        # The longest first: one secret may be part of another, as a password is of a URL.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines, that a record makes in the log."""
        return self.blotted(super().format(record))

    def blotted(self, text: str) -> str:
        """Text without what must not be in the log."""
        for secret in self._secrets:
            text = text.replace(secret, BLOT)
        return _CREDENTIALS.sub(rf"\g<1>{BLOT}", text)


class JsonFormatter(RedactingFormatter):
    """A record as one line of JSON: time, level, logger, message, and request_id and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line that a record makes in the log."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            # Before it is quoted, which could hide a secret.
            "message": self.blotted(record.getMessage()),
        }
        if request := request_id.get():
            fields["request_id"] = request
        if record.exc_info:
            fields["traceback"] = self.blotted(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


FORMATTERS: dict[LogFormat, type[RedactingFormatter]] = {"text": RedactingFormatter, "json": JsonFormatter}


def configure(level: str, secrets: Iterable[str], form: LogFormat = "text") -> None:
    """Send all logging of this process to standard error, redacted. Replaces handlers that were there."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[form](secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # One line a request to Label Studio is noise, and its URLs name people's files.
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
