"""Batches in words, for whoever shows them."""

from collections.abc import Iterator

from backend.batches.store import Batch
from backend.queue.wording import duration


def outcome(batch: Batch) -> str:
    """What came of a batch so far, and how long it will take."""
    return ", ".join(_parts(batch))


def _parts(batch: Batch) -> Iterator[str]:
    yield f"{batch.done} of {batch.total} done"
    if batch.skipped:
        yield f"{batch.skipped} needed none"
    if batch.failed:
        yield f"{batch.failed} left out"
    if batch.state == "running":
        yield f"{batch.rate:.1f} a second"
        left = batch.as_json()["seconds_left"]
        if left is not None:
            yield f"{duration(left)} left"
    if batch.note:
        yield batch.note
