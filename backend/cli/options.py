"""What commands of several areas share: arguments, options, and Label Studio's client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from backend.labelstudio.client import LabelStudio
    from backend.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ProjectOption = Annotated[int, typer.Option(help="Number of the project in Label Studio, as in its address.")]
BatchArgument = Annotated[str, typer.Argument(help="A batch's id, see `ris jobs`.")]
VersionArgument = Annotated[str, typer.Argument(help="A version's name, see `ris versions`.")]
ModelOption = Annotated[
    Optional[str], typer.Option(help="Folder of a checkpoint, or a model's name.", show_default="the shipped one")
]


@contextmanager
def label_studio(project: int | None = None) -> Iterator[tuple[Settings, LabelStudio]]:
    """The settings, those of a project if one is named, and Label Studio as its token sees it."""
    from backend.labelstudio.client import LabelStudio
    from backend.settings import load

    settings = load(project)
    with LabelStudio.from_settings(settings) as client:
        yield settings, client
