"""Processes that a test kills: each is started again, as a supervisor would."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from backend.errors import Unavailable

# By itself work goes on within seconds; a machine that is busy with other tests takes much longer to start a worker.
PATIENCE = 400


@dataclass
class Cast:
    """The processes by name; whoever ends by itself is started again too."""

    commands: dict[str, Sequence[str]]
    log: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def tend(self) -> None:
        for name, command in self.commands.items():
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                with self.log.open("ab") as log:
                    self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        process = self.processes[name]
        process.send_signal(how)
        # `docker stop` waits for ten seconds; here others may keep the processor busy.
        process.wait(PATIENCE)


@contextmanager
def playing(commands: Mapping[str, Sequence[str]], log: Path) -> Iterator[Cast]:
    """None of them is left in the end; a worker's job ends by itself with its worker."""
    cast = Cast(dict(commands), log)
    try:
        yield cast
    finally:
        for process in cast.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(cast: Cast, condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait, keeping everybody alive; how long it took."""
    started = time.monotonic()
    while True:
        cast.tend()
        with suppress(Unavailable):
            if condition():
                return time.monotonic() - started
        assert time.monotonic() - started < seconds, cast.log.read_text()[-8000:]
        time.sleep(0.05)
