"""Ask a service once whether it is ready, yes or no. Why it isn't stands in the service's log."""

from __future__ import annotations

import httpx
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker

_TIMEOUT = 2.0


def valkey_answers(url: str) -> bool:
    """Whether the server at `url` accepts its password and serves."""
    try:
        with _connect(url) as connection:
            return bool(connection.ping())
    except RedisError:
        return False


def http_answers(url: str) -> bool:
    """Whether a GET of `url` is answered with a 2xx status."""
    try:
        # trust_env: a proxy would be asked for an address that means this machine.
        return httpx.get(url, timeout=_TIMEOUT, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def worker_registered(url: str, pid: int) -> bool:
    """Whether process `pid` takes jobs from the queue at `url`."""
    try:
        with _connect(url) as connection:
            return any(worker.pid == pid for worker in Worker.all(connection=connection))
    except RedisError:
        return False


def _connect(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
