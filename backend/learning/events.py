"""The log of what Label Studio says has changed: a stream a project in Valkey. It decides when to learn, never what is
learnt: that is read from Label Studio each time.

- An event of an annotation is told by the time of its update: one that is repeated, or comes after a later one, adds
  nothing. After a deletion nothing is added any more.
- Ids, times and actions are kept, and nothing else: what Label Studio sends holds tokens.
- Where Valkey is away, events go to a file below home (`Spool`), which `unspool` puts into the log. That file and the
  stream are bounded: what falls out of them is found by the reconciler.
- A learning begins with what is logged by then (`begin`). While it runs, that is `pending`; should it fail or die,
  it is so still, and the next one is about it too.

Kept of a project, under ris:events:<project>, and as long as it isn't silent for KEPT_SECONDS:

    (stream)   the events, oldest first       :newest    annotation -> time of its last event, in microseconds
    :state     mark: the last event that a learning has begun with. pending: how many corrections that one is taking
               care of, or has left; since: the time of the first of them. job: the learning that isn't at its end.
               asked, heard: when learning was queued last, and the last event then. seen, looked: what the
               reconciler saw last, and when
"""

import json
import logging
import os
import re
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from redis import Redis
from redis.exceptions import RedisError

from backend.home import spool_file
from backend.labelstudio.webhooks import START_TRAINING, TASKS_DELETED, UPDATED, Event
from backend.locks import exclusive

_log = logging.getLogger(__name__)

# Of the reconciler: what the log had missed, and a project that it sees for the first time.
MISSED, UNKNOWN = "MISSED", "UNKNOWN"

KEPT_SECONDS = 30 * 86400
MAX_EVENTS = 10_000
SPOOL_BYTES = 1 << 20
# Events that Valkey takes in one step: it serves nobody else meanwhile, some ten milliseconds.
_AT_ONCE = 500

_PROJECTS = "ris:events:projects"
_APPEND = files(__package__).joinpath("append.lua").read_text(encoding="utf-8")

Appended = Literal["new", "known", "spooled"]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What has changed since a learning last began. Times in seconds since 1970, by Valkey's clock.

    fresh: how many tasks; first: the time of the first. pending: how many corrections that learning is taking care of,
    or has left; since: the time of the first of those; job: which learning it is, "" where it has ended. queued: when
    learning was queued for just these; 0 if it wasn't. forced: somebody pressed "Start Training". unknown: nothing is
    known of the project. mark: the last event.
    """

    now: float
    fresh: int
    first: float | None
    pending: int
    since: float | None
    job: str
    queued: float
    forced: bool
    unknown: bool
    mark: str


@dataclass(frozen=True)
class ProjectCounts:
    """What Label Studio held of a project when it was probed: tasks, submitted annotations, the newest `updated_at`."""

    tasks: int
    annotations: int
    updated: str = ""


class EventLog:
    """The logs of all projects. Safe for any number of threads and processes.

    `append` spools what Valkey can't take; of all other methods, what Valkey raises goes through.
    """

    def __init__(self, connection: Redis, home: Path) -> None:
        self._connection = connection
        self._spool = Spool(spool_file(home))
        self._append = connection.register_script(_APPEND)

    def append(self, project: int, event: Event) -> Appended:
        """Log an event. "known": it was there already, or a later one of the annotation. "spooled": Valkey is away.

        Raises ValueError if the event's time is none.
        """
        [became] = self.append_all(project, [event])
        return became

    def append_all(self, project: int, events: Sequence[Event]) -> list[Appended]:
        """`append` for several, at some 20,000 a second."""
        became: list[Appended] = []
        try:
            for start in range(0, len(events), _AT_ONCE):
                news = self._log(project, events[start : start + _AT_ONCE])
                became += ["new" if is_news else "known" for is_news in news]
        except RedisError:
            # What was logged, though nobody said so any more, adds nothing when it is logged again.
            left = events[len(became) :]
            self._spool.add(*({"project": project, **asdict(event)} for event in left))
            became += ["spooled"] * len(left)
        return became

    def unspool(self) -> int:
        """Put what was spooled into the log. Returns how many events that was. One caller at a time.

        Killed midway, it is repeated by the next call: what is logged already adds nothing then.
        """
        return self._spool.drain(self._take)

    def projects(self) -> set[int]:
        """The projects that have ever sent an event."""
        names = map(_text, self._connection.smembers(_PROJECTS))
        return {int(name) for name in names if re.fullmatch("[0-9]{1,10}", name)}

    def events(self, project: int, after: str = "0") -> Iterator[tuple[str, Event]]:
        """The events of a project after the one of that id, each with its own."""
        entries: Any = self._connection.xrange(_key(project), min=f"({after}")
        for identity, fields in entries:
            yield _text(identity), Event(**json.loads(fields[b"event"]))

    def changes(self, project: int) -> Changes:
        """What has changed since a learning last began."""
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(_key(project, ":state"))
            pipeline.time()
            fields, (seconds, micros) = pipeline.execute()
        state = {_text(name): _text(value) for name, value in fields.items()}
        mark, pending = state.get("mark", "0"), int(state.get("pending", 0))
        events = list(self.events(project, mark))
        last = events[-1][0] if events else mark
        actions = {event.action for _, event in events}
        return Changes(
            now=seconds + micros / 1_000_000,
            fresh=_changed(event for _, event in events),
            first=_seconds(events[0][0]) if events else None,
            pending=pending,
            since=float(state["since"]) if pending else None,
            job=state.get("job", ""),
            queued=float(state["asked"]) if state.get("heard") == last else 0.0,
            forced=START_TRAINING in actions,
            unknown=UNKNOWN in actions,
            mark=last,
        )

    def note_queued(self, project: int, changes: Changes) -> None:
        """Note that learning is queued for these."""
        self._note(project, {"asked": changes.now, "heard": changes.mark})

    def begin(self, project: int, job: str) -> None:
        """A learning begins, and will read all that has been logged."""
        changes = self.changes(project)
        times = [time for time in (changes.since, changes.first) if time is not None]
        pending = changes.pending + changes.fresh
        since = min(times, default=changes.now)
        self._note(project, {"mark": changes.mark, "pending": pending, "since": since, "job": job})

    def end(self, project: int, unused: int | None) -> None:
        """It has ended; so many new corrections were too few to learn from. None: it failed, or will begin again."""
        self._note(project, {} if unused is None else {"pending": unused}, "job")

    def last_probe(self, project: int) -> tuple[ProjectCounts | None, float]:
        """What the reconciler saw last, and the seconds since its last probe; None and infinity if it never did."""
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.hmget(_key(project, ":state"), ["seen", "looked"])
            pipeline.time()
            (seen, looked), (now, _) = pipeline.execute()
        age = now - int(looked) if looked else float("inf")
        return ProjectCounts(**json.loads(seen)) if seen else None, age

    def note_probe(self, project: int, counts: ProjectCounts | None = None) -> None:
        """Note that the reconciler probes now, and what it saw, if anything."""
        (now, _) = self._connection.time()
        self._note(project, {"looked": now, **({"seen": json.dumps(asdict(counts))} if counts else {})})

    def _take(self, entry: Entry) -> None:
        self._log(entry.pop("project"), [Event(**entry)])

    def _log(self, project: int, events: Sequence[Event]) -> list[bool]:
        """Whether each was news."""
        keys = [_key(project), _key(project, ":newest"), _PROJECTS]
        arguments: list[Any] = [project, MAX_EVENTS, KEPT_SECONDS]
        for event in events:
            arguments += _arguments(event)
        return [bool(news) for news in self._append(keys=keys, args=arguments)]

    def _note(self, project: int, values: Mapping[str, float | str], *gone: str) -> None:
        key = _key(project, ":state")
        with self._connection.pipeline() as pipeline:
            if values:
                pipeline.hset(key, items=[field for pair in values.items() for field in pair])
            if gone:
                pipeline.hdel(key, *gone)
            pipeline.expire(key, KEPT_SECONDS)
            pipeline.execute()


class Spool:
    """JSON lines in `file` that wait for Valkey; beside it are its lock and the file that is being read back.

    Any number of threads and processes add; whoever reads back does so alone. Killed while it writes, a process leaves
    at most a line that isn't whole, which is left out.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reading = file.with_name(f"{file.stem}.reading{file.suffix}")

    def add(self, *entries: Mapping[str, Any]) -> None:
        """Keep entries, on the disk when this returns; where the file is full they are lost, and the log says so."""
        lines = [json.dumps(entry).encode() + b"\n" for entry in entries]
        with self._locked():
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                room = SPOOL_BYTES - os.fstat(descriptor).st_size
                ends = list(accumulate(map(len, lines)))
                fitting = lines[: bisect(ends, room)]
                if len(fitting) < len(lines):
                    _log.error(
                        "Valkey is away, and %s is full: events are lost. The reconciler will find them.", self._file
                    )
                os.write(descriptor, b"".join(fitting))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def drain(self, take: Callable[[Entry], object]) -> int:
        """Hand all entries to `take`, the oldest first, then forget them -> how many there were.

        Killed midway, or where `take` raises, the next call hands over all of them again.
        """
        if not self._reading.exists():
            with self._locked():
                if not self._file.exists():
                    return 0
                self._file.rename(self._reading)
        entries = list(self._entries())
        for entry in entries:
            take(entry)
        self._reading.unlink()
        return len(entries)

    def _entries(self) -> Iterator[Entry]:
        for line in self._reading.read_text(encoding="utf-8").splitlines():
            # Else its writer was killed in the middle of it.
            with suppress(ValueError):
                yield json.loads(line)

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive(self._file.with_suffix(".lock"))


def _arguments(event: Event) -> tuple[str, int, str]:
    """What append.lua takes for an event: what it is about, when that was, and the event itself."""
    subject = "" if event.annotation is None else str(event.annotation)
    if event.action == TASKS_DELETED:
        subject = f"task {event.task}"
    fields = {name: value for name, value in asdict(event).items() if value}
    return subject, event.stamp if subject else 0, json.dumps(fields)


def _changed(events: Iterable[Event]) -> int:
    """How many tasks the events are about: of a task's annotations one counts.

    A skip says nothing, unless it takes an annotation back.
    """
    owners: dict[int, int] = {}
    changed: set[object] = set()
    for event in events:
        if event.action in (START_TRAINING, UNKNOWN) or (event.cancelled and event.action != UPDATED):
            continue
        if event.annotation is not None and event.task is not None:
            owners[event.annotation] = event.task
        # Of a deletion Label Studio names the annotation alone.
        task = event.task if event.task is not None else owners.get(event.annotation or 0)
        changed.add(("task", task) if task is not None else ("annotation", event.annotation))
    return len(changed)


def _key(project: int, part: str = "") -> str:
    return f"ris:events:{project}{part}"


def _seconds(identity: str) -> float:
    return int(identity.partition("-")[0]) / 1000


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
