"""What a project's annotations say, kept from export to export: only what changed is asked for and read again.

A file of SQLite below home, one row a task: all its submitted annotations as they were read. It is a cache: deleted or
damaged, it is made anew; read by other code or another labelling interface, it starts over. A row is known by the
versions of the task and its annotations that it was read from, as they came in one answer of Label Studio: whatever
is saved meanwhile is another version, which the next export asks for.
"""

import hashlib
import json
import multiprocessing
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import count, islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import backend
from backend.datasets.annotations import (
    Correction,
    DrawnObject,
    Edit,
    Expression,
    read_submitted,
    something_is_drawn,
    with_disagreement,
)
from backend.datasets.problems import Problem
from backend.errors import BadRequest
from backend.home import records_file
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import UNLABELLED, Defaults, LabelConfig, parse
from backend.labelstudio.regions import Shape
from backend.labelstudio.responses import Json
from backend.labelstudio.shapes import FilledShape, filled_shapes
from backend.locks import exclusive
from backend.prompts.text import clean
from ris_core.masks import encode_rle

# From how many tasks on it is worth starting processes that read them, and how many tasks each gets at a time.
_MANY, _SHARE = 48, 4
# What is kept of an annotation besides what it says: by which one is chosen.
_KEPT = ("id", "created_at", "updated_at", "completed_by", "ground_truth", "was_cancelled", "last_action", "reviews")


@dataclass(frozen=True)
class SubmittedAnnotation:
    """An annotation that was read. head: what Label Studio says of it but its result, and whether that says where."""

    head: Mapping[str, Any]
    correction: Correction
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class TaskRecord:
    """A task with its submitted annotations; problems: of the task itself."""

    task: int
    annotations: tuple[SubmittedAnnotation, ...]
    problems: tuple[Problem, ...] = ()


def says_where(head: Mapping[str, Any]) -> bool:
    """Whether anything is drawn in an annotation, by its head."""
    return bool(head["says_where"])


class ProjectRecords:
    """The records of one project, while `open_records` holds them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __iter__(self) -> Iterator[TaskRecord]:
        """By rising number of the task."""
        for (document,) in self._database.execute("SELECT document FROM records ORDER BY task"):
            yield _record_of(json.loads(document))

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM records").fetchone()[0])

    def update(
        self,
        client: LabelStudio,
        project: int,
        xml: str,
        defaults: Defaults,
        on_progress: Callable[[float], object] = lambda share: None,
    ) -> int:
        """Ask Label Studio for what changed, and read it. Returns how many tasks that were. Killed, it goes on there.

        on_progress: called with the share that is done. Raises ConfigError and LabelStudioError.
        """
        self._start_over_unless(_digest(xml, repr(defaults), _code()))
        known = dict(self._database.execute("SELECT task, version FROM records"))
        listed = {int(task["id"]): _version(task) for task in client.annotation_versions(project)}
        self._delete(known.keys() - listed.keys())
        stale = [task for task, version in listed.items() if known.get(task) != version]
        done = 0
        with _readers(xml, defaults, len(stale)) as read:
            tasks = client.annotations_of(project, stale)
            records = read(tasks)
            while rows := list(islice(records, _SHARE)):
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)
                done += len(rows)
                on_progress(done / len(stale))
        # Deleted since they were listed.
        self._delete({task for task in stale if task not in self._versions()})
        return len(stale)

    def _versions(self) -> set[int]:
        return {task for (task,) in self._database.execute("SELECT task FROM records")}

    def _delete(self, tasks: Iterable[int]) -> None:
        with self._database:
            self._database.executemany("DELETE FROM records WHERE task = ?", [(task,) for task in tasks])

    def _start_over_unless(self, reader: str) -> None:
        current = self._database.execute("SELECT reader FROM about").fetchone()
        if current != (reader,):
            with self._database:
                self._database.execute("DELETE FROM records")
                self._database.execute("DELETE FROM about")
                self._database.execute("INSERT INTO about VALUES (?)", (reader,))


@contextmanager
def open_records(home: Path, project: int) -> Iterator[ProjectRecords]:
    """A project's records, for one process at a time: another waits."""
    file = records_file(home, project)
    with exclusive(file.with_suffix(".lock")), closing(_connect(file)) as database:
        yield ProjectRecords(database)


def _connect(file: Path) -> sqlite3.Connection:
    for _ in range(2):
        # SQLite gives its files beside it the mode of the first.
        file.touch(mode=0o600)
        database = sqlite3.connect(file)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS records (task INTEGER PRIMARY KEY, version TEXT, document TEXT)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS about (reader TEXT)")
            database.execute("SELECT count(*), max(task) FROM records").fetchone()
        except sqlite3.DatabaseError:
            database.close()
            file.unlink(missing_ok=True)
        else:
            return database
    return sqlite3.connect(file)


Row = tuple[int, str, str]
"""A task, the version that was read, and the record as JSON."""


@contextmanager
def _readers(xml: str, defaults: Defaults, count: int) -> Iterator[Callable[[Iterable[Json]], Iterator[Row]]]:
    """What reads tasks as Label Studio gives them: for many, on all cores. A few are held at a time."""
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < _MANY or processes < 2:
        config = parse(xml, defaults)
        yield lambda tasks: (_read(task, config) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _die_with_parent) as pool:
        yield lambda tasks: _ahead(pool, tasks, xml, defaults, 2 * processes)


def _ahead(pool: ProcessPoolExecutor, tasks: Iterable[Json], xml: str, defaults: Defaults, most: int) -> Iterator[Row]:
    waiting: deque[Future[list[Row]]] = deque()
    source = iter(tasks)
    while share := list(islice(source, _SHARE)):
        waiting.append(pool.submit(_read_share, share, xml, defaults))
        if len(waiting) >= most:
            yield from waiting.popleft().result()
    for rows in waiting:
        yield from rows.result()


def _die_with_parent() -> None:
    """A parent that is killed says nothing to the processes of its pool: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


@cache
def _config(xml: str, defaults: Defaults) -> LabelConfig:
    return parse(xml, defaults)


def _read_share(tasks: Sequence[Json], xml: str, defaults: Defaults) -> list[Row]:
    return [_read(task, _config(xml, defaults)) for task in tasks]


def _read(task: Json, config: LabelConfig) -> Row:
    record = read_record(task, config)
    return record.task, _version(task), json.dumps(asdict(record), default=sorted)


def read_record(task: Mapping[str, Any], config: LabelConfig) -> TaskRecord:
    """What all of a task's submitted annotations say; what is wrong with a region costs that region alone."""
    number, annotations = int(task["id"]), []
    for annotation in task.get("annotations") or []:
        if annotation.get("was_cancelled"):
            continue
        problems: list[Problem] = []
        try:
            correction = _read_drawings(task, annotation, config, problems)
            correction = with_disagreement(correction, annotation, task["annotations"])
        except BadRequest as error:
            return TaskRecord(number, (), (Problem("task", number, str(error)),))
        head = {name: annotation[name] for name in _KEPT if name in annotation}
        problems += [
            Problem("remark", number, f"{remark[:1].upper()}{remark[1:]}.", correction.annotation)
            for remark in correction.remarks
        ]
        head["says_where"] = something_is_drawn(annotation)
        annotations.append(SubmittedAnnotation(head, correction, tuple(problems)))
    return TaskRecord(number, tuple(annotations))


def _read_drawings(
    task: Mapping[str, Any], annotation: Mapping[str, Any], config: LabelConfig, problems: list[Problem]
) -> Correction:
    """What an annotation says, with rectangles, ellipses and the like filled."""

    def tell(kind: str, region: str, message: str) -> None:
        problems.append(Problem(kind, int(task["id"]), message, int(annotation["id"]), region))

    correction = read_submitted(task, annotation, config, tell)
    correction = _with_shapes(correction, filled_shapes(annotation.get("result"), config, tell), tell)
    known = {label.value for label in (*config.labels, *config.others)} | {UNLABELLED}
    for drawn in correction.objects:
        if drawn.label not in known:
            what = f'Region {drawn.region} has the label "{drawn.label}", which the interface hasn\'t: it is kept.'
            tell("unknown label", drawn.region, what)
    return correction


def _with_shapes(
    correction: Correction, shapes: Sequence[FilledShape], tell: Callable[[str, str, str], object]
) -> Correction:
    regions = {drawn.region for drawn in correction.objects}
    objects, said = list(correction.objects), {known.cleaned: known for known in correction.expressions}
    for shape in shapes:
        if not shape.mask.any():
            tell("empty", shape.region_id, f"Region {shape.region_id} covers no pixel: it is left out.")
            continue
        if shape.is_turned:
            what = f"Region {shape.region_id} is a turned {shape.kind}: its mask is exact, its box lies around it."
            tell("rotated", shape.region_id, what)
        for further in shape.labels[1:]:
            tell("remark", shape.region_id, f"Region {shape.region_id} has several labels: {further} is left out.")
        region = next(name for name in _names(shape.region_id) if name not in regions)
        regions.add(region)
        kind = shape.kind if shape.kind in ("rectangle", "ellipse") else ""
        label = shape.labels[0] if shape.labels else UNLABELLED
        objects.append(DrawnObject(region, label, encode_rle(shape.mask), shape.origin, shape.score, kind))
        for prompt in filter(clean, shape.prompts):
            known = said.get(clean(prompt), Expression(prompt, ()))
            said[known.cleaned] = replace(known, regions=(*known.regions, region))
    return replace(correction, objects=tuple(objects), expressions=tuple(said.values()))


def _names(region: str) -> Iterator[str]:
    yield region
    yield from (f"{region}#{number}" for number in count(2))


def _record_of(document: Json) -> TaskRecord:
    annotations = (
        SubmittedAnnotation(
            entry["head"], correction_of(entry["correction"]), tuple(Problem(**row) for row in entry["problems"])
        )
        for entry in document["annotations"]
    )
    problems = tuple(Problem(**row) for row in document["problems"])
    return TaskRecord(document["task"], tuple(annotations), problems)


def correction_of(document: Mapping[str, Any]) -> Correction:
    """A correction from what `asdict` makes of it, by way of JSON."""
    return Correction(
        **{
            **document,
            "objects": tuple(DrawnObject(**{**row, "sources": tuple(row["sources"])}) for row in document["objects"]),
            "expressions": tuple(
                Expression(row["prompt"], tuple(row["regions"]), Edit(**row["edit"]) if row["edit"] else None)
                for row in document["expressions"]
            ),
            "shapes": tuple(Shape(row["kind"], frozenset(row["labels"])) for row in document["shapes"]),
            "unanswered": tuple(document["unanswered"]),
            "remarks": tuple(document["remarks"]),
        }
    )


def _version(task: Mapping[str, Any]) -> str:
    """Changes with whatever is saved of a task or one of its annotations."""
    annotations = sorted(
        (int(annotation["id"]), str(annotation.get("updated_at")), bool(annotation.get("was_cancelled")))
        for annotation in task.get("annotations") or []
    )
    return _digest(str(task.get("updated_at")), repr(annotations))


@cache
def _code() -> str:
    """Changes with the code: what another version of it read is read again."""
    root = Path(backend.__file__).parent
    return _digest(*(path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
