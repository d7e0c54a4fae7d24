"""Ask a service once whether it is ready, yes or no. Why it isn't stands in the service's log.

As a container's health check: `python -m backend.local.readiness valkey`, `... worker PID` or `... URL`.
"""

import socket
import sys

import httpx
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker

from backend.settings import load

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
    """Whether process `pid` of this machine takes jobs from the queue at `url`."""
    here = (socket.gethostname(), pid)
    try:
        with _connect(url) as connection:
            return here in [(worker.hostname, worker.pid) for worker in Worker.all(connection=connection)]
    except RedisError:
        return False


def _connect(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)


def main(service: str, pid: str = "0") -> bool:
    """Whether the service that the arguments name is ready."""
    if service == "valkey":
        return valkey_answers(load().secret("redis_url"))
    if service == "worker":
        return worker_registered(load().secret("redis_url"), int(pid))
    return http_answers(service)


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
