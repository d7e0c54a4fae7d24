"""The checks aside: in a process of their own, for a server that must not load a second model or wait for them."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from backend.doctor import CHAIN
from backend.doctor.checks import Finding
from backend.errors import BackendError

# To import torch, load the model and ask it takes ten seconds; each other link has time-outs of its own.
LONGEST_SECONDS = 180


class ExaminationRuns(BackendError, code="examination_runs", status=409):
    """The checks are under way already."""


@dataclass(frozen=True)
class Examination:
    """What has come of the checks so far. project: that was named. ended: a time, None while they run."""

    project: int | None
    started: float
    findings: tuple[Finding, ...] = ()
    ended: float | None = None

    @property
    def next_link(self) -> str | None:
        """What is being tried just now."""
        return None if self.ended or len(self.findings) >= len(CHAIN) else CHAIN[len(self.findings)].link


class Examiner:
    """Runs the checks, one examination at a time, and keeps the last. Safe for threads."""

    def __init__(self, home: Path, longest: float = LONGEST_SECONDS) -> None:
        """home: whose settings are tried. longest: seconds that an examination may take."""
        self._environment = {**os.environ, "RIS_HOME": str(home)}
        self._longest = longest
        self._lock = threading.Lock()
        self._last: Examination | None = None

    @property
    def last(self) -> Examination | None:
        """The one that runs, else the one that ran last."""
        with self._lock:
            return self._last

    def start(self, project: int | None) -> threading.Thread:
        """Begin an examination in the background. Raises ExaminationRuns."""
        with self._lock:
            if self._last and self._last.ended is None:
                raise ExaminationRuns("The checks are running already. Wait for their end.")
            self._last = Examination(project, time.time())
        thread = threading.Thread(target=self._examine, args=(project,), name="doctor", daemon=True)
        thread.start()
        return thread

    def _examine(self, project: int | None) -> None:
        command = [sys.executable, "-m", "backend.doctor", *([] if project is None else [str(project)])]
        try:
            self._follow(command)
        finally:
            self._end()

    def _follow(self, command: list[str]) -> None:
        with subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        ) as process:
            watch = threading.Timer(self._longest, process.kill)
            watch.start()
            try:
                assert process.stdout
                for line in process.stdout:
                    self._add(Finding(**json.loads(line)))
            finally:
                watch.cancel()

    def _add(self, finding: Finding) -> None:
        with self._lock:
            assert self._last
            self._last = replace(self._last, findings=(*self._last.findings, finding))

    def _end(self) -> None:
        """Close the examination; links that it didn't come to are broken, for nobody knows of them."""
        with self._lock:
            assert self._last
            last = self._last
            reason = "The checks ended before this one: they took too long, or their process was killed."
            lost = [Finding(check.link, "broken", reason, "Run them again.") for check in CHAIN[len(last.findings) :]]
            self._last = replace(last, findings=(*last.findings, *lost), ended=time.time())
