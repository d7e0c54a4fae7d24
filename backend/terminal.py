"""What the commands print on: standard output for results, standard error for all that only a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Numbers within a sentence aren't coloured.
out, err = Console(highlight=False), Console(stderr=True, highlight=False)


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
    with _progress(*_columns(), console=err) as progress:
        yield Bar(progress, title, total)


@contextmanager
def bars() -> Iterator[Callable[..., None]]:
    """The same for a job of several stages, each with a bar of its own once it is called with that stage's name.

    It is called as (stage, done, total, detail="").
    """
    with _progress(*_columns(), console=err) as progress:
        shown: dict[str, Bar] = {}

        def on_progress(stage: str, done: int, total: int, detail: str = "") -> None:
            if stage not in shown:
                progress.refresh()
                for task in progress.task_ids:
                    progress.remove_task(task)
                shown[stage] = Bar(progress, stage, total)
            shown[stage](done, total, detail)

        yield on_progress


@contextmanager
def stage_bar(stage: str, console: Console | None = None) -> Iterator[Callable[[str, float], None]]:
    """A bar for a worker's job: the stage it is in, the share of the job that is done, and the time it takes.

    `stage` is shown until the bar is called with the first one and a share, 0 to 1.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    with _progress(*columns, TimeElapsedColumn(), console=console or err) as progress:
        line = progress.add_task(stage, total=1.0)
        yield lambda stage, share: progress.update(line, description=stage, completed=share)


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )


def _progress(*columns: ProgressColumn, console: Console) -> Progress:
    """What is gone at the end, and isn't there where nobody looks."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
