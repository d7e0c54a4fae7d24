"""`ris train` as several processes run it together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import shapes

from ris_core import checkpoint


def test_several_processes_train_and_the_first_speaks_for_them(tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d")
    # Without the dashes it takes --run for an option of its own.
    train = ("-m", "--", "backend.cli", "train", "--dataset", str(folder), "--image-encoder", "efficientnet-lite0")
    small = ("--option", "width=16", "--side", "96", "--epochs", "2", "--photos", "4", "--workers", "0")
    done = subprocess.run(
        [sys.executable, *launch, "--rdzv-endpoint", "localhost:0", *train, *small, "--out", "model", "--run", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Said once, and nothing goes wrong that only a log would show.
    assert done.stdout.count("is in model") == 1
    assert "Traceback" not in done.stderr
    model, _ = checkpoint.load(tmp_path / "model")
    assert model.options.width == 16
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in metrics if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert [line["epoch"] for line in metrics if "mIoU" in line] == [0, 1]
    assert len(list((tmp_path / "run" / "overlays").iterdir())) == 2
