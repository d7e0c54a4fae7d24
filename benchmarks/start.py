"""`make bench-start`: `make up` from a fresh clone to a working project, and again once all is there.

From nothing: environments, installation, Label Studio's first migration, the project with its photos. Beside the times,
the room that the folder takes then. Needs the package index and some minutes. The result is appended to
benchmarks/results/start.json.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from record import record

ROOT = Path(__file__).parents[1]
READY = "ris is running"
_SECONDS = 1800


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(clone: Path, environment: dict[str, str]) -> tuple[float, float]:
    """`make up`, then Ctrl-C -> seconds until it was ready, and until it had stopped."""
    log = clone.parent / "up.log"
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            ["make", "up"], cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    while READY not in log.read_text(encoding="utf-8"):
        if process.poll() is not None or time.monotonic() - began > _SECONDS:
            raise SystemExit(f"make up failed:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.1)
    ready = time.monotonic() - began
    os.killpg(process.pid, signal.SIGINT)
    process.wait(120)
    return ready, time.monotonic() - began - ready


def megabytes(folder: Path) -> float:
    """What it takes on disk."""
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1", str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0]) / 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RIS_", "VIRTUAL_ENV"))
        }
        environment["RIS_PORT"] = str(free_port())
        environment["RIS_LABEL_STUDIO_URL"] = f"http://127.0.0.1:{free_port()}"
        environment["RIS_REDIS_URL"] = f"redis://:benchmark@127.0.0.1:{free_port()}/0"
        cold, stop = start(clone, environment)
        warm, _ = start(clone, environment)
        room = megabytes(clone)
    figures = {"make up, from nothing, s": cold, "make up, warm, s": warm, "stop, s": stop, "on disk, MB": room}
    record("start", {name: round(value, 1) for name, value in figures.items()})


if __name__ == "__main__":
    main()
