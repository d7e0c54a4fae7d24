"""Zero-shot segmenters on the command line: fetched, listed and asked by name, and refused where they can't serve."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapes
from PIL import Image
from pointers import fake_network, fake_pointer, make_commit

from ris_core import checkpoint_files
from ris_core.zero_shot_catalogue import CATALOGUE

NAME = "grounding-dino+sam2"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ris(run_ris: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None) -> Run:
    """Run a command in an empty folder, with nothing fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    return run_ris


def copies(name: str, folder: Path) -> Path:
    for part, source in CATALOGUE[name].sources.items():
        make_commit(source, folder / part)
    return folder


def photo(path: Path) -> Path:
    """Dark, with a bright square of 20 x 10 pixels at column 30 and row 5."""
    pixels = np.full((40, 60, 3), 40, np.uint8)
    pixels[5:15, 30:50] = 240
    Image.fromarray(pixels).save(path)
    return path


def test_fetched_from_a_folder_listed_and_asked(ris: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = ris("segment", str(photo(tmp_path / "a.png")), "the square", "--model", NAME)
    assert code == 1
    assert f"ris fetch {NAME}" in err
    code, out, err = ris("fetch", NAME, "--file", str(copies(NAME, tmp_path / "copies")))
    assert code == 0, err
    said = f"{NAME}, under Apache-2.0: about 850 MB in {tmp_path / 'cache'}, and 2,400 MB of memory while it answers."
    assert out.splitlines()[0] == said
    folder = checkpoint_files.find(NAME)
    assert out.splitlines()[-1] == f"{NAME} is in {folder}."

    code, out, _ = ris("models", "--json")
    cards = {card["name"]: card for card in json.loads(out)["zero_shot"]}
    assert list(cards) == list(CATALOGUE)
    assert cards[NAME]["version"] == checkpoint_files.version(folder)
    assert cards["sam3"] | {"free": False, "gated": True, "version": None, "licences": ["SAM License"]} == cards["sam3"]
    assert (cards["clipseg"]["clicks"], cards["clipseg"]["disk"], cards["clipseg"]["memory"]) == (False, 600, 1100)

    fake_network(NAME, monkeypatch)
    code, out, err = ris("segment", str(tmp_path / "a.png"), "the square", "nothing", "--model", NAME, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["model_version"] == checkpoint_files.version(folder)
    assert [result["present"] for result in answer["results"]] == [True, False]
    assert answer["results"][0]["bbox"] == [30, 5, 20, 10]


def test_models_are_a_table(ris: Run) -> None:
    code, out, _ = ris("models")
    assert code == 0
    assert all(name in out for name in CATALOGUE)
    assert "`ris fetch NAME` brings what isn't at hand." in out


def test_a_licence_is_agreed_to_first(ris: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(copies("sam3", tmp_path / "copies"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err = ris("fetch", "sam3", "--file", folder)
    assert code == 2
    assert "The licence of sam3 has to be agreed to: read it at https://huggingface.co/facebook/sam3" in err
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", asked.append)
    code, out, _ = ris("fetch", "sam3", "--file", folder)
    assert (code, len(asked)) == (1, 1)
    assert "Nothing was fetched." in out
    assert not checkpoint_files.pointer_folder("sam3").exists()
    code, out, err = ris("fetch", "sam3", "--file", folder, "--yes")
    assert (code, len(asked)) == (0, 1), err
    # What was agreed to once isn't asked again.
    assert ris("fetch", "sam3")[0] == 0
    assert len(asked) == 1


def test_weights_that_are_changed_are_not_used(ris: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pointer(NAME, tmp_path / "cache", monkeypatch)
    [weights] = (tmp_path / "cache").glob("facebook--sam2*/model.safetensors")
    weights.write_text("other")
    code, _, err = ris("segment", str(photo(tmp_path / "a.png")), "the square", "--model", NAME)
    assert code == 1
    assert f"isn't the file that {NAME} was fetched with. Delete {weights.parent} and run `ris fetch {NAME}`." in err


def test_what_a_fetch_takes_is_said_before(ris: Run, tmp_path: Path) -> None:
    code, _, err = ris("segment", str(photo(tmp_path / "a.png")), "the square", "--model", "sam3")
    assert code == 1
    assert err == (
        "ris: The weights of sam3 aren't on this machine. Run `ris fetch sam3`: they take 3.3 GB of disk, and 5.6 GB "
        "of memory while it answers. Its owners grant access one by one: `ris fetch` says how to ask.\n"
    )


def test_it_is_measured_and_calibrated(ris: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = str(shapes.make(tmp_path / "shapes", photos=14))
    pointer = fake_pointer(NAME, tmp_path / "cache", monkeypatch)
    code, out, err = ris("evaluate", "--dataset", dataset, "--model", NAME, "--json")
    assert code == 0, err
    assert json.loads(out)["model_version"] == checkpoint_files.version(pointer)
    assert ris("evaluate", "--dataset", dataset, "--model", NAME, "--clicks")[0] == 0
    code, _, err = ris("evaluate", "--dataset", dataset, "--model", NAME, "--flip")
    assert (code, err) == (2, f"ris: --flip is for models of ours; {NAME} is a zero-shot segmenter. Leave it out.\n")

    code, out, err = ris("calibrate", "--dataset", dataset, "--model", NAME, "--out", "again")
    assert code == 0, err
    again = tmp_path / "again"
    assert checkpoint_files.is_zero_shot(again)
    assert not (again / checkpoint_files.WEIGHTS).exists()
    assert checkpoint_files.version(again) != checkpoint_files.version(pointer)
    sources = [checkpoint_files.read_config(folder)["sources"] for folder in (pointer, again)]
    assert sources[0] == sources[1]
    code, out, err = ris("segment", str(photo(tmp_path / "a.png")), "the square", "--model", "again", "--json")
    assert code == 0, err
    assert json.loads(out)["model_version"] == checkpoint_files.version(again)


@pytest.mark.parametrize("fetched", [True, False])
def test_it_is_not_trained(ris: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: bool) -> None:
    """Not by its name, nor by its folder."""
    dataset = str(shapes.make(tmp_path / "shapes", photos=6))
    names = [NAME]
    if fetched:
        names.append(str(fake_pointer(NAME, tmp_path / "cache", monkeypatch)))
    for name in names:
        for command in (
            ("train", "--dataset", dataset, "--from", name, "--out", "out"),
            ("train-clicks", "--dataset", dataset, "--model", name, "--out", "out"),
            ("average", name, name, "--out", "out"),
        ):
            code, _, err = ris(*command)
            assert code == 1, command
            assert f"{name} can't be trained or averaged: it is the zero-shot segmenter {NAME}" in err
            assert err.count("\n") == 1
