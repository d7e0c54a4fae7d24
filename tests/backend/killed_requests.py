"""A writer in a process of its own that kills itself before its n-th request to the store."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

# The server uses no bucket: what it forks may.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["backend.store.versions"])
_SECONDS = 60


def killed_at(step: int, root: Path, shipped: Path, address: str, candidate: Path) -> int:
    """Add a checkpoint to project 7 and promote it, in a process -> its exit code, 0 if there are fewer steps."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = _CONTEXT.Process(target=_write, args=(step, root, shipped, address, candidate, environment))
    process.start()
    process.join(_SECONDS)
    assert process.exitcode is not None
    return process.exitcode


def _write(step: int, root: Path, shipped: Path, address: str, candidate: Path, environment: dict[str, str]) -> None:
    from backend.store.bucket import open_bucket
    from backend.store.versions import SharedRegistry

    os.environ.update(environment)
    registry = SharedRegistry(root, shipped, _Killer(open_bucket(address), step))  # type: ignore[arg-type]
    registry.promote(7, registry.add(7, candidate, {}).name)


class _Killer:
    """A bucket that counts requests."""

    def __init__(self, bucket: Any, left: int) -> None:
        self._bucket, self._left = bucket, left

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._bucket, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any) -> Any:
            self._step()
            return attribute(*arguments)

        return call

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
