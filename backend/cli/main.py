"""`ris`: all commands, in the order in which its help shows them, and what becomes of an error."""

import sys

import typer

from backend.cli.batches import cancel, prelabel, rank, refresh, resume
from backend.cli.corrections import corrections, suspects
from backend.cli.jobs import export, finetune, job, jobs
from backend.cli.local import demo, doctor, up, worker
from backend.cli.models import convert, fetch, models, segment
from backend.cli.projects import connect, prompts
from backend.cli.training import average, calibrate, evaluate, train
from backend.cli.versions import compare, promote, prune, rollback, versions
from ris_core.errors import InputError, RisError

COMMANDS = {
    "On the command line": (segment,),
    "Models and data": (models, fetch, evaluate, calibrate, average, train, convert),
    "In Label Studio": (up, demo, connect, finetune, corrections, export, doctor, suspects, worker),
    "Pre-labelling": (prompts, prelabel, refresh, rank, jobs, cancel, resume, job),
    "Versions of the model": (versions, promote, rollback, compare, prune),
}
"""The commands by panel. A module of this package holds those of one area, with what they print."""

app = typer.Typer(
    name="ris",
    help="Type a sentence, get the mask, correct it, and the model learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Run `ris`; an error of ours becomes one sentence and an exit code: 2 for bad input, 1 for the rest."""
    try:
        app()
    except RisError as error:
        print(f"ris: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
