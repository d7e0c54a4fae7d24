"""The order of the layers is checked, not just written down: what breaks it on purpose is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# File, what is added to it, and the contract that it breaks.
BREACHES = {
    "upward": ("backend/prompts/sheet.py", "import backend.learning.gate", "backend: layers"),
    "between the packages": ("ris_core/masks.py", "import backend.errors", "ris_core knows nothing of the backend"),
    "torch": ("backend/labelstudio/client.py", "import torch", "labelstudio, settings, queue, registry: without torch"),
    "printing": ("backend/batches/runner.py", "import rich", "Only cli prints"),
    "a module of no layer": ("backend/misc.py", "", "backend: layers"),
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("lint-imports"))
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(
        [program, "--no-logo", "--no-cache"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layers")
    for package in ("backend", "ris_core"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_the_contracts_hold(copy: Path) -> None:
    outcome = lint(copy)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found(copy: Path, breach: str) -> None:
    name, line, contract = BREACHES[breach]
    file = copy / name
    before = file.read_text(encoding="utf-8") if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        outcome = lint(copy)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, encoding="utf-8")
    assert outcome.returncode != 0
    assert f"{contract} BROKEN" in outcome.stdout
