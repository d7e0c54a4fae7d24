"""Become another program that ends when the one that started it does, even if that one is killed outright.

What it writes is for its user alone.

Run by file: `python -S launch.py PARENT_ID COMMAND...`. It must import nothing of ours, so that a start costs
20 ms. A `preexec_fn` would do the same, but may deadlock in a process that has threads.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Replace this process by `command`, which gets SIGTERM when process `parent` is gone (on Linux)."""
    if sys.platform == "linux":
        # Imported here: other systems have neither the call nor a need for ctypes.
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # The parent died before the call above: nobody would ever send the signal.
        sys.exit(1)
    # Label Studio's database holds logins and tokens, and so may all that these programs write.
    os.umask(0o077)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
