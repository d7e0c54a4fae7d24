"""Locks that processes and threads share, also with a process that locks the file by itself."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.locks import exclusive

HOLD = "import sys, fcntl; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"


@contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that locks the file as earlier releases did, by flock alone."""
    path.touch()
    command = [sys.executable, "-S", "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_lock_of_an_earlier_release_excludes_and_is_dropped_when_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_by_another(path) as holder:
        with pytest.raises(Unavailable, match="It is taken"), exclusive(path, "It is taken"):
            pytest.fail("two hold the lock")
        waits: list[int] = []
        with exclusive(path, waiting=lambda: waits.append(1) or holder.kill()):
            assert waits


def test_an_earlier_release_is_excluded_too(tmp_path: Path) -> None:
    path = tmp_path / "below" / "lock"
    with exclusive(path), path.open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.stat().st_size == 0


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    inside: list[int] = []

    def work(number: int) -> int:
        with exclusive(tmp_path / "lock"):
            inside.append(number)
            most = len(inside)
            threading.Event().wait(0.001)
            inside.remove(number)
        return most

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(work, range(40))) == 1


def test_what_goes_wrong_while_waiting_or_inside_ends_it_and_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def give_up() -> None:
        raise KeyError

    with held_by_another(path), pytest.raises(KeyError), exclusive(path, waiting=give_up):
        pytest.fail("two hold the lock")
    with pytest.raises(ZeroDivisionError), exclusive(path):
        raise ZeroDivisionError
    with exclusive(path, "It is taken"):
        pass


def test_who_holds_a_lock_and_would_wait_for_it_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"), pytest.raises(RuntimeError), exclusive(tmp_path / "lock"):
        pytest.fail("one holds the lock twice")
