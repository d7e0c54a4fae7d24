"""What workers counted, added up in Valkey: it outlives them, and comes together from whatever machines they run on.

A worker starts a process for each job. Files of each process, which the client library would keep, would be as many as
there ever were jobs, and would have to lie on a disk that all share; a counter in Valkey is one field, whoever adds to
it. What a killed process counted since it last added, seconds ago, is lost. While Valkey is away nothing is added, and
nothing is lost either.
"""

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from redis import Redis
from redis.exceptions import RedisError

from backend.metrics import REGISTRY

KEY = "ris:metrics"
PUSH_SECONDS = 5.0
_log = logging.getLogger(__name__)

SampleKey: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""Name, and labels with their values, sorted."""
Samples: TypeAlias = Mapping[SampleKey, float]


class Pusher:
    """Adds to Valkey what this process has counted since the last time, or since the pusher was made."""

    def __init__(self, connection: Redis, registry: CollectorRegistry = REGISTRY) -> None:
        self._connection, self._registry = connection, registry
        self._pushed = samples_of(registry)
        self._sent: set[SampleKey] = set()

    def push(self) -> None:
        """Add it. What Valkey raises goes through; then all of it is added the next time."""
        current = samples_of(self._registry)
        grown = {key: value - self._pushed.get(key, 0.0) for key, value in current.items()}
        # Once also what is zero: a histogram without its empty buckets couldn't be read.
        grown = {key: value for key, value in grown.items() if value or key not in self._sent}
        if grown:
            # All or nothing: the buckets of a histogram fit together.
            with self._connection.pipeline(transaction=True) as pipeline:
                for (name, labels), value in grown.items():
                    pipeline.hincrbyfloat(KEY, json.dumps([name, labels]), value)
                pipeline.execute()
        self._pushed = current
        self._sent.update(grown)


@contextmanager
def pushing(connection: Redis, seconds: float = PUSH_SECONDS) -> Iterator[None]:
    """Inside, what is counted is added to Valkey every few seconds, and the rest at the end."""
    pusher, over = Pusher(connection), threading.Event()

    def push() -> None:
        # Work must not end for what is only told.
        try:
            pusher.push()
        except RedisError as error:
            _log.debug("Metrics wait for Valkey: %s", error)

    def keep_pushing() -> None:
        while not over.wait(seconds):
            push()

    thread = threading.Thread(target=keep_pushing, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        push()


def pushed(connection: Redis) -> Samples:
    """All that was ever added. Raises what Valkey raises."""
    fields: Mapping[bytes, bytes] = connection.hgetall(KEY)  # type: ignore[assignment]
    samples = {}
    for field, value in fields.items():
        name, labels = json.loads(field)
        samples[name, tuple((str(key), str(text)) for key, text in labels)] = float(value)
    return samples


def samples_of(registry: CollectorRegistry) -> Samples:
    """What a process has counted."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for metric in registry.collect()
        for sample in metric.samples
    }


def together(metrics: Iterable[Metric], others: Samples) -> Iterator[Metric]:
    """Counters and histograms with what other processes counted."""
    for metric in metrics:
        names = {f"{metric.name}{suffix}" for suffix in ("_total", "_bucket", "_count", "_sum")}
        sums = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in metric.samples}
        for key, value in others.items():
            if key[0] in names:
                sums[key] = sums.get(key, 0.0) + value
        joined = Metric(metric.name, metric.documentation, metric.type)
        for (name, labels), value in sorted(sums.items(), key=_place):
            joined.add_sample(name, dict(labels), value)
        yield joined


def _place(entry: tuple[SampleKey, float]) -> tuple[object, ...]:
    """Buckets by rising bound, as readers expect them, before count and sum of the same labels."""
    (name, labels), _ = entry
    bound = dict(labels).get("le")
    others = tuple(label for label in labels if label[0] != "le")
    return others, bound is None, float(bound or 0), name
