"""`ris backup` and `ris restore` as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ris_core.files import atomic_write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    home = tmp_path / "home"
    atomic_write(home / "ris.env", b"RIS_PASSWORD=pass-1\nRIS_PORT=9191\n")
    atomic_write(home / "projects" / "3.env", b"RIS_FINETUNE_MIN_NEW=3\n")
    monkeypatch.setenv("RIS_HOME", str(home))
    return home


def test_there_and_back(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_ris: Callable[..., tuple[int, str, str]]
) -> None:
    file = str(tmp_path / "home.tar")
    code, printed, _ = run_ris("backup", file)
    assert code == 0
    assert "0 versions of the model" in printed
    # What isn't in it is said.
    assert "pg_dump" in printed
    assert "--secrets adds them" in printed
    monkeypatch.setenv("RIS_HOME", str(tmp_path / "elsewhere"))
    code, printed, _ = run_ris("restore", file)
    assert code == 0
    assert "ris connect --project N" in printed
    assert (tmp_path / "elsewhere" / "ris.env").read_text() == "RIS_PORT=9191\n"
    assert (tmp_path / "elsewhere" / "projects" / "3.env").is_file()
    code, _, told = run_ris("restore", file)
    assert (code, "--replace" in told) == (2, True)
    code, printed, _ = run_ris("restore", file, "--replace", "--json")
    assert (code, json.loads(printed)["files"]) == (0, 2)


def test_standard_output_is_the_tar_and_nothing_else_and_standard_input_may_be_one(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "piped.tar"
    with file.open("wb") as output:
        command = [sys.executable, "-m", "backend.cli", "backup", "-", "--json"]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, env=os.environ, text=True, check=True)
    assert json.loads(done.stderr)["bytes"] == file.stat().st_size
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["projects", "projects/3.env", "ris.env", "backup.json"]
    elsewhere = tmp_path / "elsewhere"
    with file.open("rb") as stream:
        command = [sys.executable, "-m", "backend.cli", "restore", "-"]
        subprocess.run(command, stdin=stream, env={**os.environ, "RIS_HOME": str(elsewhere)}, check=True)
    assert (elsewhere / "projects" / "3.env").read_bytes() == (home / "projects" / "3.env").read_bytes()


def test_what_is_missing_is_a_sentence(
    home: Path, tmp_path: Path, run_ris: Callable[..., tuple[int, str, str]]
) -> None:
    for arguments, sentence in (
        (("restore",), "Name the back-up"),
        (("restore", str(tmp_path / "nowhere.tar")), "There is no back-up"),
        (("restore", "--resume"), "No restore of"),
    ):
        code, _, told = run_ris(*arguments)
        assert code == 2
        assert sentence in told
