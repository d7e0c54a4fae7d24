"""Valkey is stopped in the middle of work, and is there again later."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from harness import ROUNDS, WORKS, Installation, Tally


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["stopped", "killed"])
@pytest.mark.parametrize("work", WORKS)
def test_valkey_going_away_costs_nothing_but_time(
    installation: Installation, work: str, way: str, tally: Tally
) -> None:
    """Whoever asks meanwhile is told so; once Valkey is back, work goes on by itself."""
    for _ in range(ROUNDS):
        done = WORKS[work](installation)
        done.begin()
        installation.cast.kill("valkey", signal.SIGTERM if way == "stopped" else signal.SIGKILL)
        with pytest.raises(subprocess.CalledProcessError) as told:
            installation.ris("jobs")
        assert "The job queue can't be reached" in told.value.stderr
        assert "Traceback" not in told.value.stderr
        time.sleep(installation.luck.uniform(0, 2))
        tally(f"Valkey {way}", work, done.finish())
