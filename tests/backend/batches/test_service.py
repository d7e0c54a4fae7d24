"""Batches from their submission to their end: what others have already, who works on them, and how far they are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from ports import free_port
from redis import Redis
from shelf import PROJECT, TOKEN, Shelf, data

from backend import services
from backend.batches.service import BatchService, follow, submit_project
from backend.batches.store import Batch, BatchSpec, BatchStore
from backend.errors import LabelStudioNotFound, NotFound, Unavailable
from backend.labelstudio.client import LabelStudio
from backend.queue.names import BATCHES
from backend.queue.queue import JobQueue, connect, open_queue
from backend.settings import Settings
from ris_core import checkpoint_files
from ris_core.errors import PromptError

SPEC = BatchSpec(project=3, model="lda-1a2b3c4d", version="lda-1a2b3c4d.3fa2c1", origin="webhook")


@pytest.fixture
def batches(redis: Redis) -> BatchService:
    return BatchService(redis, JobQueue(redis))


def test_a_batch_is_followed_to_its_end(batches: BatchService) -> None:
    batch = batches.submit(BatchSpec(PROJECT, "lda-1", "lda-1.a"), range(1, 6))
    progress: list[Batch] = []

    def on_progress(state: Batch) -> None:
        progress.append(state)
        batches.cancel(batch.id, "Enough.")

    ended = follow(batches, batch.id, on_progress)
    assert [(state.state, state.total) for state in progress] == [("running", 5)]
    assert (ended.state, ended.note) == ("cancelled", "Enough.")
    assert follow(batches, batch.id, on_progress) == ended
    assert len(progress) == 1
    with pytest.raises(NotFound, match="ris jobs"):
        follow(batches, "nowhere", on_progress)


def test_a_project_is_submitted_as_it_is_answered_now(
    batches: BatchService, make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = random_checkpoint(tmp_path / "model")
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(3))
    models = services.project_models(make_settings(redis_url=None))
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        plain = submit_project(batches, client, models, PROJECT).spec
        given = submit_project(batches, client, models, PROJECT, [("a dog", "other")]).spec
        for project, prompt, error in ((PROJECT, " ", PromptError), (99, "a dog", LabelStudioNotFound)):
            with pytest.raises(error):
                submit_project(batches, client, models, project, [(prompt, None)])
    assert (plain.project, plain.model) == (PROJECT, checkpoint_files.version(weights))
    assert plain.version.startswith(f"{plain.model}.")
    assert (plain.prompts, plain.force, given.prompts, given.force) == ((), False, (("a dog", "other"),), True)
    assert [batch.total for batch in batches.all()] == [3, 3]


def queued(batches: BatchService) -> list[str]:
    """The batches for which a runner waits."""
    return [job["arguments"][0] for job in batches.queue.recent() if job["function"] == "prelabel"]


def test_what_is_submitted_has_a_runner(batches: BatchService) -> None:
    batch = batches.submit(SPEC, range(1, 6))
    assert (batch.state, batch.total) == ("running", 5)
    assert queued(batches) == [batch.id]


def test_only_tasks_that_no_running_batch_has_are_added(batches: BatchService) -> None:
    first = batches.submit_missing(SPEC, [1, 2])
    assert (first.new, batches.get(first.batch).total) == (2, 2)
    # Events make one batch.
    joined = batches.submit_missing(SPEC, [2, 3])
    assert (joined.batch, joined.new, batches.get(first.batch).total) == (first.batch, 1, 3)
    assert batches.submit_missing(SPEC, [1, 3]) == replace(first, new=0)
    # What somebody asked for by hand is a batch of its own, of the rest.
    by_hand = batches.submit_missing(replace(SPEC, origin="predict"), [3, 4])
    assert by_hand.batch != first.batch
    assert (by_hand.new, batches.get(by_hand.batch).total) == (1, 1)


@pytest.mark.parametrize("other", [{"project": 4}, {"version": "lda-1a2b3c4d.000000"}, {"prompts": (("a cat", None),)}])
def test_batches_that_ask_something_else_hold_none_of_them(batches: BatchService, other: dict[str, object]) -> None:
    batches.submit(replace(SPEC, **other), [1, 2])  # type: ignore[arg-type]
    assert batches.submit_missing(SPEC, [1, 2]).new == 2


def test_tasks_that_are_submitted_at_once_make_one_batch(batches: BatchService) -> None:
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda _: batches.submit_missing(SPEC, [1, 2, 3]), range(8)))
    assert len({receipt.batch for receipt in receipts}) == len(batches.all()) == 1
    assert sorted(receipt.new for receipt in receipts) == [0] * 7 + [3]


def test_a_batch_is_resumed_and_revived_with_a_runner(batches: BatchService, redis: Redis) -> None:
    batch = BatchStore(redis).create(SPEC, [1]).id
    assert queued(batches) == []
    batches.revive()
    assert queued(batches) == [batch]
    redis.flushdb()
    batch = BatchStore(redis).create(SPEC, [1]).id
    assert batches.cancel(batch, "Not now.").state == "cancelled"
    assert batches.cancel(BatchStore(redis).create(SPEC, [2]).id).note == "Somebody cancelled it."
    batches.revive()
    assert queued(batches) == []
    assert batches.resume(batch).state == "running"
    assert queued(batches) == [batch]


def test_what_is_unknown_or_away_is_said(batches: BatchService) -> None:
    with pytest.raises(NotFound, match="ris jobs"):
        batches.get("nowhere")
    with connect(f"redis://127.0.0.1:{free_port()}/0") as nobody, pytest.raises(Unavailable):
        BatchService(nobody, JobQueue(nobody)).all()


def test_while_a_runner_works_another_waits_as_long_as_the_batch_runs(batches: BatchService, redis: Redis) -> None:
    queue = open_queue(redis, name=BATCHES)
    batch = batches.submit(SPEC, [1, 2])
    queue.empty()
    assert batches.take_over(batch.id).state == "running"
    assert batches.take_over(batch.id).state == "running"
    assert [job.args for job in queue.jobs] == [[batch.id]]
    queue.empty()
    batches.cancel(batch.id)
    assert batches.take_over(batch.id).state == "cancelled"
    assert queue.jobs == []
    with pytest.raises(NotFound):
        batches.take_over("nowhere")
