"""The production worker, over the checkpoint that WEIGHTS names, until the queue is empty."""

from __future__ import annotations

import os
from pathlib import Path

from backend.jobs.worker import run_worker
from backend.settings import load
from ris_core import checkpoint

checkpoint.shipped = lambda: Path(os.environ["WEIGHTS"])

if __name__ == "__main__":
    run_worker(load(), burst=True)
