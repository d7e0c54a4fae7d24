"""What no job of ours can be, taken out of the queues: entries that aren't names, keys of another kind.

Whoever has Valkey's password can write anything there; each thing costs itself alone. Readers pass over such entries
one by one (`readable`); `mend` removes them where RQ's own code reads, which ends the worker at the first.
"""

import logging
import re
from collections.abc import Iterable
from contextlib import suppress

from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue, Worker
from rq.exceptions import InvalidJobOperation
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

_log = logging.getLogger(__name__)

UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError, OverflowError),
    InvalidJobOperation,
)
"""What RQ raises over a field that it can't read, an assertion among them."""

# RQ's own rule for ids.
_JOB = re.compile(rb"[A-Za-z0-9_-]{1,200}")
_STARTED = re.compile(rb"[A-Za-z0-9_-]{1,200}:[A-Za-z0-9_-]{1,200}")
_REGISTRIES = (
    FinishedJobRegistry,
    FailedJobRegistry,
    DeferredJobRegistry,
    ScheduledJobRegistry,
    CanceledJobRegistry,
)


def is_job(raw: bytes) -> bool:
    """Whether it can be the id of a job."""
    return bool(_JOB.fullmatch(raw))


def readable(entries: Iterable[object]) -> list[str]:
    """The ids of jobs among what a queue or a registry holds."""
    return [entry.decode() for entry in entries if isinstance(entry, bytes) and is_job(entry)]


def mend(queue: Queue) -> int:
    """Remove from all that belongs to a queue what can't be read -> how much that was."""
    connection = queue.connection
    lists = (queue.key, queue.intermediate_queue_key)
    removed = sum(_mend_list(connection, key) for key in lists)
    removed += sum(_mend_registry(connection, registry(queue=queue).key, _JOB) for registry in _REGISTRIES)
    removed += _mend_registry(connection, StartedJobRegistry(queue=queue).key, _STARTED)
    removed += sum(_mend_workers(connection, key) for key in (REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY % queue.name))
    if removed:
        advice = "Somebody else can write to it: change its password."
        _log.error("%d things in the queue %s can't be read, and are removed. %s", removed, queue.name, advice)
    return removed


def _mend_list(connection: Redis, key: str) -> int:
    if _is_other_kind(connection, key, b"list"):
        return 1
    broken = {entry for entry in _all(connection.lrange(key, 0, -1)) if not is_job(entry)}
    for entry in broken:
        connection.lrem(key, 0, entry)  # type: ignore[arg-type]
    return len(broken)


def _mend_registry(connection: Redis, key: str, rule: re.Pattern[bytes]) -> int:
    if _is_other_kind(connection, key, b"zset"):
        return 1
    broken = [entry for entry in _all(connection.zrange(key, 0, -1)) if not rule.fullmatch(entry)]
    return int(connection.zrem(key, *broken)) if broken else 0


def _mend_workers(connection: Redis, key: str) -> int:
    if _is_other_kind(connection, key, b"set"):
        return 1
    broken = [entry for entry in _all(connection.smembers(key)) if not _is_worker(connection, entry)]
    return int(connection.srem(key, *broken)) if broken else 0


def _is_worker(connection: Redis, entry: bytes) -> bool:
    try:
        Worker.find_by_key(entry.decode(), connection=connection)
    except (*UNREADABLE, ResponseError):
        return False
    return True


def _is_other_kind(connection: Redis, key: str, kind: bytes) -> bool:
    """Whether there is something else under the key; that is gone then."""
    if connection.type(key) in (kind, b"none"):
        return False
    with suppress(ResponseError):
        connection.delete(key)
    return True


def _all(entries: object) -> list[bytes]:
    return list(entries)  # type: ignore[call-overload, no-any-return]
