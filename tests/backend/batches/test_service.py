"""Batches from their order to their end: what is asked of a project's tasks, and who hears how it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from redis import Redis
from shelf import PROJECT, TOKEN, Shelf, data

from backend import services
from backend.batches.service import BatchService, follow, submit_project
from backend.batches.store import Batch, BatchSpec
from backend.errors import LabelStudioNotFound, NotFound
from backend.labelstudio.client import LabelStudio
from backend.queue.queue import JobQueue
from backend.settings import Settings
from ris_core import checkpoint_files
from ris_core.errors import PromptError


@pytest.fixture
def batches(redis: Redis) -> BatchService:
    return BatchService(redis, JobQueue(redis))


def test_a_batch_is_followed_to_its_end(batches: BatchService) -> None:
    batch = batches.submit(BatchSpec(PROJECT, "lda-1", "lda-1.a"), range(1, 6))
    heard: list[Batch] = []

    def hear(state: Batch) -> None:
        heard.append(state)
        batches.cancel(batch.id, "Enough.")

    ended = follow(batches, batch.id, hear)
    assert [(state.state, state.total) for state in heard] == [("running", 5)]
    assert (ended.state, ended.note) == ("cancelled", "Enough.")
    assert follow(batches, batch.id, hear) == ended
    assert len(heard) == 1
    with pytest.raises(NotFound, match="ris jobs"):
        follow(batches, "nowhere", hear)


def test_a_project_is_ordered_as_it_is_answered_now(
    batches: BatchService, make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = random_checkpoint(tmp_path / "model")
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(3))
    models = services.answers(make_settings(redis_url=None))
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
