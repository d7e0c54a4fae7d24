"""`ris`: all commands, in the order in which its help shows them, and what becomes of an error."""

import sys

import typer

from backend.cli import (
    acceptance,
    batches,
    evaluation,
    jobs,
    label_errors,
    learning,
    local,
    models,
    projects,
    training,
    versions,
)
from ris_core.errors import InputError, RisError

COMMANDS = {
    "On the command line": (models.segment,),
    "Models and data": (
        models.models,
        models.fetch,
        evaluation.evaluate,
        evaluation.calibrate,
        evaluation.average,
        training.train,
        models.convert,
    ),
    "In Label Studio": (
        local.up,
        local.demo,
        projects.connect,
        learning.finetune,
        acceptance.corrections,
        learning.export,
        local.doctor,
        label_errors.suspects,
        local.worker,
    ),
    "Pre-labelling": (
        projects.prompts,
        batches.prelabel,
        batches.refresh,
        batches.rank,
        jobs.jobs,
        batches.cancel,
        batches.resume,
        jobs.job,
    ),
    "Versions of the model": (versions.versions, versions.promote, versions.rollback, versions.compare, versions.prune),
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
