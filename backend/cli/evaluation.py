"""`ris evaluate`, `calibrate` and `average`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.cli.options import DATASET, MORE_DATASETS, AcceptedOption, JsonOption, ModelOption


class Convention(StrEnum):
    """How `ris evaluate` compares pixels."""

    original = "original"
    lavt = "lavt"


def evaluate(
    dataset: Annotated[Path, typer.Option(help=DATASET)],
    split: Annotated[Optional[str], typer.Option(help="Only this split, such as test.", show_default="all")] = None,
    model: ModelOption = None,
    convention: Annotated[
        Convention,
        typer.Option(
            help="original: at the photos' own size; lavt: in a square, with thresholds of 0.5, as LAVT counts."
        ),
    ] = Convention.original,
    pictures: Annotated[Optional[Path], typer.Option(help="Folder for pictures of good and bad answers.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Read each photo mirrored too, and average.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure a model on a dataset."""
    from backend.cli import old_evaluation as evaluation

    evaluation.evaluate_folder(dataset, split, model, convention.value, pictures, json, flip)


def calibrate(
    dataset: Annotated[list[Path], typer.Option(help=MORE_DATASETS)],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
    model: ModelOption = None,
    accepted: AcceptedOption = 0.95,
    balance: Annotated[
        bool, typer.Option("--balance", help="Answer as large a share of the targets as is refused of what is absent.")
    ] = False,
) -> None:
    """Choose anew, on validation splits, from which probability a thing is there and a pixel is its own."""
    from backend.cli import old_evaluation as evaluation

    evaluation.calibrate_model(model, dataset, out, None if balance else accepted)


def average(
    models: Annotated[list[str], typer.Argument(help="Folders of checkpoints made alike, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
) -> None:
    """Average the weights of checkpoints that were trained from one start."""
    from backend.cli import old_evaluation as evaluation

    evaluation.average_models(models, out)
