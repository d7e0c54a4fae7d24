"""A studio that runs, and its commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.settings import Settings


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
