"""`ris`: all commands, in the order in which its help shows them, and what becomes of an error."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from backend.cli.backups import backup, restore
from backend.cli.batches import cancel, prelabel, rank, refresh, resume
from backend.cli.corrections import corrections, suspects
from backend.cli.exports import export
from backend.cli.imports import import_
from backend.cli.jobs import distil, finetune, job, jobs
from backend.cli.listener import train_listener
from backend.cli.local import demo, doctor, up, worker
from backend.cli.models import convert, fetch, models, segment
from backend.cli.projects import connect, prompts
from backend.cli.settings import settings
from backend.cli.training import average, calibrate, evaluate, train, train_clicks
from backend.cli.versions import compare, promote, prune, rollback, versions
from backend.home import DEFAULT_HOME
from backend.local.running import running_home
from ris_core.errors import InputError, RisError

COMMANDS = {
    "On the command line": (segment,),
    "Models and data": (
        models,
        fetch,
        evaluate,
        calibrate,
        average,
        train,
        train_clicks,
        train_listener,
        convert,
    ),
    "In Label Studio": (
        up,
        demo,
        connect,
        finetune,
        distil,
        corrections,
        import_,
        export,
        doctor,
        suspects,
        worker,
        backup,
        restore,
        settings,
    ),
    "Pre-labelling": (prompts, prelabel, refresh, rank, jobs, cancel, resume, job),
    "Versions of the model": (versions, promote, rollback, compare, prune),
}
"""The commands by panel. A module of this package holds those of one area, with what they print."""
_ANYWHERE = (*COMMANDS["On the command line"], *COMMANDS["Models and data"], up, demo, restore)


def _find_installation() -> None:
    """Outside its folder, a command is for the installation that runs on this machine; else it has to be named.

    One whose settings are in the environment, as in a container, needs no folder.
    """
    if DEFAULT_HOME.exists() or any(name.startswith("RIS_") and name != "RIS_CACHE" for name in os.environ):
        return
    home = running_home()
    if home is None:
        raise InputError(
            f"There is no installation here: {DEFAULT_HOME.absolute()} doesn't exist, and none runs on this machine. "
            "Go to the folder where `ris up` was started, or set RIS_HOME to the .ris in it."
        )
    print(f"ris: for the installation that runs in {home}.", file=sys.stderr)
    os.environ["RIS_HOME"] = str(home)


def _in_installation(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        _find_installation()
        command(*arguments, **options)

    return run


app = typer.Typer(
    name="ris",
    help="Type a sentence, get the mask, correct it, and the model learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for panel, commands in COMMANDS.items():
    for command in commands:
        # `import` is a word of Python's.
        name = command.__name__.strip("_").replace("_", "-")
        app.command(name, rich_help_panel=panel)(command if command in _ANYWHERE else _in_installation(command))


def main() -> None:
    """Run `ris`; an error of ours becomes one sentence and an exit code: 2 for bad input, 1 for the rest."""
    try:
        app()
    except RisError as error:
        print(f"ris: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"ris: {error.filename} can't be read or written ({error.strerror}).", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
