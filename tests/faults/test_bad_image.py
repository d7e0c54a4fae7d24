"""Among good images one is corrupt and one is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness import ANNOTATED, ROUNDS, TASKS, Damage, Export, Installation, JobWork, PreLabelling, Tally, Training
from shelf import data

from backend.home import snapshots_folder
from ris_core.data import read_folder

CORRUPT, DAMAGED, MISSING = "isn't a picture", "is damaged", "404"


@contextmanager
def two_bad_pictures(installation: Installation) -> Iterator[set[int]]:
    """Two annotated tasks whose pictures can't be had, at random; they are as before afterwards."""
    uploads, tasks = installation.desk.studio.uploads, installation.desk.studio.tasks
    corrupt, missing = installation.luck.sample([task for task in tasks if task["id"] > 1], 2)
    kept = dict(uploads)
    uploads[corrupt["data"]["image"]] = kept[corrupt["data"]["image"]][:60]
    del uploads[missing["data"]["image"]]
    # What was fetched before is kept in a cache.
    for file in (installation.home / "images").glob("*"):
        file.unlink()
    yield {corrupt["id"], missing["id"]}
    uploads.update(kept)


@pytest.mark.timeout(3600)
def test_a_batch_leaves_out_what_cant_be_read(installation: Installation, tally: Tally) -> None:
    """Both tasks have failed, each with its reason, and get a prediction once the image is there."""
    shelf = installation.desk.shelf
    for _ in range(ROUNDS):
        done = PreLabelling(installation)
        done.order(spoilt := installation.luck.sample(range(TASKS), 2))
        done.finish()
        first, second = (done.tasks[number] for number in spoilt)
        state = done.state
        assert (state.state, state.failed) == ("done", 2)
        assert CORRUPT in state.reasons[first]
        assert MISSING in state.reasons[second]
        assert "2 left out" in installation.ris("jobs")
        for task in (first, second):
            shelf.do("UPDATE task SET data = ? WHERE id = ?", json.dumps(data(1)[0]), task)
        installation.ris("resume", done.batch)
        tally("bad image", done.name, done.finish())
        assert done.state.failed == 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("work", [Training, Export], ids=lambda work: work.name)
def test_learning_and_exports_leave_out_what_cant_be_read(
    installation: Installation, work: type[JobWork], tally: Tally
) -> None:
    """Both tasks are named with the reason; all others are there."""
    for _ in range(ROUNDS):
        with two_bad_pictures(installation) as bad:
            done = work(installation)
            done.order()
            installation.until(done.has_ended)
        assert done.has_succeeded(), done.sentence
        result = done.state["result"]
        told = result["skipped"] if work is Training else result["listed"]
        reasons = {row["task"]: row.get("reason") or row["message"] for row in told}
        assert reasons.keys() == bad
        assert all(DAMAGED in reason or MISSING in reason for reason in reasons.values()), reasons
        snapshot = snapshots_folder(installation.home, ANNOTATED) / str(result.get("snapshot"))
        there = Counter({sample.image_id: 1 for sample in read_folder(done.out if work is Export else snapshot)})
        said = Counter({task["id"]: 1 for task in installation.desk.studio.tasks if task["id"] not in bad})
        tally("bad image", done.name, Damage((said - there).total(), (there - said).total()))
