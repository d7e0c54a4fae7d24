"""What the commands print on: standard output for results, standard error for all that only a person reads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Numbers within a sentence aren't coloured.
out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def say(sentence: str) -> None:
    """Print a sentence as it is: no markup, and not broken into lines, for an address in two can't be followed."""
    out.print(sentence, markup=False, soft_wrap=True)


class Rate(ProgressColumn):
    """Steps a second; nothing before there were two."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar for one job: what is done, how fast, and the time left. It is called as (done, total, detail)."""
    with bars() as on_progress:
        on_progress(title, 0, total)
        yield lambda done, total=total, detail="": on_progress(title, done, total, detail)


@contextmanager
def bars() -> Iterator[Callable[..., None]]:
    """The same for a job of stages, one bar after the other. It is called as (stage, done, total, detail)."""
    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
    with _progress(*columns, console=err) as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(stage: str, done: int, total: int | None, detail: str = "") -> None:
            if stage not in tasks:
                progress.refresh()
                for task in progress.task_ids:
                    progress.remove_task(task)
                tasks[stage] = progress.add_task(stage, total=total, detail="")
            progress.update(tasks[stage], completed=done, total=total, detail=detail)

        yield on_progress


@contextmanager
def stage_bar(
    stage: str = "waiting for the worker", console: Console | None = None
) -> Iterator[Callable[[str, float], None]]:
    """A bar for a worker's job, with the time it takes. It is called as (stage, share of the job, 0 to 1)."""
    columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn())
    with _progress(*columns, console=console or err) as progress:
        line = progress.add_task(stage, total=1.0)
        yield lambda stage, share: progress.update(line, description=stage, completed=share)


def _progress(*columns: ProgressColumn, console: Console) -> Progress:
    """On standard error or a terminal alone, so that standard output stays what a script expects; gone at the end."""
    return Progress(
        TextColumn("{task.description}"), *columns, console=console, transient=True, disable=not console.is_terminal
    )
