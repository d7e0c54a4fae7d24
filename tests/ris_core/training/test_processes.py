"""Two processes that train together do what one does alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import shapes
import torch
from training import pair

from ris_core.training.run_folder import read_metrics
from ris_core.training.state import STATE


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=8)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d"]
    launch += ["--rdzv-endpoint", "localhost:0"]
    command = [sys.executable, *launch, pair.__file__, str(folder), str(tmp_path / "two")]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    pair.run(folder, tmp_path / "one")
    one, two = (torch.load(tmp_path / name / STATE, weights_only=True)["mean"] for name in ("one", "two"))
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == len(losses[1]) == 12
    assert 0.0 in losses[1]
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=5e-3), name
