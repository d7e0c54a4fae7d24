"""The pages that are made from code and results: current, whole, and right where something else knows it too."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from reference import benchmarks, commands, formats, metrics, pages

from backend.cli.main import app
from backend.datasets.formats import EXPORT_FORMATS

ROOT = Path(__file__).parents[1]
# What users type stays, see tests/backend/cli/test_help.py: recorded once, by other code.
RECORD = json.loads((ROOT / "tests" / "backend" / "cli" / "help.json").read_text(encoding="utf-8"))
# Scripts that others use, which measure nothing themselves.
HELPERS = {"annotators", "export_server", "load_runner", "plot", "record", "studio", "tables", "worlds"}


@pytest.mark.parametrize("name", [path.name for path in pages(ROOT)])
def test_the_page_is_what_the_code_says(name: str) -> None:
    text = next(text for path, text in pages(ROOT).items() if path.name == name)
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, "Run: make reference"


def section(page: str, heading: str) -> str:
    _, heading_line, rest = page.partition(f"\n{heading}\n")
    assert heading_line, heading
    return re.split(r"^#{2,3} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell, whatever is escaped."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(" `"): [cell.strip().replace(r"\|", "|") for cell in row[1:]] for row in rows}


def test_every_command_and_option_that_was_recorded_is_there() -> None:
    page = commands.page()
    for panel, recorded in RECORD.items():
        assert f"\n## {panel}\n" in page
        for name, command in recorded.items():
            said = section(page, f"### ris {name.strip('_').replace('_', '-')}")
            assert said.startswith(command["help"])
            rows = {typed.split(",")[0].lower(): row for typed, row in cells(said).items()}
            for typed, parameter in command["parameters"].items():
                row = rows[typed.split("/")[0].lower()]
                assert row[-1] == (parameter["help"] or ""), (name, typed)
                assert (row[1] == "required") == parameter["required"], (name, typed)
                if isinstance(parameter["default"], (int, float)) and not isinstance(parameter["default"], bool):
                    assert isinstance(parameter["shown"], str) or row[1] == f"`{parameter['default']}`", (name, typed)
                least, most = parameter["range"]
                assert (least is None) or f"from {least}" in row[0]
                assert (most is None) or f"to {most}" in row[0]


def test_every_command_is_there_once() -> None:
    listed = re.findall(r"^### ris ([\w-]+)$", commands.page(), re.MULTILINE)
    assert listed == [command.name for command in app.registered_commands]
    assert len(listed) > 30


def test_every_format_is_there_with_the_docstring_of_its_module() -> None:
    page = formats.page()
    assert list(cells(page))[1:] == list(EXPORT_FORMATS)
    for name, one in EXPORT_FORMATS.items():
        heading = next(line for line in page.splitlines() if line.startswith("## ") and f"`{name}`" in line)
        assert section(page, heading).strip() == inspect.getdoc(inspect.getmodule(one.write))
        assert cells(page)[name] == [one.says, "yes" if one.is_exact else "no"]


def test_only_the_table_of_the_metrics_is_made() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    spoiled = re.sub(r"(?m)^\| `ris_.*\n", "", page)
    assert spoiled != page
    assert metrics.page(spoiled) == page
    with pytest.raises(ValueError, match="needs one table"):
        metrics.page("# Metrics\n")


def test_every_benchmark_is_there() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(benchmarks.BENCHMARKS) == scripts - HELPERS
    results = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert results <= set(benchmarks.BENCHMARKS)


def test_figures_are_the_newest(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "benchmarks" / "results" / "predict.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    newest = entries[-1]
    assert cells(section(benchmarks.page(ROOT / "benchmarks"), "## bench-predict"))["first prompt"] == [
        f"{newest['figures']['first prompt']:.3g}"
    ]
    newer = newest | {"date": "2031-01-02", "machine": "another", "version": "lda-0", "figures": {"first prompt": 1234}}
    file.write_text(json.dumps([*entries, newer]), encoding="utf-8")
    said = section(benchmarks.page(tmp_path / "benchmarks"), "## bench-predict")
    assert "2031-01-02, on another, lda-0." in said
    assert cells(said)["first prompt"] == ["1,234"]
    assert str(newest["figures"]["click"]) not in said


def test_a_benchmark_that_doesnt_say_how_it_is_called_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "guess.py"
    script.write_text('"""Measures something."""\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"guess\.py should begin with how it is called"):
        benchmarks.measured(script)


def newest(name: str, **conditions: object) -> dict[str, Any]:
    entries = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    fitting = [entry["figures"] for entry in entries if conditions.items() <= entry.items()]
    figures: dict[str, Any] = fitting[-1]
    return figures


def test_limits_are_those_that_were_measured() -> None:
    said = " ".join((ROOT / "docs" / "limits.md").read_text(encoding="utf-8").split())
    samples, written, clicks = newest("samples"), newest("written", calibrated="as it is"), newest("clicks")
    finetune, load = newest("finetune")["120 s"], newest("load", part="memory")
    absent = finetune["held-out expressions"] // 4
    for sentence in (
        f"of {samples['masks']} masks drawn on the sample photos words find {samples['found from words']}",
        f"mIoU {written['mIoU']:.2f}, and their scores promise {written['expected IoU']:.2f}",
        f"all that is of the kind would come to {written['every instance of the class']:.2f}",
        f"{clicks['1 click']:.2f} after one, {clicks['3 clicks']:.2f} after three, {clicks['5 clicks']:.2f} after five",
        f"rose from {finetune['mIoU before']:.2f} to {finetune['mIoU after']:.2f}",
        f"of {absent} absent things {absent * finetune['N-acc after']:.0f} were refused instead of "
        f"{absent * finetune['N-acc before']:.0f}",
        f"{load['memory, last against first'] + 1e-9:.2f} times that after 1,000",
    ):
        assert sentence in said
