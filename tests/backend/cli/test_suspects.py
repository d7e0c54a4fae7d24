"""`ris suspects`: a table with links, JSON, and a sentence where there is nothing to look through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from held_out import PROJECT, snapshot

from backend.active_learning import label_errors
from ris_core import checkpoint_files

Run = Callable[..., tuple[int, str, str]]
SUSPECTS = ("suspects", "--project", str(PROJECT))
LINK = f"http://label.studio/projects/{PROJECT}/data?task="


@pytest.fixture
def home(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a project whose version in production finds whatever it is asked for, all over the photo."""
    monkeypatch.setenv("RIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RIS_LABEL_STUDIO_URL", "http://label.studio")
    finds = random_checkpoint(tmp_path / "finds")
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: finds)
    # Random weights are sure of nothing.
    monkeypatch.setattr(label_errors, "LEAST", 0.0)
    return tmp_path / "home"


def test_json_has_links_to_the_tasks(home: Path, run_ris: Run, tmp_path: Path) -> None:
    made = snapshot(home)
    shown = json.loads(run_ris(*SUSPECTS, "--pictures", str(tmp_path / "sheets"), "--json")[1])
    assert (shown["project"], shown["snapshot"], shown["corrections"]) == (PROJECT, made.id, 6)
    assert shown["version"] == checkpoint_files.version(tmp_path / "finds")
    assert shown["suspects"][0].keys() == {"task", "prompt", "says", "iou", "score", "suspicion", "link"}
    assert shown["suspects"][0]["link"] == f"{LINK}6"
    assert shown["pictures"] == [str(tmp_path / "sheets" / "suspects-1.jpg")]


def test_people_get_a_table_with_links(home: Path, run_ris: Run) -> None:
    # What rich would take for markup is shown as it is.
    snapshot(home, sentence="the c[/red]at")
    code, printed, _ = run_ris(*SUSPECTS, "--count", "1")
    assert code == 0
    assert "the c[/red]at" in printed
    assert f"Look at {LINK}6\n" in printed
    assert "task=1" not in printed


def test_where_nothing_looks_wrong_it_says_so(home: Path, run_ris: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(home)
    monkeypatch.setattr(label_errors, "LEAST", 1.0)
    assert run_ris(*SUSPECTS)[1].startswith("None of 6 corrections looks wrong to ")


def test_where_nothing_is_annotated_it_says_what_to_do(home: Path, run_ris: Run) -> None:
    code, _, error = run_ris(*SUSPECTS)
    assert code == 1
    assert "ris finetune" in error
