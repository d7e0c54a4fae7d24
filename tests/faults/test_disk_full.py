"""The disk is full, really: the home folder is a small file system of its own, and something else takes all of it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import ROUNDS, Export, Installation, JobWork, PreLabelling, Tally, Training, installed

MEBIBYTES = 256


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    options = f"size={MEBIBYTES}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"A small file system can't be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def installation(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Valkey's data are elsewhere: what it does on a full disk is its own matter."""
    with installed(tmp_path_factory.mktemp("installation"), small_disk / "home") as installation:
        yield installation


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Inside, not a byte more can be written there."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        with ballast.open("ab", buffering=0) as file:
            size = 4096
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    size //= 2
        assert shutil.disk_usage(disk).free < os.statvfs(disk).f_bsize
        yield
    finally:
        ballast.unlink()


MOMENTS: dict[str, tuple[type[JobWork], str]] = {
    "a snapshot": (Training, "reading"),
    "pictures of a snapshot": (Training, "collecting"),
    "a training's state": (Training, "training"),
    "a checkpoint": (Training, "evaluating"),
    "records of an export": (Export, "reading annotations"),
    "pictures of an export": (Export, "fetching pictures"),
    "an export": (Export, "writing"),
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", MOMENTS)
def test_what_cant_be_written_is_written_once_there_is_room(
    installation: Installation, small_disk: Path, what: str, tally: Tally
) -> None:
    """The job fails with a sentence, and leaves nothing half; asked again it does it all."""
    work, stage = MOMENTS[what]
    for _ in range(ROUNDS):
        done = work(installation)
        done.order()
        installation.until(lambda done=done, stage=stage: done.stage == stage or done.has_ended())
        with full(small_disk):
            installation.until(done.has_ended)
        if not done.has_succeeded():
            assert "The disk is full: " in done.sentence, installation.log[-4000:]
            assert "Make room" in done.sentence
            assert done.sentence in installation.ris("jobs")
            done.order()
        tally(f"disk full: {what}", work.name, done.finish())


@pytest.mark.timeout(3600)
def test_a_batch_needs_no_disk(installation: Installation, small_disk: Path, tally: Tally) -> None:
    """Caches go without; the predictions are in Label Studio all the same."""
    for _ in range(ROUNDS):
        done = PreLabelling(installation)
        with full(small_disk):
            done.order()
            tally("disk full", done.name, done.finish())
