"""The tables of docs/scale.md are those of the results."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tables", module)
    spec.loader.exec_module(module)
    return module


def test_the_document_says_what_the_results_say(tables: ModuleType) -> None:
    document = tables.DOCUMENT.read_text(encoding="utf-8")
    assert tables.updated(document) == document, "Run: python benchmarks/tables.py --write"


@pytest.mark.parametrize("name", ["load", "million"])
def test_each_figure_of_the_last_whole_runs_is_in_its_table(tables: ModuleType, name: str) -> None:
    """Read independently: from the end, the first whole run of a part is the one that counts."""
    text, seen = tables.table(name), set()
    for entry in reversed(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))):
        if entry["quick"] or entry["part"] in seen:
            continue
        seen.add(entry["part"])
        for figure, value in entry["figures"].items():
            assert f"| {entry['part']} | {figure.replace(', reckoned', '')} | {value:,} |" in text


def test_a_newer_run_changes_the_table_and_a_quick_one_does_not(tables: ModuleType) -> None:
    entry = {"part": "batch", "quick": False, "date": "2026-11-21", "figures": {"images a second": 4.5}}
    newer = {**entry, "figures": {"images a second": 1234.5}}
    quick = {**newer, "quick": True, "figures": {"images a second": 99}}
    assert "4.5" in "\n".join(tables.load([entry]))
    shown = "\n".join(tables.load([entry, newer, quick]))
    assert "1,234.5" in shown
    assert "99" not in shown


def test_a_document_without_a_place_for_a_table_is_said_to_have_none(tables: ModuleType) -> None:
    with pytest.raises(SystemExit, match="has 0 places for the table 'load'"):
        tables.updated("# Scale\n")


def test_a_table_without_results_says_how_to_get_them(
    tables: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.table("kills") == "No whole run is kept yet: `make bench-kills`."


def test_the_table_of_kills_has_each_kind_and_what_came_of_the_tasks(tables: ModuleType) -> None:
    kills = [{"what": what, "seconds": seconds} for what, seconds in (("job", 2.0), ("job", 9.0), ("valkey", 1.5))]
    figures = {"tasks": 10000, "kills": 3, "lost": 0, "doubled": 0, "failed": 0, "seconds": 60}
    entry = {"date": "2026-11-28", "quick": False, "figures": figures, "kills": kills}
    lines = list(tables.kills([entry]))
    assert "| `job` | 2 | 5.5 | 9.0 |" in lines
    assert "| `valkey` | 1 | 1.5 | 1.5 |" in lines
    assert lines[-1] == "On 2026-11-28: tasks 10,000, kills 3, lost 0, doubled 0, failed 0, seconds 60."


def test_no_task_was_lost_or_doubled_in_any_run_that_is_kept() -> None:
    file = RESULTS / "kills.json"
    if not file.exists():
        pytest.skip("No run is kept: make bench-kills.")
    for run in json.loads(file.read_text(encoding="utf-8")):
        figures = run["figures"]
        assert (figures["lost"], figures["doubled"], figures["failed"]) == (0, 0, 0)
        assert figures["kills"] == len(run["kills"])
