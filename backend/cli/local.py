"""`ris up`, `demo`, `doctor` and `worker`: everything on one machine."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Optional

import typer

from backend.cli.options import JsonOption, home


class Work(StrEnum):
    """What a worker does."""

    training = "training"
    batches = "batches"


def up() -> None:
    """Start Label Studio, Valkey, the backend and its workers, connected; Ctrl-C stops them."""
    from backend.local import up

    sys.exit(up.up(home()))


def demo() -> None:
    """Run the whole loop without a person: pre-label, correct, learn, promote, export."""
    from backend.local import demo, up

    sys.exit(up.during(home(), demo.run))


def doctor(
    project: Annotated[
        Optional[int], typer.Option(help="Number of the project in Label Studio.", show_default="only what needs none")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try each link from the settings to the masks in Label Studio, and say what to do where one is broken."""
    from backend import doctor

    if not doctor.run(project, json):
        raise typer.Exit(1)


def worker(
    only: Annotated[
        Optional[Work], typer.Option(help="Learn and nothing else, or all but that.", show_default="everything")
    ] = None,
) -> None:
    """Run one worker, which pre-labels, learns and exports; `ris up` starts two by itself, one of each kind."""
    from backend.jobs.worker import run_worker
    from backend.settings import load

    run_worker(load(), only=only and only.value)
