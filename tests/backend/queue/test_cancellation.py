"""A process that is asked to stop over its pipe, and that ends with whoever holds the other end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from backend.queue.cancellation import STOP

CODE = (
    "import sys, time; from backend.queue.cancellation import Cancellation\n"
    "should_stop = Cancellation(sys.stdin.fileno())\n"
    "print(should_stop(), flush=True)\n"
    "while not should_stop(): time.sleep(0.01)\n"
    "print(should_stop(), flush=True)\n"
    "time.sleep(300)\n"
)


def test_it_is_asked_once_and_ends_with_the_other_end_of_its_pipe() -> None:
    command = [sys.executable, "-c", CODE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"False\n"
        os.write(process.stdin.fileno(), STOP)
        assert process.stdout.readline() == b"True\n"
        process.stdin.close()
        assert process.wait(60) == -signal.SIGKILL
