"""Memory that a job may take, and what it means when its process is killed. Knows nothing of what jobs do.

A limit on the address space (RLIMIT_AS, RLIMIT_DATA) would stop a training for what torch reserves and never touches,
so this looks at what is resident.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_VMSTAT = Path("/proc/vmstat")
_POLL_SECONDS = 0.2
_MIB = 1 << 20


@contextmanager
def at_most(mebibytes: int | None, on_exceeded: Callable[[int], None]) -> Iterator[None]:
    """Inside, this process and those that it started may hold so much together, in MiB; None: as much as there is.

    Above, `on_exceeded` hears how much it was, in a thread of its own, and the process group is killed: an exception
    would have to wait for the end of whatever takes the memory.
    """
    if mebibytes is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            held = resident() // _MIB
            if held > mebibytes:
                try:
                    on_exceeded(held)
                finally:
                    os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def resident() -> int:
    """Bytes of memory that this process and its descendants hold; what they share counts for each."""
    own = psutil.Process()
    held = 0
    for process in [own, *own.children(recursive=True)]:
        # It may have ended meanwhile.
        with suppress(psutil.Error):
            held += process.memory_info().rss
    return held


def memory_kills() -> int | None:
    """How many processes the kernel of this machine has killed for memory so far; None where it doesn't say."""
    with suppress(OSError):
        if count := re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(encoding="ascii"), re.MULTILINE):
            return int(count[1])
    return None
