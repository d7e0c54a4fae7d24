"""`ris up`, `demo`, `doctor` and `worker`: everything on one machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from backend.cli.jobs import nearness, what_was_taught
from backend.cli.options import JsonOption
from backend.home import env_file, home_folder
from backend.queue.names import WorkerKind
from backend.terminal import err, out, stage_bar
from ris_core.errors import RisError

if TYPE_CHECKING:
    from backend.doctor.checks import Finding
    from backend.local.demo import DemoResult
    from backend.local.up import RunningStudio
    from backend.settings import Settings


_COLOURS = {"ok": "green", "warning": "yellow", "broken": "red", "skipped": "dim"}


@dataclass(frozen=True)
class StudioDisplay:
    """Shows how a studio starts, runs and stops; see `backend.local.up.Display`."""

    console: Console

    def say(self, text: str, style: str = "") -> None:
        """Print lines as they are: they may quote a log, whose brackets and line ends aren't ours to interpret."""
        # The terminal may be gone, which must not keep services from being stopped. Rich exits at a broken pipe.
        with suppress(OSError, SystemExit):
            self.console.print(text, style=style, markup=False, soft_wrap=True)

    @contextmanager
    def starting(self, names: Sequence[str]) -> Iterator[Callable[[str, float], None]]:
        """A line each, of name, state and seconds; where nobody looks, a sentence for each that is ready."""
        columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description:<13}"))
        state = (TextColumn("{task.fields[state]:<9}"), TimeElapsedColumn())
        console = self.console
        with Progress(*columns, *state, console=console, disable=not console.is_terminal) as progress:
            lines = {name: progress.add_task(name, total=1, state="starting") for name in names}

            def on_ready(name: str, seconds: float) -> None:
                progress.update(lines[name], completed=1, state="ready")
                if not console.is_terminal:
                    self.say(f"{name} is ready after {seconds:.0f} s.")

            yield on_ready

    def running(self, studio: RunningStudio) -> None:
        """How to open it, to log in, to begin and to stop."""
        from backend.home import logs_folder

        steps = "Open a photo, switch on Auto-Annotation and Auto-Accept below it, type what is there, press Enter."
        table = Table.grid(padding=(0, 2))
        table.add_row("[bold]Open", studio.url)
        # What is no terminal may be a log that others read.
        password = studio.password if self.console.is_terminal else _where(studio)
        table.add_row("[bold]Log in", f"{studio.email}   {password}")
        table.add_row("[bold]Then", steps)
        name, word = studio.console_login
        table.add_row(
            "[bold]Look after", f"{studio.console}   {name}   {word if self.console.is_terminal else ''}".rstrip()
        )
        table.add_row("[bold]Stop", f"Ctrl-C. Everything is kept in {studio.home}, logs in {logs_folder(studio.home)}.")
        self.console.print(Panel(table, title="ris is running", border_style="green", expand=False))

    def attend(self, run: Callable[[], object]) -> int:
        """Run it and say how it ended -> the exit code: 0 when it is done or was interrupted, 1 after a failure."""
        try:
            run()
        except KeyboardInterrupt:
            self.say("Stopped. The next start goes on from here.")
        except RisError as error:
            self.say(str(error), "red")
            return 1
        return 0


def _where(studio: RunningStudio) -> str:
    """Where the password stands."""
    return f"(the password is RIS_LABEL_STUDIO_PASSWORD in {env_file(studio.home)})"


def up() -> None:
    """Start Label Studio, Valkey, the backend and its workers, connected; Ctrl-C stops them."""
    from backend.local.up import up

    display = StudioDisplay(out)
    sys.exit(display.attend(lambda: up(home_folder(), display)))


def demo(
    teacher: Annotated[
        Optional[str],
        typer.Option(help="A zero-shot segmenter of `ris models` that teaches the small model.", show_default="none"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop without a person: pre-label, correct, learn, promote, export."""
    from backend.local.demo import run
    from backend.local.up import during

    display = StudioDisplay(err if as_json else out)

    def work(settings: Settings) -> None:
        with stage_bar(console=display.console) as on_progress:
            result = run(settings, display.say, on_progress, teacher)
        if as_json:
            print(json.dumps(asdict(result), default=str))
        else:
            _show_demo(result, display)

    sys.exit(display.attend(lambda: during(home_folder(), work, display)))


def doctor(
    project: Annotated[
        Optional[int], typer.Option(help="Number of the project in Label Studio.", show_default="only what needs none")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try each link from the settings to the masks in Label Studio, and say what to do where one is broken."""
    from backend.doctor import CHAIN, diagnose

    findings = []
    with err.status("settings") as status:
        for finding, following in zip(diagnose(project), [*CHAIN[1:], None], strict=True):
            findings.append(finding)
            status.update(following.link if following else "")
    is_whole = all(finding.state != "broken" for finding in findings)
    if as_json:
        print(json.dumps({"ok": is_whole, "findings": [asdict(finding) for finding in findings]}))
    else:
        out.print(_table_of_findings(findings))
    if not is_whole:
        raise typer.Exit(1)


def worker(
    only: Annotated[
        Optional[WorkerKind], typer.Option(help="Learn and nothing else, or all but that.", show_default="everything")
    ] = None,
) -> None:
    """Run one worker, which pre-labels, learns and exports; `ris up` starts two by itself, one of each kind."""
    from backend.jobs.worker import run_worker
    from backend.settings import load

    run_worker(load(), only=only)


def _table_of_findings(findings: Sequence[Finding]) -> Table:
    table = Table("link", "state", "what", "what to do", show_lines=True)
    for finding in findings:
        colour = _COLOURS[finding.state]
        # Sentences may hold brackets, which rich would read as markup.
        table.add_row(finding.link, f"[{colour}]{finding.state}[/]", escape(finding.what), escape(finding.remedy))
    return table


def _show_demo(result: DemoResult, display: StudioDisplay) -> None:
    display.say(f"{result.decision.capitalize()}: {result.reason}")
    display.say(
        f"(The gate asks for {result.min_validation} held-out expressions here; "
        f"a project needs {result.usual_min_validation}.)"
    )
    display.console.print(_compared(result))
    if result.teaching:
        display.say(what_was_taught(result.teaching))
        display.console.print(nearness(result.teaching))
    file = result.folder / "instances.json"
    display.say(f"{result.masks} masks in {file}, each equal to its annotation's bit for bit.")
    display.say(f"Look at them: {result.url}")


def _compared(result: DemoResult) -> Table:
    table = Table("photo", "prompt", "before", "after", title="IoU of Label Studio's predictions with the corrections")
    for held_out, title in ((False, "learnt from"), (True, "held out")):
        rows = [row for row in result.prompts if row.held_out is held_out]
        for row in rows:
            table.add_row(row.photo, row.prompt, f"{row.before:.2f}", f"{row.after:.2f}")
        means = (fmean(row.before for row in rows), fmean(row.after for row in rows))
        table.add_row(f"[bold]mean, {title}", "", *(f"[bold]{mean:.3f}" for mean in means), end_section=True)
    table.add_row("[bold]model_version", "", result.before, result.after)
    return table
