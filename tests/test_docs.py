"""What the documents point at is there: links, files of the source, modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "weights" / "card.md"]

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
# `backend/learning/gate.py`, and a module as a flow names it: `learning/gate`, which stands below backend.
QUOTED = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_0-9]+(?:\.[a-z]+)?)?)`")
CODE = {path.name for package in ("backend", "ris_core") for path in (ROOT / package).iterdir() if path.is_dir()}


def is_there(name: str) -> bool:
    return any(
        (base / name).exists() or (base / f"{name}.py").exists() for base in (ROOT, ROOT / "backend", ROOT / "ris_core")
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_are_named_exist(document: Path) -> None:
    for name in QUOTED.findall(document.read_text(encoding="utf-8")):
        if name.split("/")[0] in {"backend", "ris_core", "tests", "benchmarks", "docs", *CODE}:
            assert is_there(name), f"{document.name} names {name}"
