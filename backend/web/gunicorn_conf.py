"""How gunicorn serves the backend: `gunicorn -c python:backend.web.gunicorn_conf backend.web.wsgi:app`."""

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from backend.logs import FORMATTERS
from backend.settings import SettingsError, load
from backend.web.buffering_worker import BufferingWorker
from backend.web.console import BROWSER_CONNECTIONS

try:
    _settings = load()
    for _secret in ("password", "webhook_secret", "label_studio_token", "redis_url"):
        _settings.secret(_secret)
except SettingsError as error:
    raise SystemExit(str(error)) from None

# Of glibc's malloc.h.
_ARENA_MAX = -8
GIVE_BACK_SECONDS = 60

bind = f"{_settings.host}:{_settings.port}"

# One process: the model is in memory once, and its lock is the only one. Not forked from a parent that has
# loaded it, since neither torch's threads nor CUDA survive a fork.
workers = 1
preload_app = False
# Stopping and reloading are the supervisor's; a socket in the user's home would be one more door.
control_socket_disable = True
worker_class = BufferingWorker
BufferingWorker.max_body_bytes = _settings.max_request_bytes
# Those that a browser with the console takes aren't taken from Label Studio.
threads = _settings.threads + BROWSER_CONNECTIONS

# This is not a limit on requests, but on how long the process may be silent.
timeout = 60
graceful_timeout = 30


def post_fork(_server: Any, _worker: Any) -> None:
    """Have glibc share two heaps among all threads, and give back each minute what is free in them.

    One heap for each thread would keep what its largest request ever took; and what lies free between what is in use
    would grow for hours.
    """
    if sys.platform == "linux":
        # Musl has no such calls, and no such heaps.
        limit, trim = (getattr(ctypes.CDLL(None), name, None) for name in ("mallopt", "malloc_trim"))
        if limit and trim:
            limit(_ARENA_MAX, 2)
            threading.Thread(target=_give_back, args=(trim,), name="give back", daemon=True).start()


def _give_back(trim: Callable[[int], int]) -> None:
    while True:
        time.sleep(GIVE_BACK_SECONDS)
        trim(0)


logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"redacted": {"()": FORMATTERS[_settings.log_format], "secrets": _settings.secrets()}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "redacted"}},
    "root": {"level": _settings.log_level, "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": _settings.log_level, "propagate": True, "handlers": []}},
}
