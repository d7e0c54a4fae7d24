"""`ris export --to`: a finished export goes elsewhere, from this machine and as its environment says.

A job's arguments never hold a path or an address: who can write to the queue could else write anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.terminal import bar

ToOption = Annotated[
    Optional[str],
    typer.Option(
        "--to", help="Then publish it: a folder, a .zip file, or either at s3://BUCKET/PREFIX, gs:// or az://."
    ),
]


def check_publishing(to: str | None) -> None:
    """Raise PublishError or DatasetError before the work is done, if its result can't go where it should."""
    if to:
        from backend.datasets.publish import check_destination

        check_destination(to)


def publish_export(folder: Path, to: str) -> str:
    """Publish a finished export with a progress bar -> where it is. Raises PublishError and DatasetError."""
    from backend.datasets.publish import publish

    with bar("publishing", None) as on_progress:
        return publish(folder, to, on_progress)
