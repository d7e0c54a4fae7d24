"""The supervisor with real processes: readiness, deaths, restarts, and stops that leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.errors import StartError
from backend.local.supervisor import Service, Supervisor

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"


def ready_at_once(_pid: int) -> bool:
    return True


def python(name: str, code: str, **fields: object) -> Service:
    fields = {"ready": ready_at_once, "stop_seconds": 5.0, **fields}
    return Service(name, (sys.executable, "-S", "-c", code), os.environ, **fields)  # type: ignore[arg-type]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie answers signals, but runs no more.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"


class Said(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def supervisor(tmp_path: Path, said: Said) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path, said)
    yield supervisor
    supervisor.stop()


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Interrupt the main thread, as Ctrl-C does, after some seconds."""
    timers: list[threading.Timer] = []

    def after(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield after
    for timer in timers:
        timer.cancel()


def test_ready_services_are_reported_as_they_answer(supervisor: Supervisor, tmp_path: Path) -> None:
    code = f"import time, pathlib; time.sleep(0.5); pathlib.Path({str(tmp_path / 'flag')!r}).touch(); {SLEEP}"
    supervisor.start(python("slow", code, ready=lambda _: (tmp_path / "flag").exists()))
    supervisor.start(python("quick", SLEEP))
    order: list[tuple[str, float]] = []
    supervisor.wait_ready(["slow", "quick"], lambda *heard: order.append(heard))
    assert [name for name, _ in order] == ["quick", "slow"]
    assert 0.5 < order[1][1] < 10


def test_output_goes_to_a_log_of_its_own(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(python("talker", f"import sys; print('out', flush=True); sys.stderr.write('err'); {SLEEP}"))
    until(lambda: (tmp_path / "talker.log").read_text() == "out\nerr")


def test_a_log_grows_no_further_than_its_bound(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.log_bytes = 10
    (tmp_path / "talker.log").write_text("an old and long log")
    supervisor.start(python("talker", SLEEP))
    assert (tmp_path / "talker.old.log").read_text() == "an old and long log"
    assert (tmp_path / "talker.log").read_text() == ""


def test_a_death_during_the_start_shows_the_end_of_the_log(supervisor: Supervisor, tmp_path: Path) -> None:
    code = "print('\\n'.join(f'line {n}' for n in range(99))); print('no such model'); raise SystemExit(3)"
    supervisor.start(python("worker", code, ready=lambda _: False))
    with pytest.raises(StartError) as failure:
        supervisor.wait_ready(["worker"], lambda *_: pytest.fail("ready"))
    assert "worker ended with status 3" in str(failure.value)
    assert str(tmp_path / "worker.log") in str(failure.value)
    assert "no such model" in str(failure.value)
    assert "line 5\n" not in str(failure.value)


def test_a_service_that_never_answers_is_named(supervisor: Supervisor) -> None:
    supervisor.start(python("mute", SLEEP, ready=lambda _: False, start_seconds=0.5))
    with pytest.raises(StartError, match="mute does not answer after"):
        supervisor.wait_ready(["mute"], lambda *_: pytest.fail("ready"))


def test_what_is_killed_starts_again(supervisor: Supervisor, said: Said, interrupt: Callable[[float], None]) -> None:
    supervisor.start(python("worker", SLEEP))
    first = supervisor.pid("worker")
    os.kill(first, signal.SIGKILL)
    interrupt(2.5)
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch()
    assert supervisor.pid("worker") != first
    assert alive(supervisor.pid("worker"))
    assert len(said) == 1
    assert "worker was killed by SIGKILL" in said[0]
    assert "starts again in 1 s" in said[0]


def test_what_keeps_dying_is_tried_on_and_the_others_run(
    supervisor: Supervisor, said: Said, tmp_path: Path, interrupt: Callable[[float], None]
) -> None:
    supervisor.poll_seconds, supervisor.longest_delay = 0.05, 0.1
    supervisor.start(python("worker", "print('try', flush=True); raise SystemExit('out of memory')"))
    supervisor.start(python("other", SLEEP))
    other = supervisor.pid("other")
    interrupt(5)
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch()
    assert len(said) == 5
    assert "out of memory" in said[-1]
    assert "worker died 5 times in a row: look at its log. It is tried again every 0 s; all else goes on." in said[-1]
    assert (tmp_path / "worker.log").read_text().count("try") > 6
    assert supervisor.pid("other") == other
    assert alive(other)


def test_what_runs_again_after_all_is_said(
    supervisor: Supervisor, said: Said, tmp_path: Path, interrupt: Callable[[float], None]
) -> None:
    supervisor.poll_seconds, supervisor.longest_delay, supervisor.steady_seconds = 0.05, 0.1, 1.0
    code = f"import pathlib; pathlib.Path({str(tmp_path / 'well')!r}).exists() or exit(1); {SLEEP}"
    supervisor.start(python("worker", code))
    threading.Timer(3, (tmp_path / "well").touch).start()
    interrupt(6)
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch()
    assert said[-1] == "worker runs again."
    assert len(said) == 6


def test_a_service_that_cannot_be_started_does_not_stop_the_others(
    supervisor: Supervisor, said: Said, tmp_path: Path, interrupt: Callable[[float], None]
) -> None:
    """Its log can't be opened, as on a full disk."""
    supervisor.poll_seconds, supervisor.longest_delay = 0.05, 0.1
    supervisor.start(python("worker", "pass"))
    supervisor.start(python("other", SLEEP))
    until((tmp_path / "worker.log").exists)
    threading.Timer(0.5, lambda: supervisor_log_becomes_a_folder(tmp_path / "worker.log")).start()
    interrupt(4)
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch()
    assert any("worker can't be started" in text for text in said)
    assert alive(supervisor.pid("other"))


def supervisor_log_becomes_a_folder(log: Path) -> None:
    log.rename(log.with_suffix(".away"))
    log.mkdir()


@pytest.mark.parametrize("code", ["raise SystemExit('broken')", SLEEP])
def test_a_start_goes_on_without_what_is_not_essential(supervisor: Supervisor, said: Said, code: str) -> None:
    supervisor.start(python("trainer", code, ready=lambda _: False, start_seconds=1, essential=False))
    supervisor.start(python("other", SLEEP))
    ready: list[str] = []
    supervisor.wait_ready(["trainer", "other"], lambda name, _: ready.append(name))
    assert ready == ["other"]
    assert len(said) == 1
    assert said[0].endswith("All else goes on without it.")


def test_what_ran_for_long_gets_all_its_chances_again(
    supervisor: Supervisor, said: Said, interrupt: Callable[[float], None]
) -> None:
    supervisor.poll_seconds, supervisor.steady_seconds, supervisor.longest_delay = 0.05, 0.0, 0.05
    supervisor.start(python("worker", "pass"))
    interrupt(2.5)
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch()
    assert len(said) > 5


def test_the_descendants_of_the_dead_go_too(
    supervisor: Supervisor, tmp_path: Path, interrupt: Callable[[float], None]
) -> None:
    pid_file = tmp_path / "pid"
    code = (
        f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]);"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    supervisor.start(python("worker", code))
    until(lambda: pid_file.exists() and pid_file.read_text())
    grandchild = int(pid_file.read_text())
    os.kill(supervisor.pid("worker"), signal.SIGKILL)
    interrupt(0.6)
    with pytest.raises(KeyboardInterrupt):
        supervisor.watch()
    until(lambda: not alive(grandchild))


def test_stop_goes_backwards_and_waits_for_each(supervisor: Supervisor, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for name in ("first", "second", "third"):
        code = (
            f"import signal, time; f = open({str(journal)!r}, 'a', 1)\n"
            f"def stop(*_): time.sleep(0.2); f.write('{name} '); raise SystemExit\n"
            f"signal.signal(signal.SIGTERM, stop); open({str(tmp_path / name)!r}, 'w')\n{SLEEP}"
        )
        supervisor.start(python(name, code))
    until(lambda: all((tmp_path / name).exists() for name in ("first", "second", "third")))
    supervisor.stop()
    assert journal.read_text() == "third second first "


def test_stop_some_leaves_the_rest(supervisor: Supervisor) -> None:
    supervisor.start(python("kept", SLEEP))
    supervisor.start(python("dropped", SLEEP))
    dropped = supervisor.pid("dropped")
    supervisor.stop(["dropped"])
    assert not alive(dropped)
    assert alive(supervisor.pid("kept"))
    supervisor.start(python("dropped", SLEEP))
    assert alive(supervisor.pid("dropped"))


def test_who_does_not_stop_in_time_is_killed(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    code = f"{STUBBORN} open({str(tmp_path / 'up')!r}, 'w'); {SLEEP}"
    supervisor.start(python("stubborn", code, stop_seconds=0.3))
    until((tmp_path / "up").exists)
    pid = supervisor.pid("stubborn")
    supervisor.stop()
    assert not alive(pid)
    assert said == ["stubborn did not stop within 0 s and is killed."]


def test_a_second_interrupt_kills(
    supervisor: Supervisor, said: Said, tmp_path: Path, interrupt: Callable[[float], None]
) -> None:
    code = f"{STUBBORN} open({str(tmp_path / 'up')!r}, 'w'); {SLEEP}"
    supervisor.start(python("below", SLEEP))
    supervisor.start(python("stubborn", code, stop_seconds=60.0))
    until((tmp_path / "up").exists)
    pids = [supervisor.pid("below"), supervisor.pid("stubborn")]
    interrupt(0.3)
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 10
    assert not any(map(alive, pids))
    assert said == ["Killing what is left."]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from backend.local.supervisor import Service, Supervisor\n"
        f"s = Supervisor(Path({str(tmp_path)!r}), print)\n"
        f"s.start(Service('child', (sys.executable, '-c', {SLEEP!r}), os.environ, lambda _: True))\n"
        "print(s.pid('child'), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # Until the launcher has become the program, there is nothing to survive.
        until(lambda: SLEEP.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[:3])
        parent.kill()
    until(lambda: not alive(child) if Path(f"/proc/{child}").exists() else True)
