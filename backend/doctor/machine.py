"""The links on this machine: settings, disk, weights, Valkey and the worker. Knows nothing of Label Studio."""

import secrets
import shutil
import socket
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import numpy as np
import psutil
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TooSlow
from rq import Queue, Worker
from rq.suspension import is_suspended
from rq.worker import BaseWorker

from backend import services
from backend.doctor.checks import CheckContext, CheckResult, broken, ok, warning
from backend.home import env_file, home_folder
from backend.queue import queue
from backend.queue.names import KINDS, QUEUES
from backend.settings import PREFIX
from ris_core.files import atomic_write

SECRETS = ("password", "webhook_secret", "label_studio_token", "redis_url")

# A learning writes a version, its snapshot and its features: some hundred MB. Nothing at all can be written below.
PLENTY, LEAST = 2 << 30, 100 << 20
# An idle worker shows itself every minute, a busy one every half.
SILENCE_SECONDS = 90
_PROBE_SECONDS = 60
# Label Studio makes these queues in whatever Redis it finds.
_LABEL_STUDIO_QUEUES = {b"rq:queue:critical", b"rq:queue:high", b"rq:queue:low"}


def settings(context: CheckContext) -> CheckResult:
    """The settings can be read, nobody else can read them, and no secret is missing."""
    file = env_file(home_folder())
    try:
        given = context.settings
    except (OSError, UnicodeDecodeError) as error:
        return broken(f"{file} can't be read ({error}).", "Run this as its owner; it is plain text, NAME=VALUE a line.")
    missing = [f"{PREFIX}{name.upper()}" for name in SECRETS if not getattr(given, name)]
    if missing and not file.exists():
        return warning(
            f"There is no {file}, and the environment lacks {', '.join(missing)}.",
            "Run this where `ris up` was started, or set RIS_HOME to that folder; if it never was, `ris up` makes it.",
        )
    if missing:
        return warning(f"Not set: {', '.join(missing)}.", f"`ris up` sets what it can; else write it into {file}.")
    if file.exists() and file.stat().st_mode & 0o077:
        return warning(f"{file} holds passwords, and others on this machine may read it.", f"chmod 600 {file}")
    return ok(f"Complete, from {file if file.exists() else 'the environment'}.")


def disk(context: CheckContext) -> CheckResult:
    """The home folder can be written and has room."""
    home = context.settings.home
    if not home.is_dir():
        return broken(f"There is no folder {home}.", "`ris up` makes it; if it is elsewhere, set RIS_HOME to it.")
    probe = home / f".doctor-{secrets.token_hex(4)}"
    try:
        atomic_write(probe, b"written")
        probe.unlink()
    except OSError as error:
        return broken(f"{home} can't be written ({error.strerror}).", "Make its owner run this, or set RIS_HOME.")
    free = shutil.disk_usage(home).free
    if free < PLENTY:
        result = broken if free < LEAST else warning
        return result(
            f"Only {free / 1e6:,.0f} MB are free at {home}.",
            f"Free some, such as {home / 'images'}, which is a cache, or set RIS_HOME to a larger disk.",
        )
    return ok(f"{home} can be written; {free / 1e9:,.0f} GB are free.")


def store(context: CheckContext) -> CheckResult:
    """The bucket that hosts share can be read, written, listed and deleted from, and writes are conditional."""
    address = context.settings.store
    if address is None:
        return ok("Versions are kept on this machine alone: RIS_STORE isn't set.")
    from backend.store.bucket import check_conditions, open_bucket  # noqa: PLC0415 - where there is one

    bucket = open_bucket(address)
    check_conditions(bucket)
    bucket.list("records")
    return ok(f"{bucket.address} keeps what is written, and of two writes at once refuses one.")


def weights(context: CheckContext) -> CheckResult:
    """The version in production answers a prompt."""
    from ris_core import segmenters  # noqa: PLC0415 - it brings torch, for which no server is to wait

    versions = services.registry(context.settings)
    version = versions.base if context.number is None else versions.current(context.number)
    start = time.perf_counter()
    predictor = segmenters.load(version.folder)
    predictor.segment(predictor.embed(np.zeros((64, 64, 3), np.uint8)), ["a cup"])
    return ok(f"{version.name} loads and answers a prompt in {time.perf_counter() - start:.1f} s.")


def redis(context: CheckContext) -> CheckResult:
    """Valkey keeps what is written, behind a password, and through a restart."""
    url = context.settings.secret("redis_url")
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
    try:
        with queue.connect(url) as connection:
            _write_and_read(connection)
            weakness = _weakness(connection)
    except AuthenticationError:
        return broken(
            f"Valkey at {place} doesn't accept the password.",
            "Set RIS_REDIS_URL=redis://:PASSWORD@HOST:PORT/0 to the password that the server has (requirepass).",
        )
    except (NoConnection, TooSlow) as error:
        reason = "no answer within 0.4 s" if isinstance(error, TooSlow) else "nothing listens there"
        return broken(
            f"Valkey can't be reached at {place} ({reason}).",
            "Start it (`ris up` does), or correct RIS_REDIS_URL. Nothing is learnt meanwhile.",
        )
    except (RedisError, ValueError) as error:
        return broken(f"Valkey at {place} can't be written: {error}.", "Its own log says why; a full disk is usual.")
    if not parts.password:
        return warning(
            f"Valkey at {place} wants no password, and whoever writes there gives the worker its work.",
            "Set requirepass on the server, and write the password into RIS_REDIS_URL.",
        )
    return weakness or ok(f"Valkey at {place} keeps what is written.")


def worker(context: CheckContext) -> CheckResult:
    """Workers have shown themselves lately, and listen to every queue."""
    with queue.connect(context.settings.secret("redis_url")) as connection:
        workers = Worker.all(connection=connection)
        waiting = sum(Queue(name, connection=connection).count for name in QUEUES)
        suspended = is_suspended(connection)
    alive = [worker for worker in workers if _is_alive(worker)]
    served = {name for worker in alive for name in worker.queue_names()}
    unserved = [kind for kind, names in KINDS.items() if not served.issuperset(names)]
    load = f"{waiting} {'job waits' if waiting == 1 else 'jobs wait'}"
    if suspended:
        return broken(f"Work is suspended; {load}.", "`rq resume --url REDIS_URL` lets the workers go on.")
    if not alive:
        seen = f"The last worker was heard of at {_last_seen(workers)}" if workers else "No worker is registered"
        return broken(f"{seen}; {load}.", "Start one with `ris worker` (`ris up` does); if it died, its log says why.")
    if unserved:
        return broken(
            f"No worker does {' or '.join(unserved)}; {load}.",
            f"Start one with {' and one with '.join(f'`ris worker --only {kind}`' for kind in unserved)} "
            "(`ris up` does); if it died, its log says why.",
        )
    return ok(f"{len(alive)} {'worker is' if len(alive) == 1 else 'workers are'} at work or ready; {load}.")


def _write_and_read(connection: Redis) -> None:
    key, value = f"ris:doctor:{secrets.token_hex(4)}", secrets.token_bytes(8)
    connection.set(key, value, ex=_PROBE_SECONDS)
    kept = connection.get(key)
    connection.delete(key)
    if kept != value:
        raise ResponseError("it doesn't keep what is written")


def _weakness(connection: Redis) -> CheckResult | None:
    """What may lose work later, though the server answers now."""
    state = {**connection.info("persistence"), **connection.info("memory")}
    if state.get("aof_last_write_status", "ok") != "ok" or state.get("rdb_last_bgsave_status", "ok") != "ok":
        return broken("Valkey can't write its data to disk.", "Its log says why; a full disk is usual.")
    if not state.get("aof_enabled") and not _saves(connection):
        return warning(
            "Valkey keeps nothing on disk: a restart loses the jobs that wait.",
            "Set appendonly yes in its configuration; `ris up` and docker-compose.yml do.",
        )
    if state.get("maxmemory") and state.get("maxmemory_policy") != "noeviction":
        return warning("Valkey may drop jobs when its memory is full.", "Set its maxmemory-policy to noeviction.")
    if _LABEL_STUDIO_QUEUES & connection.smembers("rq:queues"):
        return warning(
            "Label Studio keeps its own queues in the same database.",
            "Give each a database of its own: the number at the end of RIS_REDIS_URL.",
        )
    return None


def _saves(connection: Redis) -> bool:
    try:
        return bool(connection.config_get("save").get("save"))
    except ResponseError:
        # Hosted servers keep their configuration to themselves, and look after persistence.
        return True


def _is_alive(worker: BaseWorker) -> bool:
    if worker.death_date is not None or worker.last_heartbeat is None:
        return False
    if worker.hostname == socket.gethostname() and worker.pid and not psutil.pid_exists(worker.pid):
        return False
    return (datetime.now(UTC) - _utc(worker.last_heartbeat)).total_seconds() < SILENCE_SECONDS


def _last_seen(workers: list[BaseWorker]) -> str:
    seen = [_utc(worker.last_heartbeat) for worker in workers if worker.last_heartbeat]
    return f"{max(seen):%H:%M:%S} UTC" if seen else "no known time"


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
