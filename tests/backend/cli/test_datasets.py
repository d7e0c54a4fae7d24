"""Published datasets through the commands' door: the same figures as from a dataset folder, and no leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import python2
import shapes
from published import as_python2, ref, write_grefcoco, write_refer

from backend.cli import datasets
from backend.cli import old_evaluation as evaluation
from ris_core.errors import DatasetError


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
    (sample,) = datasets.read_samples(Path(f"refcoco/unc:{tmp_path}"))
    assert sample.sentence == "a"
    output = capsys.readouterr()
    assert output.out == ""
    assert " ".join(output.err.split()) == "refcoco/unc has 1 expressions in val here, 10,834 as published."


def test_nothing_to_read(tmp_path: Path) -> None:
    write_refer(tmp_path, [ref(1, 1, "train", "a")])
    dataset = Path(f"refcoco/unc:{tmp_path}")
    with pytest.raises(DatasetError, match="has no expression in split 'testB'"):
        datasets.read_samples(dataset, "testB")
    with pytest.raises(DatasetError, match="No dataset has a split val"):
        datasets.read_all([dataset])


def test_several_datasets_dont_leak_and_one_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlapping = [ref(1, 1, "train", "a"), ref(2, 2, "val", "b"), ref(3, 6, "train", "c", photo=8)]
    one = Path(f"refcocog/google:{write_refer(tmp_path / 'a', overlapping, 'refcocog', 'google')}")
    two = Path(f"grefcoco/unc:{write_grefcoco(tmp_path / 'b', [ref(1, [1, 3], 'train', 'd')])}")
    assert [sample.sentence for sample in datasets.training_samples(datasets.read_all([one]))] == ["a", "c"]
    assert [sample.sentence for sample in datasets.training_samples(datasets.read_all([one, two]))] == ["c"]
    assert "2 expressions are left out" in capsys.readouterr().err


def test_figures_are_those_of_the_same_as_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def figures(dataset: Path) -> dict[str, object]:
        evaluation.evaluate_folder(dataset, None, None, "original", None, True)
        answer = json.loads(capsys.readouterr().out)
        return {name: value for name, value in answer.items() if name != "ms-per-expression"}

    folder = shapes.make(tmp_path / "shapes", photos=2)
    expected = figures(folder)
    assert expected["expressions"] == 10
    assert figures(Path(f"refcoco/unc:{refer_of(folder, tmp_path / 'refer')}")) == expected
