"""`ris` as a person and a script meet it: help, tables, JSON, and one sentence for what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapes
from checkpoints import random_checkpoint
from PIL import Image
from safetensors.torch import load_file

from backend.local.secrets import locked
from backend.projects.samples import photos
from ris_core import checkpoint
from ris_core.checkpoint_files import CONFIG, WEIGHTS, shipped, version
from ris_core.masks import bounding_box, decode_rle
from ris_core.models import MODELS


@pytest.fixture
def ris(run_ris, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command in an empty folder -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("RIS_HOME", "")
    monkeypatch.delenv("RIS_HOME")
    return run_ris


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    (tmp_path / "cat.png").write_bytes(dict(photos())["chelsea.png"])
    return tmp_path / "cat.png"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_help_says_what_is_taken_where_nothing_is_given(ris) -> None:
    code, out, _ = ris("segment", "--help")
    assert code == 0
    assert "the shipped one" in out and "PHOTO-masks" in out


def test_help_names_every_command(ris) -> None:
    code, out, _ = ris("--help")
    assert code == 0
    for command in (
        "segment",
        "evaluate",
        "calibrate",
        "average",
        "train",
        "convert",
        "models",
        "fetch",
        "up",
        "demo",
        "connect",
        "finetune",
        "export",
        "versions",
        "promote",
        "rollback",
        "compare",
        "prune",
    ):
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


def pointed_at(ris, *arguments: str) -> dict[str, Any]:
    code, out, _ = ris("segment", "cat.png", *arguments, "--json")
    assert code == 0
    [row] = json.loads(out)["results"]
    return row


def test_segment_answers_a_point_without_words_by_a_mask(ris, cat: Path) -> None:
    row = pointed_at(ris, "--point", "225,150")
    assert (row["prompt"], row["present"]) == ("", True)
    assert decode_rle(row["rle"])[150, 225]
    assert row["mask"].endswith("cat.1-pointed-at.png")


def test_segment_takes_words_a_box_and_a_point_that_is_not_of_it(ris, cat: Path) -> None:
    alone = pointed_at(ris, "the cat", "--box", "40,0,400,300")
    mended = pointed_at(ris, "the cat", "--box", "40,0,400,300", "--not", "160,110")
    assert alone["prompt"] == mended["prompt"] == "the cat"
    assert decode_rle(alone["rle"])[110, 160] and not decode_rle(mended["rle"])[110, 160]


def test_segment_tells_things_apart(ris, tmp_path: Path) -> None:
    (tmp_path / "flower.jpg").write_bytes(dict(photos())["flower.jpg"])
    code, out, _ = ris("segment", "flower.jpg", "the flowers", "--json")
    [whole] = json.loads(out)["results"]
    code, out, _ = ris("segment", "flower.jpg", "the flowers", "--instances", "--json")
    each = json.loads(out)["results"]
    assert code == 0 and len(each) > 1
    assert sum(decode_rle(row["rle"]).astype(int) for row in each).tolist() == decode_rle(whole["rle"]).tolist()
    assert len({row["mask"] for row in each}) == len(each)


def test_segment_prints_a_table(ris, cat: Path) -> None:
    code, out, _ = ris("segment", "cat.png", "the cat", "--out", "masks")
    assert code == 0
    assert "the cat" in out and "yes" in out and "Overlay: masks" in out
    assert {path.name for path in Path("masks").iterdir()} == {"cat.1-the-cat.png", "cat.overlay.png"}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("segment", "nowhere.png", "the cat"), 2, "nowhere.png doesn't exist"),
        (("train-clicks", "--dataset", "a", "--out", "b", "--often", "a"), 2, "--often a isn't a dataset and a number"),
        (("train-clicks", "--dataset", "a", "--out", "b", "--often", "c=1"), 2, "--often c is about no --dataset"),
        (("segment", "text.png", "the cat"), 2, "isn't a picture"),
        (("segment", ".", "the cat"), 2, ". is a folder. Name one picture"),
        (("segment", "cat.png", "the cat", "--out", "text.png"), 2, "text.png can't be written (File exists)"),
        (("segment", "cat.png", "the cat", "--out", "text.png/x"), 2, "Choose another --out"),
        (("segment", "cat.png", " "), 2, "The prompt is empty"),
        (("segment", "cat.png"), 2, "Nothing is asked"),
        (("segment", "cat.png", "--point", "451,20"), 2, "--point 451,20 is outside the photo, which has 451 x 300"),
        (("segment", "cat.png", "--point", "-1,20"), 2, "--point -1,20 is outside the photo"),
        (("segment", "cat.png", "--point", "12"), 2, "--point 12 isn't 2 numbers in pixels"),
        (("segment", "cat.png", "--point", "nan,1"), 2, "--point nan,1 is outside the photo"),
        (("segment", "cat.png", "--not", "12,20"), 2, "--not says only where the thing isn't"),
        (("segment", "cat.png", "--box", "10,10,10,90"), 2, "--box 10,10,10,90 is empty"),
        (("segment", "cat.png", "--box", "10,10,500,90"), 2, "--box 10,10,500,90 is outside the photo"),
        (("segment", "cat.png", "a", "b", "--point", "1,1"), 2, "about one thing, but 2 were asked for"),
        (("segment", "cat.png", "the cat", "--model", "nowhere"), 1, "isn't a checkpoint"),
        (("evaluate", "--dataset", "nowhere"), 1, "instances.json is missing"),
        (("train", "--dataset", "x", "--out", "y", "--model", "yolo"), 2, "no model 'yolo'"),
        (("train", "--dataset", "x", "--out", "y", "--option", "wings=2"), 2, "lda has no switch wings"),
        (("train", "--dataset", "x", "--out", "y", "--option", "fusion=glue"), 2, "--option fusion=glue: Input should"),
        (("train", "--dataset", "x", "--out", "y", "--side", "100"), 2, "multiple of 96"),
        (("train", "--dataset", "x", "--out", "y", "--paste", "0.5", "--views", "2"), 2, "pasted onto views"),
        (("average", "one", "--out", "y"), 2, "two checkpoints or more"),
        (("average", "one", "two", "--out", "y"), 1, "one isn't a checkpoint"),
        (("fetch", "yolo"), 1, "no encoder 'yolo'"),
        (("fetch", "sam-vit-b", "--file", "text.png"), 1, "isn't the published file"),
        (("convert", "voc", "a", "b"), 2, "no converter 'voc'"),
        (("average", "one", "two", "--out", "text.png/x"), 1, "one isn't a checkpoint"),
        *(
            ((*command, "--project", "1"), 2, "There is no installation here")
            for command in (("export",), ("versions",), ("prompts",), ("prelabel",), ("corrections",))
        ),
        (("jobs",), 2, "set RIS_HOME to the .ris in it"),
        (("doctor",), 2, "none runs on this machine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_one_sentence(ris, cat: Path, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    Path("text.png").write_text("hello")
    ended, out, err = ris(*arguments)
    assert ended == code
    assert err.startswith("ris: ") and sentence in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert out == ""


def test_outside_its_folder_a_command_is_for_the_installation_that_runs(
    ris, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    home = tmp_path / "elsewhere" / ".ris"
    home.mkdir(parents=True)
    with locked(home):
        code, out, err = ris("versions", "--project", "1", "--json")
        assert (code, err) == (0, f"ris: for the installation that runs in {home}.\n")
        assert json.loads(out)
        monkeypatch.delenv("RIS_HOME")
        assert str(home) in ris("export", "--project", "1")[2]
    monkeypatch.delenv("RIS_HOME")
    assert "There is no installation here" in ris("versions", "--project", "1")[2]


def test_a_file_that_cant_be_read_is_one_sentence(ris, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("in the way")
    monkeypatch.setenv("RIS_HOME", str(tmp_path / "home"))
    code, _, err = ris("prompts", "--project", "1", "--set", "cat=a cat")
    assert (code, err.count("\n")) == (1, 1)
    assert "can't be read or written (" in err


def test_evaluate_prints_one_json_object(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=2)
    code, out, _ = ris("evaluate", "--dataset", str(folder), "--json", "--pictures", "pictures")
    assert code == 0
    figures = json.loads(out)
    assert (figures["expressions"], figures["convention"]) == (10, "original")
    assert figures["model_version"] == version(shipped())
    assert figures["ms-per-expression"] > 0
    shares = {"oIoU", "mIoU", "gIoU", "cIoU", "N-acc", "T-acc", "ECE", *(f"Prec@0.{digit}" for digit in range(5, 10))}
    shares |= {"mIoU-low", "mIoU-high"}
    others = {"expressions", "convention", "flip", "model_version", "ms-per-expression", "kinds"}
    assert figures.keys() - shares == others
    assert {kind: of_kind["expressions"] for kind, of_kind in figures["kinds"].items()} == {"name": 4, "absent": 6}
    assert all(0 <= figures[name] <= 1 for name in shares)
    assert figures["mIoU-low"] <= figures["mIoU"] <= figures["mIoU-high"]
    written = {path.name for path in Path("pictures").iterdir()}
    assert written == {"reliability.png", "best.jpg", "worst.jpg", "random.jpg"}


def test_evaluate_prints_a_table_of_kinds_and_may_mirror(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=2)
    code, out, _ = ris("evaluate", "--dataset", str(folder))
    assert code == 0
    assert "by kind of expression" in out and "absent" in out and "mirrored" not in out
    code, out, _ = ris("evaluate", "--dataset", str(folder), "--flip")
    assert code == 0
    assert "mirrored" in out
    evaluate = ("evaluate", "--dataset", str(folder), "--json")
    plain, flipped = (json.loads(ris(*evaluate, *how)[1]) for how in ((), ("--flip",)))
    assert (plain["flip"], flipped["flip"]) == (False, True)
    assert plain["mIoU"] != flipped["mIoU"]


def test_evaluate_as_lavt_does(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=2)
    code, out, _ = ris("evaluate", "--dataset", str(folder), "--convention", "lavt")
    assert code == 0
    assert "lavt" in out and "mIoU" in out
    code, _, err = ris("evaluate", "--dataset", str(folder), "--convention", "cris")
    assert code == 2
    assert "'original', 'lavt'" in err


def test_calibrate_changes_the_operating_point_alone(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    base = random_checkpoint(tmp_path / "base")
    again = ("calibrate", "--model", "base", "--dataset", str(folder), "--accepted", "0.75", "--out", "again")
    code, out, err = ris(*again)
    assert code == 0, err
    assert version(Path("again")) in out
    assert version(Path("again")) != version(base)
    assert Path("again", WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()
    old, new = (json.loads((path / CONFIG).read_text()) for path in (base, Path("again")))
    assert {name for name in new if new[name] != old[name]} == {"operating_point"}
    card = Path("again/card.md").read_text()
    assert card.startswith("# Random\n")
    assert f"ris calibrate --model {version(base)} --dataset {folder.name} --accepted 0.75\n" in card
    code, out, _ = ris("evaluate", "--model", "again", "--dataset", str(folder), "--split", "val", "--json")
    figures = json.loads(out)
    assert figures["T-acc"] >= 0.75
    assert f"| {folder.name} | val | {figures['expressions']} | {figures['oIoU']:.3f} | {figures['mIoU']:.3f} |" in card
    code, _, err = ris(*again)
    assert code == 2
    assert "isn't empty" in err


def test_calibrate_may_balance(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    random_checkpoint(tmp_path / "base")
    code, _, err = ris("calibrate", "--model", "base", "--dataset", str(folder), "--balance", "--out", "even")
    assert code == 0, err
    assert f"--dataset {folder.name} --balance\n" in Path("even/card.md").read_text()


def test_average(ris, tmp_path: Path) -> None:
    one, other = (random_checkpoint(tmp_path / name, seed) for seed, name in enumerate(("one", "other")))
    Path("mean").mkdir()
    code, out, err = ris("average", "one", "other", "--out", "mean")
    assert code == 0, err
    assert version(Path("mean")) in out
    assert f"ris average {version(one)} {version(other)}\n" in Path("mean/card.md").read_text()
    mean, first, second = (load_file(Path(name, WEIGHTS)) for name in ("mean", "one", "other"))
    assert all(np.allclose(tensor, (first[name] + second[name]) / 2, atol=1e-6) for name, tensor in mean.items())
    assert ris("average", "one", "other", "--out", "mean")[0] == 2


def test_evaluate_an_empty_split(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=1)
    code, _, err = ris("evaluate", "--dataset", str(folder), "--split", "testA")
    assert code == 1
    assert "no expression in split 'testA'" in err


def test_models_json(ris) -> None:
    code, out, _ = ris("models", "--json")
    assert code == 0
    listed = json.loads(out)
    models = {model["model"]: model for model in listed["models"]}
    assert list(models) == ["vipa", "maris", "haris", "lda"]
    assert models["lda"]["version"] == version(shipped())
    assert all(model["version"].startswith(f"{name}-") for name, model in models.items())
    assert all(model["parameters"] > model["trainable"] > 500_000 for model in models.values())
    encoders = {encoder["name"]: encoder for encoder in listed["encoders"]}
    assert encoders["efficientnet-lite2"]["folder"] and encoders["minilm"]["folder"]
    assert {"swin-base", "clip-vit-b16", "sam-vit-b", "sam-vit-l", "sam-vit-h"} <= encoders.keys()


TINY = ("--epochs", "1", "--workers", "0", "--side", "96", "--option", "width=32", "--run", "run")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_and_segments(ris, tmp_path: Path, cat: Path, name: str) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    train = ("train", "--dataset", str(folder), "--model", name, "--image-encoder", "efficientnet-lite0", *TINY)
    train += ("--accepted", "0.9")
    code, out, err = ris(*train, "--out", "model")
    assert code == 0, err
    assert f"{name}-" in out
    card = Path("model/card.md").read_text()
    assert f"--model {name} --image-encoder efficientnet-lite0 --text-encoder minilm --option width=32" in card
    assert card.count(" --accepted 0.9\n") == 1
    code, out, _ = ris("segment", "cat.png", "the cat", "--model", "model", "--json")
    assert code == 0
    assert json.loads(out)["model_version"] == version(Path("model"))
    code, _, err = ris(*train, "--out", "model")
    assert code == 2
    assert "isn't empty" in err


def test_training_as_it_is_asked_for(ris, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    train = ("train", "--dataset", str(folder), "--image-encoder", "efficientnet-lite0", *TINY)
    switches = ("--paste", "0.5", "--precision", "bfloat16", "--accumulate", "2")
    code, _, err = ris(*train, *switches, "--out", "model")
    assert code == 0, err
    config = json.loads(Path("run/config.json").read_text())
    assert (config["paste"], config["precision"], config["accumulate"]) == (0.5, "bfloat16", 2)
    assert "--precision bfloat16 --accumulate 2 --paste 0.5" in Path("model/card.md").read_text()
    assert [path.name for path in Path("run/overlays").iterdir()] == ["pass-001.jpg"]
    assert any("mIoU" in line for line in Path("run/metrics.jsonl").read_text().splitlines())
    code, _, err = ris(*train, "--no-validate", "--run", "unwatched", "--out", "other")
    assert code == 0, err
    assert not Path("unwatched/overlays").exists()


def test_training_goes_on_with_the_adapters_of_its_start(ris, tmp_path: Path, cat: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=14)
    train = ("train", "--dataset", str(folder), "--epochs", "1", "--workers", "0", "--side", "96")
    code, _, err = ris(*train, "--from", str(shipped()), "--out", "adapted", "--run", "run")
    assert code == 0, err
    assert checkpoint.tuning(tmp_path / "adapted") == checkpoint.tuning(shipped())
    assert f"--from {version(shipped())} --encoders adapters --stages 3" in Path("adapted/card.md").read_text()
    assert ris("segment", "cat.png", "the cat", "--model", "adapted", "--json")[0] == 0
    old, new = (load_file(parent / WEIGHTS) for parent in (shipped(), tmp_path / "adapted"))
    adapters = [name for name in new if "lora_" in name]
    assert adapters
    assert any((old[name] != new[name]).any() for name in adapters)
    code, _, err = ris(*train, "--from", str(shipped()), "--encoders", "frozen", "--out", "frozen", "--run", "other")
    assert (code, "train it further as it is" in err) == (1, True)


def test_help_comes_without_what_takes_seconds_to_import() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']; from backend.cli.main import app; app(standalone_mode=False)\n"
        "print('loaded:', sorted({'torch', 'transformers', 'cv2', 'redis', 'pydantic', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("loaded: []\n")
