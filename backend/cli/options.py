"""Arguments and options that commands of several areas share."""

from pathlib import Path
from typing import Annotated, Optional

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ProjectOption = Annotated[int, typer.Option(help="Number of the project in Label Studio, as in its address.")]
BatchArgument = Annotated[str, typer.Argument(help="A batch's id, see `ris jobs`.")]
VersionArgument = Annotated[str, typer.Argument(help="A version's name, see `ris versions`.")]
ModelOption = Annotated[
    Optional[str], typer.Option(help="Folder of a checkpoint, or a model's name.", show_default="the shipped one")
]
AcceptedOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the targets that are to be answered, and not refused.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for the checkpoint; it must not exist.")]

DATASET = "A folder with images/, instances.json and refs.json, or KIND:FOLDER, such as phrasecut:/data."
MORE_DATASETS = f"{DATASET} Give it again for more."
