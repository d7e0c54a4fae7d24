"""Published datasets through the commands' door: the same figures as from a dataset folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import python2
import shapes
from published import as_python2, ref, write_refer

from backend.cli.datasets import read_datasets, read_samples


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
