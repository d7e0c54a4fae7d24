"""`ris` as a person and a script meet it: help, tables, JSON, and one sentence for what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import shapes
from PIL import Image

from backend import cli
from backend.samples import photos
from ris_core.checkpoint import shipped, version
from ris_core.masks import bounding_box, decode_rle


@pytest.fixture
def ris(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command in an empty folder -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RIS_HOME", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ris", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    (tmp_path / "cat.png").write_bytes(dict(photos())["chelsea.png"])
    return tmp_path / "cat.png"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_help_names_every_command(ris) -> None:
    code, out, _ = ris("--help")
    assert code == 0
    for command in ("segment", "evaluate", "train", "convert", "models", "up", "demo", "connect", "finetune", "export"):
        assert f" {command} " in out


def test_segment_json(ris, cat: Path, tmp_path: Path) -> None:
    code, out, _ = ris("segment", "cat.png", "the cat", "the rocket", "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["model_version"] == version(shipped())
    there, absent = answer["results"]
    assert there["present"] and not absent["present"]
    mask = decode_rle(there["rle"])
    assert mask.shape == (300, 451)
    assert there["area"] == int(mask.sum()) > 40_000
    assert there["bbox"] == bounding_box(mask)
    assert (pixels(tmp_path / there["mask"]) > 0).tolist() == mask.tolist()
    assert (absent["area"], absent["mask"], absent["bbox"]) == (0, None, [0, 0, 0, 0])
    assert pixels(tmp_path / answer["overlay"]).shape == (300, 451, 3)


def test_segment_prints_a_table(ris, cat: Path) -> None:
    code, out, _ = ris("segment", "cat.png", "the cat", "--out", "masks")
    assert code == 0
    assert "the cat" in out and "yes" in out and "Overlay: masks" in out
    assert {path.name for path in Path("masks").iterdir()} == {"cat.1-the-cat.png", "cat.overlay.png"}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("segment", "nowhere.png", "the cat"), 2, "nowhere.png doesn't exist"),
        (("segment", "text.png", "the cat"), 2, "isn't a picture"),
        (("segment", "cat.png", " "), 2, "The prompt is empty"),
        (("segment", "cat.png", "the cat", "--model", "nowhere"), 1, "isn't a checkpoint"),
        (("evaluate", "--dataset", "nowhere"), 1, "instances.json is missing"),
        (("convert", "voc", "a", "b"), 2, "no converter 'voc'"),
        (("export", "--project", "1"), 1, "RIS_REDIS_URL isn't set"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_one_sentence(ris, cat: Path, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    Path("text.png").write_text("hello")
    found, out, err = ris(*arguments)
    assert found == code
    assert err.startswith("ris: ") and sentence in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert out == ""


def test_evaluate_prints_one_json_object(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=2)
    code, out, _ = ris("evaluate", "--dataset", str(folder), "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures["expressions"] == 10
    expected = {"oIoU", "mIoU", "N-acc", "T-acc", *(f"Prec@0.{digit}" for digit in range(5, 10))}
    assert set(figures) - {"expressions"} == expected
    assert all(0 <= figures[name] <= 1 for name in expected)


def test_evaluate_an_empty_split(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=1)
    code, _, err = ris("evaluate", "--dataset", str(folder), "--split", "testA")
    assert code == 1
    assert "no expression in split 'testA'" in err


def test_models_json(ris) -> None:
    code, out, _ = ris("models", "--json")
    assert code == 0
    (model,) = json.loads(out)
    assert model["model"] == "lda"
    assert model["version"] == version(shipped())
    assert model["parameters"] > 1_000_000


def test_train_writes_a_checkpoint_that_segments(ris, tmp_path: Path, cat: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    common = ("train", "--dataset", str(folder), "--epochs", "1", "--workers", "0", "--run", "run")
    code, out, err = ris(*common, "--out", "model")
    assert (code, err[-200:]) == (0, err[-200:])
    assert "lda-" in out
    assert "ris train --dataset data --epochs 1 --photos 8" in Path("model/card.md").read_text()
    assert ris("segment", "cat.png", "the cat", "--model", "model", "--json")[0] == 0
    code, _, err = ris(*common, "--out", "model")
    assert code == 2
    assert "isn't empty" in err
