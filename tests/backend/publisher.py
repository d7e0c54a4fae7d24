"""Publishing in a process of its own, which a test may kill."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# The server has imported all by the time that a child is forked: the child publishes within milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["backend.datasets.publish"])
_SECONDS = 60
NOBODY = 65534


def killed(after: float, folder: Path, destination: str, environment: Mapping[str, str]) -> bool:
    """Kill it so many seconds after it began -> whether it hadn't ended by itself yet."""
    process, began = _start(folder, destination, environment)
    assert began.recv() == "began"
    time.sleep(after)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join(_SECONDS)
    return bool(process.exitcode == -signal.SIGKILL)


def outcome(folder: Path, destination: str, environment: Mapping[str, str] | None = None, user: int = 0) -> Any:
    """What publishing returned, or what it raised as `Name: message`; and by how many bytes its memory grew at most."""
    process, told = _start(folder, destination, environment or {}, user)
    assert told.recv() == "began"
    try:
        return told.recv()
    finally:
        process.join(_SECONDS)


def _start(folder: Path, destination: str, environment: Mapping[str, str], user: int = 0) -> tuple[Any, Connection]:
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_publish, args=(folder, destination, dict(environment), user, there))
    process.start()
    there.close()
    return process, here


def _publish(folder: Path, destination: str, environment: dict[str, str], user: int, told: Connection) -> None:
    from backend.datasets.publish import publish
    from ris_core.errors import RisError

    os.environ.update(environment)
    if user and os.geteuid() == 0:
        os.setuid(user)
    before = _most_memory()
    told.send("began")
    try:
        result = publish(folder, destination)
    except RisError as error:
        result = f"{type(error).__name__}: {error}"
    told.send((result, _most_memory() - before))


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
