"""What /metrics tells: what was counted, here and by the workers, and how things stand at the moment of asking.

A part that can't be read is left out, and named in ris_scrape_errors: what is known is told in any case.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from redis import Redis
from redis.exceptions import RedisError

from backend.batches.store import Batch, BatchStore
from backend.datasets.acceptance import ORIGINS
from backend.datasets.history import snapshot_figures
from backend.datasets.snapshots import snapshots
from backend.home import interfaces
from backend.metrics import REGISTRY
from backend.metrics.shared import Samples, pushed, together
from backend.queue.queue import JobQueue
from backend.registry import Registry
from backend.settings import Settings
from ris_core.errors import RisError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Gauge:
    """Something that is read when it is asked for."""

    name: str
    says: str
    labels: tuple[str, ...] = ()


QUEUE_JOBS = Gauge("ris_queue_jobs", "Jobs that wait.", ("queue",))
QUEUE_OLDEST = Gauge("ris_queue_oldest_seconds", "How long the next job has waited; 0 where none does.", ("queue",))
QUEUE_RUNNING = Gauge("ris_queue_running_jobs", "Jobs that run.", ("queue",))
WORKERS = Gauge("ris_workers", "Workers that there are for each kind of work.", ("kind",))
BATCH_TASKS = Gauge(
    "ris_batch_tasks", "Tasks of the batches that run: waiting, done, skipped or failed.", ("project", "state")
)
PRODUCTION = Gauge("ris_production_info", "Always 1; the version in production of a project.", ("project", "version"))
EXPRESSIONS = Gauge(
    "ris_expressions", "Expressions in a project's newest snapshot, by how they came about.", ("project", "origin")
)
ACCEPTED = Gauge(
    "ris_accepted_ratio", "Share of its known predictions that was submitted without a change, 0 to 1.", ("project",)
)
MASK_IOU = Gauge("ris_mask_iou", "Mean IoU of its known predictions with what was submitted, 0 to 1.", ("project",))
GPU_MEMORY = Gauge("ris_gpu_memory_bytes", "Memory of a GPU: total, free, and allocated here.", ("device", "state"))
ERRORS = Gauge("ris_scrape_errors", "1 where a part of this answer couldn't be read, else 0.", ("part",))
GAUGES = (
    QUEUE_JOBS,
    QUEUE_OLDEST,
    QUEUE_RUNNING,
    WORKERS,
    BATCH_TASKS,
    PRODUCTION,
    EXPRESSIONS,
    ACCEPTED,
    MASK_IOU,
    GPU_MEMORY,
    ERRORS,
)


class Scrape:
    """Reads all of it anew each time."""

    def __init__(self, settings: Settings, registry: Registry, queue: JobQueue, connection: Redis) -> None:
        self._settings, self._registry, self._queue, self._connection = settings, registry, queue, connection

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics. Never raises for what is away or damaged."""
        counted, errors = self._counted()
        parts: dict[str, Callable[[], list[Metric]]] = {
            "queue": self._of_queue,
            "batches": self._of_batches,
            "versions": self._of_versions,
            "snapshots": self._of_snapshots,
            "gpu": _of_gpu,
        }
        yield from together(REGISTRY.collect(), counted)
        for name, read in parts.items():
            metrics, errors[name] = _attempt(read)
            yield from metrics
        yield _family(ERRORS, {(name,): error for name, error in errors.items()})

    def _counted(self) -> tuple[Samples, dict[str, float]]:
        try:
            return pushed(self._connection), {"counters": 0.0}
        except RedisError:
            return {}, {"counters": 1.0}

    def _of_queue(self) -> list[Metric]:
        loads, workers = self._queue.loads(), self._queue.workers()
        return [
            _family(QUEUE_JOBS, {(name,): load.waiting for name, load in loads.items()}),
            _family(QUEUE_OLDEST, {(name,): load.oldest_seconds for name, load in loads.items()}),
            _family(QUEUE_RUNNING, {(name,): load.running for name, load in loads.items()}),
            _family(WORKERS, {(kind,): count for kind, count in workers.items()}),
        ]

    def _of_batches(self) -> list[Metric]:
        tasks = Counter[tuple[str, str]]()
        for batch in BatchStore(self._connection).running():
            tasks.update({(str(batch.spec.project), state): count for state, count in _states(batch).items()})
        return [_family(BATCH_TASKS, tasks)]

    def _of_versions(self) -> list[Metric]:
        serving = {(str(number), self._registry.pointer(number).version): 1.0 for number in self._projects()}
        return [_family(PRODUCTION, serving)]

    def _of_snapshots(self) -> list[Metric]:
        taken = {str(number): summary for number in self._projects() if (summary := self._figures(number))}
        origins = {(project, origin): row[origin] for project, row in taken.items() for origin in ORIGINS}
        return [
            _family(EXPRESSIONS, origins),
            _family(ACCEPTED, _known(taken, "accepted_share")),
            _family(MASK_IOU, _known(taken, "iou")),
        ]

    def _projects(self) -> list[int]:
        return sorted({*interfaces(self._settings.home), *self._registry.projects()})

    def _figures(self, project: int) -> Mapping[str, Any] | None:
        folder = next(iter(snapshots(self._settings.home, project)), None)
        return snapshot_figures(folder) if folder else None


def _attempt(read: Callable[[], list[Metric]]) -> tuple[list[Metric], float]:
    try:
        return read(), 0.0
    except (RisError, RedisError, OSError):
        return [], 1.0


def _states(batch: Batch) -> dict[str, int]:
    waiting = batch.total - batch.handled
    return {"waiting": waiting, "done": batch.done, "skipped": batch.skipped, "failed": batch.failed}


def _of_gpu() -> list[Metric]:
    # Torch takes seconds to import, and a first look at a GPU takes some of its memory: only where both are done.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    values: dict[tuple[str, str], float] = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        states = {"free": free, "total": total, "allocated": torch.cuda.memory_allocated(number)}
        values |= {(str(number), state): float(size) for state, size in states.items()}
    return [_family(GPU_MEMORY, values)]


def _family(gauge: Gauge, values: Mapping[Any, float]) -> Metric:
    """values: by the values of the labels, in their order."""
    family = GaugeMetricFamily(gauge.name, gauge.says, labels=gauge.labels)
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family


def _known(taken: Mapping[str, Mapping[str, Any]], name: str) -> dict[tuple[str], float]:
    return {(project,): row[name] for project, row in taken.items() if row[name] is not None}
