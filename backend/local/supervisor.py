"""Run services as child processes: start them, wait until they answer, restart what dies, stop all in order.

Knows processes and signals; knows nothing of what the services are. One that dies is started again, because all that
matters is on disk. One that keeps dying is tried on at longer intervals, and the others run on; that somebody has to
look is said.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from backend.errors import StartError
from backend.local import launch

_TAIL_LINES = 12
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Service:
    """A program to keep running.

    `ready` is asked with the process id until it says yes, for `start_seconds` at most; `stop_seconds` is
    what the process gets between SIGTERM and SIGKILL. A start goes on without one that isn't `essential`.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[int], bool]
    start_seconds: float = 60.0
    stop_seconds: float = 10.0
    essential: bool = True


@dataclass
class _Child:
    service: Service
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0
    restart_at: float | None = None


@dataclass
class Supervisor:
    """The children, in order of start.

    logs: an existing folder. say: takes a sentence for the user. poll_seconds: between two looks. deaths: of so many in
    a row, each within `steady_seconds` of its start, each is told; then no more is said of the service until it is
    steady. longest_delay: seconds before it starts again, at most. log_bytes: a log that is longer at a start becomes
    the old one.
    """

    logs: Path
    say: Callable[[str], None]
    poll_seconds: float = 0.2
    deaths: int = 5
    steady_seconds: float = 60.0
    longest_delay: float = 60.0
    log_bytes: int = 10 << 20
    _children: dict[str, _Child] = field(default_factory=dict)

    def start(self, service: Service) -> None:
        """Start a service; its output goes to `<logs>/<name>.log`. Must be called from the main thread."""
        self._children[service.name] = _Child(service, self._spawn(service), time.monotonic())

    def wait_ready(self, names: Sequence[str], on_ready: Callable[[str, float], None]) -> None:
        """Return once each of `names` answers; `on_ready` hears each as it does, and the seconds that it took.

        Raises StartError with the last lines of its log if one that is essential dies or takes too long; of others
        these are said, and it isn't waited for.
        """
        waiting = list(names)
        while waiting:
            for name in list(waiting):
                child = self._children[name]
                try:
                    is_ready = self._answers(child)
                except StartError as error:
                    if child.service.essential:
                        raise
                    self.say(f"{error}\nAll else goes on without it.")
                    waiting.remove(name)
                    continue
                if is_ready:
                    waiting.remove(name)
                    on_ready(name, time.monotonic() - child.started)
            if waiting:
                time.sleep(self.poll_seconds)

    def watch(self) -> NoReturn:
        """Restart what dies, for ever."""
        while True:
            self.tend()
            time.sleep(self.poll_seconds)

    def tend(self) -> None:
        """Look at each service once: note who has died, and start again those whose time has come."""
        for child in self._children.values():
            self._reconcile(child)

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop the services, the last started first, each given its time; an interrupt kills them."""
        children = [self._children[name] for name in reversed(names or list(self._children))]
        try:
            for child in children:
                self._end(child)
        except KeyboardInterrupt:
            self.say("Killing what is left.")
            for child in children:
                _signal_group(child.process, signal.SIGKILL)
                child.process.wait()
        for child in children:
            del self._children[child.service.name]

    def pid(self, name: str) -> int:
        """Process id of a started service."""
        return self._children[name].process.pid

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        log = self._log(service)
        if log.exists() and log.stat().st_size > self.log_bytes:
            log.replace(log.with_suffix(".old.log"))
        with open(log, "ab", opener=_for_its_owner) as output:
            return subprocess.Popen(
                [sys.executable, "-S", launch.__file__, str(os.getpid()), *service.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(service.environment),
                # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop them in order.
                start_new_session=True,
            )

    def _answers(self, child: _Child) -> bool:
        service, waited = child.service, time.monotonic() - child.started
        if child.process.poll() is not None:
            raise StartError(self._obituary(child))
        if service.ready(child.process.pid):
            return True
        if waited > service.start_seconds:
            raise StartError(f"{service.name} does not answer after {waited:.0f} s. {self._last_words(service)}")
        return False

    def _reconcile(self, child: _Child) -> None:
        now = time.monotonic()
        if child.restart_at is not None:
            if now >= child.restart_at:
                self._restart(child, now)
            return
        if child.process.poll() is None:
            if child.deaths >= self.deaths and now - child.started >= self.steady_seconds:
                child.deaths = 0
                self.say(f"{child.service.name} runs again.")
            return
        # What it leaves behind (a forked job, a web worker) would get in the way of its successor.
        _signal_group(child.process, signal.SIGKILL)
        child.deaths = child.deaths + 1 if now - child.started < self.steady_seconds else 1
        self._plan_restart(child, now, self._obituary(child))

    def _restart(self, child: _Child, now: float) -> None:
        try:
            child.process, child.started, child.restart_at = self._spawn(child.service), now, None
        except OSError as error:
            # Of a full disk, for one, its log can't be opened.
            child.deaths += 1
            self._plan_restart(child, now, f"{child.service.name} can't be started: {error}.")

    def _plan_restart(self, child: _Child, now: float, cause: str) -> None:
        # The exponent is bounded, for a service may die for months.
        delay = min(2.0 ** min(child.deaths - 1, 30), self.longest_delay)
        child.restart_at = now + delay
        if child.deaths < self.deaths:
            self.say(f"{cause}\nIt starts again in {delay:.0f} s.")
        elif child.deaths == self.deaths:
            self.say(
                f"{cause}\n{child.service.name} died {child.deaths} times in a row: look at its log. It is tried again "
                f"every {self.longest_delay:.0f} s; all else goes on."
            )

    def _end(self, child: _Child) -> None:
        process, seconds = child.process, child.service.stop_seconds
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.say(f"{child.service.name} did not stop within {seconds:.0f} s and is killed.")
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def _obituary(self, child: _Child) -> str:
        code = child.process.returncode
        cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"{child.service.name} {cause}. {self._last_words(child.service)}"

    def _last_words(self, service: Service) -> str:
        log = self._log(service)
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        except OSError as error:
            return f"Its log can't be read: {error}."
        return "\n".join([f"Its log is {log}, and ends so:", *(f"    {line}" for line in lines)])

    def _log(self, service: Service) -> Path:
        return self.logs / f"{service.name}.log"


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the process and its descendants; each child leads a group of its own."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # PermissionError is what macOS answers for a group of zombies.
        return
