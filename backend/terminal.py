"""What the commands print on: standard output for results, standard error for all that only a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

out, err = Console(), Console(stderr=True)


class Bar:
    """A progress bar on standard error, so that standard output stays what a script expects."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, detail="")

    def __call__(self, done: int, total: int | None = None, detail: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, detail=detail)


class Rate(ProgressColumn):
    """Steps a second; nothing before there were two."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Bar]:
    """A bar for one job: what is done, how fast, and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield Bar(progress, title, total)
