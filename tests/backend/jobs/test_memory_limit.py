"""What a process and its descendants hold."""

from __future__ import annotations

import subprocess
import sys

from backend.jobs.memory_limit import at_most, resident

MIB = 1 << 20


def test_the_memory_of_grandchildren_counts_as_long_as_they_hold_it() -> None:
    hold = "hoard = b'x' * (100 << 20); print(flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {hold!r}])"
    before = resident()
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        held = resident() - before
        child.communicate(b"\n")
    assert 100 * MIB < held < 200 * MIB
    assert resident() - before < 50 * MIB


def test_within_the_limit_nothing_happens() -> None:
    heard: list[int] = []
    for limit in (None, resident() // MIB + 1000):
        with at_most(limit, heard.append):
            pass
    assert heard == []
