"""Batches of tasks to pre-label, kept in Valkey: they outlive whoever works on them. Knows no model and no HTTP.

A runner claims a chunk of a batch's tasks, answers them, writes the answers to Label Studio and hands the chunk in.

- A claim is a lease, which its owner renews while it lives. Once it has run out, anybody may claim the chunk.
- Right before it writes, a runner makes sure that the chunk is still its own, and gets a lease that outlasts most
  requests (`begin`), and is renewed while the request lasts. Should it die then, the chunk stays out of reach until the
  request has most likely ended, and whoever claims it next sees in Label Studio what came of it.
- When no chunk is left, one runner claims the closing: it looks through all tasks for a second prediction or none.
- A chunk that was claimed three times and never handed in seems to kill whoever works on it: it comes back as
  chunks of one task, and a single task of that kind has failed.
- A batch whose runners die MOST_DEATHS times in a row, and no chunk was handed in meanwhile, is cancelled.

Every change is one run of store.lua, which Valkey does whole or not at all. The clock is Valkey's, since those of
machines differ. What is kept of a batch, under ris:batch:<id>, and for how long after its end: KEPT_SECONDS.

    (record)    what was asked for, its state, its counts     :tasks    ids of all of its tasks
    :todo       ids that nobody has claimed yet               :failed   task -> why it has no prediction
    :leases     chunk -> when it may be claimed again         :chunks   chunk -> its ids, its owner, the claims of it
"""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import islice
from typing import Any, Literal, TypeVar

from redis import Redis
from redis.lock import Lock

from backend.errors import BackendError, NotFound

LEASE_SECONDS = 6.0
KEPT_SECONDS = 30 * 86400
# A batch whose listing was interrupted is nobody's.
_LISTING_SECONDS = 3600
_MOST_CLAIMS = 3
# With each import Label Studio counts a project's predictions anew.
_LEAST_TASKS = 8
# More than workers there will ever be: one that lives is counted, too, until the first chunk is handed in.
MOST_DEATHS = 24
_DYING = (
    f"Its worker died {MOST_DEATHS} times in a row before it had done anything: see the worker's log. "
    "Its memory may be too small."
)
_PAGE = 1000
_REASON = 400

CLOSING = "closing"
_INDEX = "ris:batches"
_SCRIPT = resources.files(__package__).joinpath("store.lua").read_text(encoding="utf-8")
_PARTS = ("", ":todo", ":leases", ":chunks", ":tasks", ":failed")
_COUNTS = ("total", "done", "skipped", "failed", "rounds")

T = TypeVar("T")
BatchState = Literal["listing", "running", "cancelled", "done"]


class BatchEnded(BackendError, code="batch_ended", status=409):
    """A batch that was cancelled or is done, so that nothing of it can be claimed."""


@dataclass(frozen=True)
class BatchSpec:
    """What is asked of each task of a batch.

    model: the name in the registry of the version that answers; version: what its predictions are called.
    prompts: sentence and label, or None for the label that it names; none at all: each task's own.
    force: predict again where there is a prediction of that version.
    origin: "command", "predict", "webhook" or "promotion".
    """

    project: int
    model: str
    version: str
    prompts: tuple[tuple[str, str | None], ...] = ()
    force: bool = False
    origin: str = "command"
    view: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Tasks that one runner works on. CLOSING has none."""

    name: str
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """A batch as it stands. Times are seconds since 1970; seconds: from the first claim to the last hand-in.

    total = done (predicted now) + skipped (predicted before, or deleted) + failed + those still to do.
    note: what it is waiting for, or why it was stopped.
    """

    id: str
    spec: BatchSpec
    state: BatchState
    created: float
    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    rounds: int = 0
    seconds: float = 0.0
    note: str = ""
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def handled(self) -> int:
        """Tasks that need no more work."""
        return min(self.total, self.done + self.skipped + self.failed)

    @property
    def rate(self) -> float:
        """Tasks predicted a second, so far; 0 before the first."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """All fields side by side, those of the spec too, with the rate and the seconds that are left at it."""
        fields = asdict(self)
        spec, reasons = fields.pop("spec"), fields.pop("reasons")
        left = (self.total - self.handled) / self.rate if self.rate else None
        return {**fields, **spec, "rate": self.rate, "seconds_left": left, "reasons": reasons}


class BatchStore:
    """All batches. Safe for any number of threads, processes and machines; what Valkey raises goes through."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._script = connection.register_script(_SCRIPT)

    def create(self, spec: BatchSpec, tasks: Iterable[int]) -> Batch:
        """A new batch of tasks. It runs once all of them are in it; should the caller die first, it vanishes."""
        batch = secrets.token_hex(4)
        with self._connection.pipeline() as pipeline:
            pipeline.hset(_key(batch), mapping={"order": json.dumps(asdict(spec)), "state": "listing"})
            pipeline.expire(_key(batch), _LISTING_SECONDS)
            pipeline.execute()
        for page in pages(tasks, _PAGE):
            self.add(batch, page)
        total = int(self._connection.hget(_key(batch), "total") or 0)
        self._run("start", batch, batch, chunk_size(total))
        return self.get(batch)

    def add(self, batch: str, tasks: Sequence[int]) -> bool:
        """Add tasks that aren't in it yet. False: it has come to an end, and nothing was added."""
        return bool(self._run("add", batch, _LISTING_SECONDS, *tasks))

    def get(self, batch: str, reasons: bool = False) -> Batch:
        """A batch; with `reasons`, also why tasks of it failed. Raises NotFound."""
        record = _record(self._connection.hgetall(_key(batch)))
        if "order" not in record:
            raise NotFound(f"There is no batch {batch!r:.40}: see `ris jobs`. Batches are kept for 30 days.")
        failed = self._connection.hgetall(_key(batch, ":failed")) if reasons else {}
        return _batch(batch, record, {int(task): _text(reason) for task, reason in failed.items()})

    def all(self) -> Iterator[Batch]:
        """All batches, the newest first."""
        names = map(_text, self._connection.zrange(_INDEX, 0, -1, desc=True))
        for page in pages(names, _PAGE):
            with self._connection.pipeline(transaction=False) as pipeline:
                for name in page:
                    pipeline.hgetall(_key(name))
                records = pipeline.execute()
            for name, fields in zip(page, records, strict=True):
                record = _record(fields)
                if "order" in record:
                    yield _batch(name, record, {})
                else:
                    self._connection.zrem(_INDEX, name)

    def running(self) -> list[Batch]:
        """Those that aren't at an end, the newest first."""
        return [batch for batch in self.all() if batch.state == "running"]

    def missing(self, batch: str, tasks: Sequence[int]) -> list[int]:
        """Those tasks that aren't in the batch."""
        if not tasks:
            return []
        present = self._connection.smismember(_key(batch, ":tasks"), list(tasks))
        return [task for task, is_present in zip(tasks, present, strict=True) if not is_present]

    def tasks(self, batch: str) -> Iterator[int]:
        """The ids of all of its tasks, in no order; one that is added meanwhile may be left out."""
        return (int(task) for task in self._connection.sscan_iter(_key(batch, ":tasks"), count=_PAGE))

    def failures(self, batch: str, tasks: Sequence[int]) -> set[int]:
        """Those of the tasks that have failed."""
        reasons = self._connection.hmget(_key(batch, ":failed"), list(map(str, tasks))) if tasks else []
        return {task for task, reason in zip(tasks, reasons, strict=True) if reason is not None}

    def submitting(self) -> AbstractContextManager[object]:
        """Hold this while looking for a batch before making one, so that two callers don't make the same."""
        lock: Lock = self._connection.lock("ris:ordering", timeout=5, blocking_timeout=5)
        return lock

    def start_run(self, batch: str) -> bool:
        """Count a runner that begins. False: the batch isn't running, or is cancelled now since they all die."""
        return bool(self._run("start_run", batch, MOST_DEATHS, KEPT_SECONDS, _DYING))

    def end_run(self, batch: str) -> None:
        """Take back a runner that came to its end, whatever it did."""
        self._run("end_run", batch)

    def claim(self, batch: str, owner: str) -> Chunk | None:
        """A chunk, nobody else's for LEASE_SECONDS; None: others have all that is left. Raises BatchEnded."""
        answer = self._run("claim", batch, owner, LEASE_SECONDS, _MOST_CLAIMS, _LEAST_TASKS)
        if not answer:
            raise BatchEnded(f"Batch {batch} isn't running any more.")
        name, tasks = map(_text, answer)
        return Chunk(name, tuple(int(task) for task in tasks.split(",") if task)) if name else None

    def renew(self, batch: str, owner: str, chunks: Sequence[str]) -> bool:
        """Keep chunks for LEASE_SECONDS more, those that aren't others' by now. False: the batch isn't running."""
        return bool(self._run("renew", batch, owner, LEASE_SECONDS, *chunks))

    def begin(self, batch: str, owner: str, chunk: str, seconds: float) -> bool:
        """Keep a chunk for as long as a request to Label Studio may run. False: it isn't the owner's to write."""
        return bool(self._run("begin", batch, owner, chunk, seconds))

    def release(self, batch: str, owner: str, chunk: str, at_once: bool = True) -> None:
        """Give a chunk up: `at_once`, or when its lease is over, if a request of ours may still be running."""
        self._run("release", batch, owner, chunk, int(at_once))

    def finish(
        self, batch: str, owner: str, chunk: str, done: int = 0, skipped: int = 0, failed: dict[int, str] | None = None
    ) -> bool:
        """Hand a chunk in, with what became of its tasks. False: it is somebody else's by now."""
        reasons = (text for task, reason in (failed or {}).items() for text in (task, reason[:_REASON]))
        return bool(self._run("finish", batch, owner, chunk, done, skipped, *reasons))

    def close(self, batch: str, owner: str, missing: Sequence[int] = ()) -> bool:
        """Hand in the closing: the batch is done, unless tasks are `missing`, which are queued again."""
        return bool(self._run("close", batch, owner, KEPT_SECONDS, *missing))

    def note(self, batch: str, text: str) -> None:
        """Say what the batch is waiting for; forgotten when a chunk is handed in."""
        self._run("note", batch, text[:_REASON])

    def cancel(self, batch: str, note: str = "") -> Batch:
        """Stop a batch: what isn't written yet stays undone. One that is at an end is left as it is."""
        self.get(batch)
        self._run("cancel", batch, KEPT_SECONDS, note[:_REASON])
        return self.get(batch)

    def resume(self, batch: str) -> Batch:
        """Go on with a batch that was cancelled, or try again what failed in one that is done."""
        self.get(batch)
        self._run("resume", batch)
        return self.get(batch)

    def _run(self, command: str, batch: str, *arguments: float | str) -> Any:
        keys = [_key(batch, part) for part in _PARTS]
        return self._script(keys=[*keys, _INDEX], args=[command, *arguments])


def chunk_size(tasks: int) -> int:
    """How many tasks of so many are claimed together, but for the last ones, which come in smaller chunks.

    With each import, Label Studio 1.23.2 counts the predictions of all of the project's tasks anew: the time for that
    grows with the square of the project unless chunks grow with it. Whoever dies loses no more than a chunk or two.
    """
    return max(16, min(512, tasks // 64))


def pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one perhaps shorter."""
    left = iter(items)
    while page := list(islice(left, size)):
        yield page


def _key(batch: str, part: str = "") -> str:
    return f"ris:batch:{batch}{part}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _record(fields: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in fields.items()}


def _batch(name: str, record: dict[str, str], reasons: dict[int, str]) -> Batch:
    spec = json.loads(record["order"])
    spec["prompts"] = tuple((prompt, label) for prompt, label in spec["prompts"])
    started, updated = (float(record.get(time, 0)) for time in ("started", "updated"))
    return Batch(
        id=name,
        spec=BatchSpec(**spec),
        state=record["state"],  # type: ignore[arg-type]
        created=float(record.get("created", 0)),
        **{count: max(0, int(record.get(count, 0))) for count in _COUNTS},
        seconds=max(0.0, updated - started),
        note=record.get("note", ""),
        reasons=reasons,
    )
