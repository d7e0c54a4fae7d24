"""A studio that runs, its start and its commands."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.settings import Settings

_START_SECONDS = 420


@dataclass(frozen=True)
class Studio:
    """A running studio. project: the one that `ris up` makes. own: what its environment has besides the test's."""

    home: Path
    settings: Settings
    project: int
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.settings.label_studio_url

    @property
    def token(self) -> str:
        return self.settings.secret("label_studio_token")

    def ris(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a `ris` command beside it."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("ris")), *arguments],
            env={**os.environ, "RIS_HOME": str(self.home), **self.own},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until `ris up` says that it runs."""
    deadline = time.monotonic() + _START_SECONDS
    while "ris is running" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
