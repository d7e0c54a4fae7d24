"""Two real processes that train a candidate together: how it goes, stopping, and what an end of one of them means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import shapes
from checkpoints import random_checkpoint

from backend.learning.candidate import CHECKPOINT, PLAN, CandidateSpec
from backend.learning.distributed import train_together
from ris_core import checkpoint_files
from ris_core.data import Sample, read_folder
from ris_core.errors import OutOfMemory, TrainingError
from ris_core.training.loop import Interrupted
from ris_core.training.state import STATE

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.make(tmp_path_factory.mktemp("shapes"), photos=6)


@pytest.fixture(scope="module")
def samples(snapshot: Path) -> Sequence[Sample]:
    return [sample for sample in read_folder(snapshot) if sample.split == "train"]


@pytest.fixture
def train(base: Path, snapshot: Path, samples: Sequence[Sample], tmp_path: Path) -> Callable[..., Path]:
    def run(on_progress: Callable[[float], None] = lambda share: None, **changes: object) -> Path:
        spec = CandidateSpec(base, changes.pop("samples", samples), 600.0)  # type: ignore[arg-type]
        return train_together(2, [snapshot], spec, tmp_path / "run", on_progress, **changes)  # type: ignore[arg-type]

    return run


def children() -> list[int]:
    """The processes that this one started and that still run."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "backend.learning.distributed" in child.cmdline():
                found.append(child.pid)
    return found


@pytest.mark.slow
def test_stopped_they_save_their_step_and_end_and_go_on_to_a_candidate(
    train: Callable[..., Path], base: Path, samples: Sequence[Sample], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    names = sorted({sample.image.name for sample in samples})
    (tmp_path / "run" / PLAN).write_text(json.dumps({"passes": 4, "photos": names}))
    shares: list[float] = []
    with pytest.raises(Interrupted):
        train(shares.append, stop=lambda: bool(shares))
    assert (tmp_path / "run" / STATE).is_file()
    assert children() == []
    stopped_at = shares[-1]
    folder = train(shares.append)
    assert folder == tmp_path / "run" / CHECKPOINT
    assert checkpoint_files.version(folder) != checkpoint_files.version(base)
    assert shares == sorted(shares), "it went on from where it was"
    assert stopped_at < shares[-1] == 1.0
    assert children() == []


def test_one_that_is_killed_takes_the_others_along(train: Callable[..., Path]) -> None:
    def kill(share: float) -> None:
        os.kill(children()[-1], signal.SIGKILL)

    with pytest.raises(OutOfMemory, match="killed for memory, or found none: lower RIS_FINETUNE_PHOTOS"):
        train(kill)
    assert children() == []


def test_an_error_comes_with_its_sentence(train: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(samples=())
    assert children() == []


def test_they_end_when_the_one_that_started_them_is_killed(base: Path, snapshot: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backend.learning.candidate import CandidateSpec as Spec\n"
        "from backend.learning.distributed import train_together\n"
        "from ris_core.data import read_folder\n"
        "base, snapshot, run = map(Path, sys.argv[1:])\n"
        "samples = [sample for sample in read_folder(snapshot) if sample.split == 'train']\n"
        "train_together(2, [snapshot], Spec(base, samples, 600.0), run, lambda share: print(share, flush=True))\n"
    )
    command = [sys.executable, "-c", code, str(base), str(snapshot), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline()
        starter.kill()
    end = time.monotonic() + 60
    while any(str(tmp_path) in part for process in psutil.process_iter(["cmdline"]) for part in _command(process)):
        assert time.monotonic() < end
        time.sleep(0.1)


def _command(process: psutil.Process) -> list[str]:
    return process.info["cmdline"] or []
