"""One runner of a batch, timed: a process of `load.py`, with so many torch threads as its argument says."""

import json
import os
import sys
import time
from collections import Counter
from functools import wraps
from typing import Any

import torch

from backend import services
from backend.batches.reader import TaskReader
from backend.batches.runner import RunnerServices, run
from backend.batches.store import BatchStore
from backend.labelstudio.client import LabelStudio
from backend.queue.queue import connect
from backend.settings import load
from ris_core.encoders.transformer_text import TransformerText
from ris_core.models import MODELS
from ris_core.models.base import RISModel

# As a worker's job runs it.
NICENESS = 5


def work(threads: int) -> None:
    """A runner: loads the model, says so, waits for a batch's name, works on it and prints the seconds spent."""
    torch.set_num_threads(threads)
    os.nice(NICENESS)
    settings, spent = load(), Counter[str]()
    time_calls(RISModel, "encode_levels", spent, "model")
    time_calls(TransformerText, "forward", spent, "model")
    for design in MODELS.values():
        time_calls(design, "read_levels", spent, "model")
        time_calls(design, "forward", spent, "model")
    time_calls(TaskReader, "next", spent, "waiting")
    started = time.perf_counter()
    project_models, models = services.project_models(settings), services.model_pool(settings)
    registry = services.registry(settings)
    models.warm(registry.base).join()
    spent["loading"] = time.perf_counter() - started
    print("ready", flush=True)
    name = input()
    started = time.perf_counter()
    batches = BatchStore(connect(settings.secret("redis_url"), patient=True))
    with LabelStudio.from_settings(settings) as client:
        prelabeller = services.prelabeller(settings, project_models, models)
        run(name, RunnerServices(client, batches, prelabeller, project_models, registry))
    spent["seconds"] = time.perf_counter() - started
    print(json.dumps(spent))


def time_calls(owner: type, name: str, spent: Counter[str], kind: str) -> None:
    """Have all calls of a method add their seconds to spent[kind]."""
    call = getattr(owner, name)

    @wraps(call)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            spent[kind] += time.perf_counter() - started

    setattr(owner, name, timed)


if __name__ == "__main__":
    work(int(sys.argv[1]))
