"""What is counted and timed, under the names by which Prometheus knows it. Knows nothing of who counts.

Each process counts for itself. What a worker counted it adds to Valkey every few seconds (shared.py), and a scrape of
the backend shows both together.
"""

from contextlib import AbstractContextManager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

ProcessKind = Literal["backend", "worker"]

# Times of creation mean nothing for what several processes add up.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
# /health takes a fifth of a millisecond, a first prompt on a CPU a tenth of a second, a photo of a slow host some more.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)

HTTP_REQUESTS = Counter(
    "ris_http_requests", "Requests that were answered.", ("route", "method", "status"), registry=REGISTRY
)
HTTP_SECONDS = Histogram(
    "ris_http_request_seconds",
    "Time to answer a request.",
    ("route", "method"),
    registry=REGISTRY,
    buckets=_SECONDS,
)
FETCH_SECONDS = Histogram(
    "ris_fetch_seconds", "Time to fetch a task's image.", ("process",), registry=REGISTRY, buckets=_SECONDS
)
EMBED_SECONDS = Histogram(
    "ris_embed_seconds",
    "Time to encode images that no cache held, those of one request together.",
    ("process",),
    registry=REGISTRY,
    buckets=_SECONDS,
)
PREDICT_SECONDS = Histogram(
    "ris_predict_seconds",
    "Time to answer prompts about encoded images, those of one request together.",
    ("process",),
    registry=REGISTRY,
    buckets=_SECONDS,
)
EMBEDDINGS = Counter(
    "ris_embedding_cache_lookups",
    "Images that were looked for among the encoded ones: hit or miss.",
    ("process", "result"),
    registry=REGISTRY,
)
BATCH_RESULTS = Counter(
    "ris_batch_results",
    "Tasks of batches that were handed in: done, skipped (predicted before, or deleted) or failed.",
    ("project", "result"),
    registry=REGISTRY,
)
BATCH_TASK_SECONDS = Histogram(
    "ris_batch_task_seconds",
    "Time that a worker's job takes for a task of a batch: between two hand-ins, shared among what was predicted.",
    ("project",),
    registry=REGISTRY,
    buckets=_SECONDS,
)
LEARNING_RUNS = Counter(
    "ris_learning_runs",
    "Learning that came to its end: waiting (nothing was trained), kept or promoted.",
    ("project", "decision"),
    registry=REGISTRY,
)

_kind: ProcessKind = "backend"


def process() -> ProcessKind:
    """What kind of process this is."""
    return _kind


def be(kind: ProcessKind) -> None:
    """Say what kind of process this is."""
    global _kind  # noqa: PLW0603 - there is one process
    _kind = kind


def timed(stage: Histogram) -> AbstractContextManager[object]:
    """Inside, time is taken of a stage of a prediction."""
    return stage.labels(_kind).time()
