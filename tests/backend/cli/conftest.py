"""Shared by the commands' tests."""

from __future__ import annotations

import pytest

from backend import terminal


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich would wrap what a test reads."""
    for console in (terminal.out, terminal.err):
        monkeypatch.setattr(console, "width", 300)
