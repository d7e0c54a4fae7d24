"""The worker is killed in the middle of its work: once politely, twice, or at once."""

from __future__ import annotations

import signal
import time

import pytest
from harness import ROUNDS, WORKS, Installation, JobWork, Tally

WAYS = ("SIGTERM", "SIGTERM twice", "SIGKILL")


def kill(installation: Installation, way: str) -> None:
    worker = installation.cast.processes["worker"]
    if way == "SIGTERM twice":
        worker.terminate()
        # RQ takes what comes within a second for the same signal.
        time.sleep(1.1)
    installation.cast.kill("worker", signal.SIGKILL if way == "SIGKILL" else signal.SIGTERM)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", WORKS)
def test_a_killed_worker_costs_nothing_but_time(installation: Installation, work: str, way: str, tally: Tally) -> None:
    """Whatever ends the worker, the next one goes on; nobody has to do anything."""
    for _ in range(ROUNDS):
        done = WORKS[work](installation)
        done.begin()
        said = len(installation.log)
        kill(installation, way)
        is_left = way == "SIGKILL" and isinstance(done, JobWork) and not done.has_ended()
        tally(f"worker killed: {way}", work, done.finish())
        log = installation.log[said:]
        assert "Traceback" not in log, log
        if is_left:
            assert f"Job {done.job} was left by a worker that died. It starts again." in log
