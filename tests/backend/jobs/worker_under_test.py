"""The production worker, over the checkpoint that WEIGHTS names, until the queues are empty; with --stay, for ever.

--only KIND as for `ris worker`. PASSES limits a training, and each of its steps takes PAUSE seconds longer.
STUDIO_TIMEOUT is after how many seconds an answer of Label Studio is given up. MEMORY names a file: as long as it is
there, the model has room for as many photos together as it says.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.jobs.worker import run_worker
from backend.settings import Settings, load
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
    if seconds := os.environ.get("STUDIO_TIMEOUT"):
        lose_patience(float(seconds))
    if file := os.environ.get("MEMORY"):
        run_short_of_memory(Path(file))


def lose_patience(seconds: float) -> None:
    """Have all requests to Label Studio time out after so long, and chunks that are being written twice that late."""
    import httpx

    from backend.batches import leases
    from backend.labelstudio import client, images

    timeout, connect = httpx.Timeout(seconds), client.LabelStudio.from_settings
    client.IMPORT_TIMEOUT = images.TIMEOUT = timeout

    def hurried(_: type, settings: Settings, _timeout: httpx.Timeout | None = None) -> client.LabelStudio:
        return connect(settings, timeout)

    client.LabelStudio.from_settings = classmethod(hurried)
    leases.WRITING_SECONDS = 2 * seconds


def run_short_of_memory(file: Path) -> None:
    """Raise what torch raises on a full GPU, where torch would."""
    import torch

    from ris_core.models.lda import LDA

    def limited(method: Callable[..., Any], count: Callable[..., int]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if file.exists() and count(*arguments) > int(file.read_text()):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return method(*arguments)

        return call

    LDA.forward = limited(LDA.forward, lambda _model, _images, _text, index, *_: int(index.max()) + 1)
    LDA.encode_levels = limited(LDA.encode_levels, lambda _model, pixels, *_: len(pixels))


if __name__ == "__main__":
    prepare()
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    run_worker(load(), burst="--stay" not in sys.argv, only=only)
