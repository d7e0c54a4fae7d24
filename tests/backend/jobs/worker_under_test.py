"""The production worker, over the checkpoint that WEIGHTS names, until the queue is empty; with --stay, for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backend.jobs import functions
from backend.jobs.worker import run_worker
from backend.settings import load
from ris_core import checkpoint

# Beside other tests nobody should wait for the politeness of this one.
functions.NICENESS = {"prelabel": 0, "learn": 0}
checkpoint.shipped = lambda: Path(os.environ["WEIGHTS"])

if __name__ == "__main__":
    run_worker(load(), burst="--stay" not in sys.argv)
