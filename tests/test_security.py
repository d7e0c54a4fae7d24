"""SECURITY.md names tests; each is there, so that nothing is promised on the word of a test that has gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = range(1, 15)
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)


def test_tests_are_named() -> None:
    assert len(NAMED) > len(ROWS)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_test_that_is_named_is_there(file: str, name: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"def {name}\b" if name else r"def test_", source)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_names_a_test(row: int) -> None:
    [line] = [line for line in TEXT.splitlines() if line.startswith(f"| {row} |")]
    assert "`tests/" in line


def test_each_file_of_rows_is_named() -> None:
    files = {path.name for path in (ROOT / "tests" / "backend" / "security").glob("test_*.py")}
    assert files == {Path(file).name for file, _ in NAMED if "/security/" in file}
