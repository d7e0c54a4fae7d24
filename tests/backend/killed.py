"""Processes that kill themselves in the middle of what they do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

STEPS = ("open", "os.", "shutil.", "tempfile.", "fcntl.")


def run_in_child(action: Callable[[], None], kill_at: int = 0) -> int:
    """Runs `action` in a forked process, which kills itself outright at its n-th step on files."""
    pid = os.fork()
    if pid == 0:
        try:
            if kill_at:
                sys.addaudithook(_killer(kill_at))
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - or the child would run on as a second pytest
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _killer(step: int) -> Callable[[str, tuple[object, ...]], None]:
    left = step

    def hook(event: str, _args: tuple[object, ...]) -> None:
        nonlocal left
        if event.startswith(STEPS) and event != "os.kill":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
