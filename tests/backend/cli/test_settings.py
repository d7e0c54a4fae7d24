"""`ris settings`: all knobs, their values without secrets, and the page that is written by it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.cli.settings import as_markdown, rows
from backend.settings import Settings, secret_knobs

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    monkeypatch.setenv("RIS_HOME", str(tmp_path))
    return tmp_path


def test_the_page_is_what_the_settings_are() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), "Run: ris settings --markdown >docs/settings.md"


def test_every_setting_is_on_the_page_once(home: Path, run_ris: Callable[..., tuple[int, str, str]]) -> None:
    code, printed, _ = run_ris("settings", "--markdown")
    assert code == 0
    names = re.findall(r"^\| `(RIS_\w+)`", printed, flags=re.M)
    assert names == [f"RIS_{name}".upper() for name in Settings.model_fields]
    assert {line.count("|") for line in printed.splitlines() if line.startswith("| `")} == {6}


def test_limits_are_said() -> None:
    allowed = {row.name: row.allowed for row in rows()}
    assert allowed["RIS_PORT"] == "a whole number from 1 to 65,535"
    assert allowed["RIS_MAX_TASKS"] == "a whole number above 0"
    assert allowed["RIS_PRELABEL_SMALLEST"] == "a number from 0 below 1"
    assert allowed["RIS_PRELABEL_OBJECTS"] == "`one`, `each`, `instances`"
    assert "`confidence`" in allowed["RIS_PRELABEL_SCORE"]
    assert "`diversity`" in allowed["RIS_PRELABEL_SCORE"]
    assert allowed["RIS_PRELABEL_NEW"] == "true or false"
    assert allowed["RIS_IMAGE_HOSTS"] == "a list, by commas"
    assert allowed["RIS_FINETUNE_PROCESSES"] == "a whole number above 0"
    assert {row.name for row in rows() if row.allowed == "a secret"} == {
        f"RIS_{name}".upper() for name in secret_knobs()
    }


def test_values_are_what_holds_and_secrets_stay_so(home: Path, run_ris: Callable[..., tuple[int, str, str]]) -> None:
    (home / "ris.env").write_text("RIS_PASSWORD=pass-1\nRIS_PORT=9191\nRIS_IMAGE_HOSTS=minio:9000,10.0.0.7\n")
    code, printed, _ = run_ris("settings", "--json")
    values = {row["name"]: row["value"] for row in json.loads(printed)}
    assert code == 0
    assert (values["RIS_PORT"], values["RIS_IMAGE_HOSTS"]) == ("9191", "minio:9000,10.0.0.7")
    assert set(values["RIS_PASSWORD"]) == {"*"}
    assert "pass-1" not in printed + run_ris("settings")[1]


def test_angle_brackets_are_seen_where_the_page_is_shown() -> None:
    assert "http://&lt;host>:&lt;port>" in as_markdown()
    assert not re.search(r"<(?![^`\n]*`)", as_markdown().partition("|---|")[2])
