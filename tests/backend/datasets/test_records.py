"""Records: read once, read anew where something changed, and whole whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from annotated import CONFIG, XML, absent, annotation, drawn, task, typed
from small_project import TASKS, blob

from backend.datasets import records as module
from backend.datasets.annotations import read_task
from backend.datasets.records import TaskRecord, correction_of, open_records, read_record, says_where
from backend.home import records_file
from backend.labelstudio.label_config import Defaults, parse

PROJECT = 3


class Client:
    """Label Studio's answers about tasks; `wanted` has the tasks that were asked for whole."""

    def __init__(self, tasks: Sequence[dict[str, Any]]) -> None:
        self.tasks = {entry["id"]: {"updated_at": "2026-11-21T00:00:00Z", **entry} for entry in tasks}
        self.wanted: list[int] = []

    def annotation_versions(self, project: int) -> Iterator[dict[str, Any]]:
        assert project == PROJECT
        for entry in list(self.tasks.values()):
            if any(not one["was_cancelled"] for one in entry["annotations"]):
                kept = ("id", "updated_at", "was_cancelled")
                annotations = [{name: one[name] for name in kept} for one in entry["annotations"]]
                yield {"id": entry["id"], "updated_at": entry["updated_at"], "annotations": annotations}

    def annotations_of(self, project: int, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        for number in ids:
            self.wanted.append(number)
            if number in self.tasks:
                yield self.tasks[number]


def many(count: int) -> list[dict[str, Any]]:
    return [task(n, annotation(n, drawn("a", blob(n), prompt=f"the {n}"))) for n in range(1, count + 1)]


def update(
    home: Path, client: Client, xml: str = XML, defaults: Defaults | None = None
) -> tuple[int, list[TaskRecord]]:
    with open_records(home, PROJECT) as records:
        read = records.update(client, PROJECT, xml, defaults or Defaults())  # type: ignore[arg-type]
        assert len(records) == len(list(records))
        return read, list(records)


def test_records_say_what_annotations_say(tmp_path: Path) -> None:
    _, records = update(tmp_path, Client(TASKS))
    assert [record.task for record in records] == [1, 2, 3, 4, 5]
    for record, entry in zip(records, TASKS, strict=False):
        (submitted,) = record.annotations
        assert submitted.correction == read_task(entry, CONFIG)
        assert says_where(submitted.head) is (record.task not in (3, 5))


@pytest.mark.parametrize("count", [5, 120])
def test_only_what_changed_is_read_again(tmp_path: Path, count: int) -> None:
    """In one process, and in several."""
    client = Client(many(count))
    assert update(tmp_path, client)[0] == count
    assert update(tmp_path, client) == (0, update(tmp_path, client)[1])
    client.wanted.clear()
    client.tasks[2]["annotations"] = [annotation(2, drawn("a", blob(99)), updated_at="2026-11-22T00:00:00Z")]
    client.tasks[3]["annotations"].append(annotation(300, drawn("b", blob(98))))
    client.tasks[4]["annotations"][0]["was_cancelled"] = True
    client.tasks[4]["annotations"].append(annotation(400))
    del client.tasks[1]
    client.tasks[5]["updated_at"] = "2026-11-22T00:00:00Z"
    client.tasks[5]["data"]["image"] = "/data/upload/1/other.png"
    read, records = update(tmp_path, client)
    assert (read, client.wanted) == (4, [2, 3, 4, 5])
    by_task = {record.task: record for record in records}
    assert by_task.keys() == set(range(2, count + 1))
    (changed,) = by_task[2].annotations
    assert np.array_equal(changed.correction.objects[0].mask(), blob(99))
    assert [one.correction.annotation for one in by_task[3].annotations] == [3, 300]
    assert [one.correction.annotation for one in by_task[4].annotations] == [400]
    assert by_task[5].annotations[0].correction.image == "/data/upload/1/other.png"


def test_other_interfaces_and_other_code_read_all_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(many(4))
    assert update(tmp_path, client)[0] == 4
    assert update(tmp_path, client, XML.replace("cup", "mug"))[0] == 4
    assert update(tmp_path, client, XML.replace("cup", "mug"), Defaults(split_by="ward"))[0] == 4
    assert update(tmp_path, client, XML.replace("cup", "mug"), Defaults(split_by="ward"))[0] == 0
    monkeypatch.setattr(module, "_code", lambda: "another")
    assert update(tmp_path, client, XML.replace("cup", "mug"), Defaults(split_by="ward"))[0] == 4


@pytest.mark.parametrize("damage", [b"", b"not a database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    client = Client(many(4))
    before = update(tmp_path, client)[1]
    records_file(tmp_path, PROJECT).write_bytes(damage)
    assert update(tmp_path, client) == (4, before)


def test_a_task_that_is_deleted_while_it_is_read_is_gone(tmp_path: Path) -> None:
    client = Client(many(4))
    listed = list(client.annotation_versions(PROJECT))
    del client.tasks[3]
    client.annotation_versions = lambda project: iter(listed)  # type: ignore[method-assign, assignment]
    assert [record.task for record in update(tmp_path, client)[1]] == [1, 2, 4]


def test_a_record_survives_json() -> None:
    entry = task(1, annotation(11, drawn("a", blob(1), "cat", "The cat"), typed("a unicorn"), absent()))
    (submitted,) = read_record(entry, CONFIG).annotations
    assert correction_of(json.loads(json.dumps(asdict(submitted.correction), default=sorted))) == submitted.correction


def test_what_is_wrong_costs_a_region_and_is_told() -> None:
    broken = drawn("broken", blob(2))
    broken["value"]["rle"] = broken["value"]["rle"][:9]
    wrong = drawn("wrong", blob(3), original_width=9)
    entry = task(
        1,
        annotation(11, drawn("a", blob(1), "cat", "the cat"), broken, wrong, drawn("u", blob(4), "unicorn")),
        annotation(12, drawn("e", np.zeros_like(blob(1)))),
        annotation(13, drawn("x", blob(1), from_name="gone")),
    )
    record = read_record(entry, CONFIG)
    first, second, third = record.annotations
    assert [one.region for one in first.correction.objects] == ["a", "u"]
    told = [(problem.kind, problem.task, problem.annotation, problem.region) for problem in first.problems]
    assert told == [("region", 1, 11, "broken"), ("region", 1, 11, "wrong"), ("unknown label", 1, 11, "u")]
    assert [(problem.kind, problem.region) for problem in second.problems] == [("empty", "e")]
    assert [(problem.kind, problem.region) for problem in third.problems] == [("unknown tag", "x")]
    (problem,) = read_record(task(2, annotation(1), image=""), CONFIG).problems
    assert (problem.kind, problem.task) == ("task", 2)


def test_what_was_offered_and_erased_is_an_answer() -> None:
    erased = drawn("e", np.zeros_like(blob(1)), prompt="the cat", origin="prediction-changed")
    (submitted,) = read_record(task(1, annotation(11, erased)), CONFIG).annotations
    assert submitted.problems == ()
    assert [(said.prompt, said.regions) for said in submitted.correction.expressions] == [("the cat", ())]


def test_shapes_are_objects_with_their_sentences() -> None:
    xml = XML.replace(
        "</View>", '<RectangleLabels name="box" toName="img"><Label value="cat"/></RectangleLabels></View>'
    )
    value = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 10, "rectanglelabels": ["cat"]}
    box = {**drawn("a", blob(1)), "from_name": "box", "type": "rectanglelabels", "value": value}
    entry = task(1, annotation(11, drawn("a", blob(1), "cat", "the cat"), {**box, "meta": {"text": ["prompt: Cats"]}}))
    (submitted,) = read_record(entry, parse(xml)).annotations
    assert [(one.region, one.label, one.shape) for one in submitted.correction.objects] == [
        ("a", "cat", ""),
        ("a#2", "cat", "rectangle"),
    ]
    assert [(said.cleaned, said.regions) for said in submitted.correction.expressions] == [
        ("the cat", ("a",)),
        ("cats", ("a#2",)),
    ]
    assert [(problem.kind, problem.region) for problem in submitted.problems] == [("rotated", "a")]


SCRIPT = """
import json, sys, time
from pathlib import Path
from test_records import Client, PROJECT, XML, Defaults, many, open_records
if __name__ == "__main__":
    with open_records(Path(sys.argv[1]), PROJECT) as records:
        print("begun", flush=True)
        records.update(Client(many(400)), PROJECT, XML, Defaults())
"""


def test_a_kill_costs_nothing_that_was_read_and_leaves_no_process(tmp_path: Path) -> None:
    client, script = Client(many(400)), tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    for attempt in range(2):
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "home"], env={**os.environ, **paths}, stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline() == b"begun\n"
        time.sleep(random.Random(attempt).uniform(0.3, 2.5))
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
    read, records = update(tmp_path / "home", client)
    assert [record.task for record in records] == list(range(1, 401))
    assert records == update(tmp_path / "fresh", client)[1]
    assert read <= 400


def test_people_disagree_only_where_the_later_drew_nothing() -> None:
    mine = annotation(11, drawn("a", blob(1)))
    later = {"completed_by": 2, "updated_at": "2026-11-22T00:00:00Z"}
    for theirs, count in ((annotation(12, drawn("b", blob(2)), **later), 0), (annotation(12, **later), 1)):
        problems = [row for one in read_record(task(1, mine, theirs), CONFIG).annotations for row in one.problems]
        assert [problem.kind for problem in problems] == ["remark"] * count
