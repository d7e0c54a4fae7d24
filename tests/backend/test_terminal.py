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


def test_a_job_of_stages_has_one_bar_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=screen, force_terminal=True, width=120))
    with terminal.bars() as on_progress:
        on_progress("Training", 3, 4, "loss 0.123")
        on_progress("Measuring", 1, 2)
    first, _, last = screen.getvalue().partition("Measuring")
    assert "3/4" in first and "loss 0.123" in first
    assert "1/2" in last and "Training" not in last


def test_a_workers_job_shows_its_stage_and_share(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with terminal.stage_bar("waiting for the worker", console) as on_progress:
        on_progress("learning", 0.5)
    assert "learning" in screen.getvalue() and "50%" in screen.getvalue()
