"""`ris train` as several processes run it together, and published datasets through the commands' door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import python2
import shapes
from published import as_python2, ref, write_refer

from backend.cli.training import read_datasets, read_samples
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


def refer_of(folder: Path, root: Path) -> Path:
    """A dataset folder in REFER's layout."""
    (root / "refcoco").mkdir(parents=True)
    (root / "images").mkdir()
    (folder / "images").rename(root / "images" / "train2014")
    refs = json.loads((folder / "refs.json").read_text())
    (root / "refcoco" / "refs(unc).p").write_bytes(python2.dumps(as_python2(refs)))
    (folder / "instances.json").rename(root / "refcoco" / "instances.json")
    return root


def test_sizes_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_refer(tmp_path, [ref(1, 1, "val", "a")])
    dataset = Path(f"refcoco/unc:{tmp_path}")
    for read in (lambda: read_samples(dataset, None), lambda: read_datasets([dataset]).validation):
        assert [sample.sentence for sample in read()] == ["a"]
        output = capsys.readouterr()
        assert output.out == ""
        assert " ".join(output.err.split()) == "refcoco/unc has 1 expressions in val here, 10,834 as published."


def test_figures_are_those_of_the_same_as_a_folder(tmp_path: Path, run_ris) -> None:
    def figures(dataset: Path) -> dict[str, object]:
        answer = json.loads(run_ris("evaluate", "--dataset", str(dataset), "--json")[1])
        return {name: value for name, value in answer.items() if name != "ms-per-expression"}

    folder = shapes.make(tmp_path / "shapes", photos=2)
    expected = figures(folder)
    assert expected["expressions"] == 10
    assert figures(Path(f"refcoco/unc:{refer_of(folder, tmp_path / 'refer')}")) == expected
