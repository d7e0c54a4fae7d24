"""A progress bar tells how fast it goes and when it will be done, and stays off standard output."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from backend import terminal


def test_the_bar_shows_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen, now = io.StringIO(), [0.0]
    console = Console(file=screen, force_terminal=True, width=120, get_time=lambda: now[0])
    monkeypatch.setattr(terminal, "err", console)
    with terminal.bar("Evaluating", 50) as tell:
        for done in range(5):
            tell(done, detail=f"step {done}")
            now[0] += 0.5
    shown = screen.getvalue()
    assert "Evaluating" in shown and "4/50" in shown and "step 4" in shown
    # Two a second, and 46 to go.
    assert "2.0/s" in shown and "0:00:23" in shown
    assert capsys.readouterr().out == ""


def test_no_bar_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=False))
    with terminal.bar("Evaluating", 50) as tell:
        tell(25)
    assert screen.getvalue() == ""
