"""The queues' names, and what kinds of workers there are. Without redis: commands name their options after it."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

WorkerKind: TypeAlias = Literal["training", "batches"]

NAME, TRAINING, BATCHES = "ris", "ris-train", "ris-batch"
QUEUES = (NAME, TRAINING, BATCHES)
"""All queues, in the order in which a worker that serves all looks at them."""
KINDS: Mapping[WorkerKind, tuple[str, ...]] = {"training": (TRAINING,), "batches": (NAME, BATCHES)}
"""What `ris worker --only` offers: the queues of each kind of worker."""
