"""Waiting for a job's end: what is heard of it meanwhile, and what its end means."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import NotFound
from backend.queue.queue import JobFailed, JobQueue

RUNNING = {"status": "started", "progress": {"stage": "learning", "share": 0.5}}


class Jobs(JobQueue):
    """A queue in which a job goes through states, one a question."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self._states = iter(states)

    def describe(self, job_id: str) -> dict[str, Any]:
        assert job_id == "learn-7"
        return {"progress": None, "result": None, "error": None} | next(self._states)


def outcome(*states: dict[str, Any], heard: list[tuple[str, float]] | None = None) -> dict[str, Any]:
    return Jobs(*states).wait("learn-7", lambda *progress: heard is not None and heard.append(progress))


def test_the_result_comes_after_what_is_heard_of_the_way() -> None:
    heard: list[tuple[str, float]] = []
    result = outcome({"status": "queued"}, RUNNING, {"status": "finished", "result": {"decision": "kept"}}, heard=heard)
    assert result == {"decision": "kept"}
    assert heard == [("learning", 0.5)]


@pytest.mark.parametrize("status", ["failed", "stopped", "canceled"])
def test_an_end_without_a_result_is_an_error(status: str) -> None:
    with pytest.raises(JobFailed, match=rf"Job learn-7 {status}\. The disk is full\."):
        outcome({"status": status, "error": {"message": "The disk is full."}})
    with pytest.raises(JobFailed, match=r"Its log says why\."):
        outcome({"status": status})


def test_a_result_may_have_expired() -> None:
    with pytest.raises(NotFound, match="its result has expired"):
        outcome({"status": "finished"})
