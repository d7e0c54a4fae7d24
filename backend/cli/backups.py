"""`ris backup` and `ris restore`: the home folder as one file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from backend.cli.options import JsonOption
from backend.home import home_folder
from backend.terminal import err, say
from ris_core.errors import InputError

if TYPE_CHECKING:
    from backend.local.backup import BackupReport

_MB = 1e6


def backup(
    file: Annotated[Path, typer.Argument(help="The tar to write; - is standard output.", show_default=False)],
    secrets: Annotated[bool, typer.Option("--secrets", help="Passwords and tokens of the settings as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Back up models, corrections' snapshots, settings and the Label Studio of `ris up`, while everything runs."""
    from backend.local.backup import STANDARD_STREAM, back_up

    report = back_up(home_folder(), file, secrets)
    text = json.dumps(asdict(report)) if as_json else "\n".join(_sentences(report))
    if file == STANDARD_STREAM:
        err.print(text, markup=False, soft_wrap=True)
    else:
        say(text)


def restore(
    file: Annotated[
        Optional[Path], typer.Argument(help="A tar of `ris backup`; - is standard input.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="What the home folder holds may go.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish a restore that was interrupted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the home folder what a back-up holds: all of it or nothing. Stop what runs on it before."""
    from backend.local import restore

    home = home_folder()
    if resume:
        restore.resume(home)
        say(f"The restore of {home.absolute()} is finished.")
        return
    if file is None:
        raise InputError("Name the back-up: `ris restore FILE`.")
    report = restore.restore(home, file, replace)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    say(f"{report.files} files of {report.made} are in {home.absolute()}, each as the back-up's manifest says.")
    if not report.secrets:
        say("The back-up has no secrets: `ris up` makes new ones. Then `ris connect --project N` for each project.")


def _sentences(report: BackupReport) -> Iterator[str]:
    yield (
        f"{report.file}: {report.bytes / _MB:.1f} MB, {report.versions} versions of the model, {report.snapshots} "
        f"snapshots, {report.pictures} pictures"
        f"{' and Label Studio with all annotations' if report.label_studio else ''}."
    )
    if not report.label_studio:
        yield (
            "Label Studio's own data isn't in it, since it lies elsewhere: `pg_dump` backs up its database, and its "
            "uploads are files (docs/deployment.md)."
        )
    if not report.secrets:
        yield "Passwords and tokens of the settings aren't in it: --secrets adds them."
