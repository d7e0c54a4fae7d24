"""The production worker, over the checkpoint that WEIGHTS names, until the queues are empty; with --stay, for ever.

--only KIND as for `ris worker`. PASSES limits a training, and each of its steps takes PAUSE seconds longer.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from backend.jobs.worker import run_worker
from backend.settings import load
from ris_core import checkpoint_files

checkpoint_files.shipped = lambda: Path(os.environ["WEIGHTS"])


def prepare() -> None:
    from backend.jobs import functions
    from backend.jobs.functions import JobProgress
    from backend.learning import candidate

    # Beside other tests nobody should wait for the politeness of this one.
    functions.NICENESS = {"prelabel": 0, "learn": 0}
    candidate.MAX_PASSES = int(os.environ.get("PASSES", candidate.MAX_PASSES))
    note = JobProgress.__call__

    def slow(self: JobProgress, stage: str, share: float) -> None:
        note(self, stage, share)
        time.sleep(float(os.environ.get("PAUSE", "0")))

    JobProgress.__call__ = slow


if __name__ == "__main__":
    prepare()
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    run_worker(load(), burst="--stay" not in sys.argv, only=only)
