"""Logging of the backend and the worker: a line an event on standard error, with every secret blotted out."""

import logging
import re
from collections.abc import Iterable

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
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, BLOT)
        return _CREDENTIALS.sub(rf"\g<1>{BLOT}", text)


def configure(level: str, secrets: Iterable[str]) -> None:
    """Send all logging of this process to standard error, redacted. Replaces handlers that were there."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # One line a request to Label Studio is noise, and its URLs name people's files.
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
