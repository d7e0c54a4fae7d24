"""`ris evaluate`, `calibrate` and `average`: figures, operating points, and the checkpoints that come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from backend.cli.datasets import read_datasets, read_samples
from backend.cli.options import DATASET, MORE_DATASETS, AcceptedOption, JsonOption, ModelOption, OutOption
from backend.terminal import bar, bars, out, say
from ris_core.evaluation.convention import ACCEPTED, Convention

if TYPE_CHECKING:
    from ris_core.evaluation.evaluate import Report


def evaluate(
    dataset: Annotated[Path, typer.Option(help=DATASET)],
    split: Annotated[Optional[str], typer.Option(help="Only this split, such as test.", show_default="all")] = None,
    model: ModelOption = None,
    convention: Annotated[
        Convention,
        typer.Option(
            help="original: at the photos' own size; lavt: in a square, with thresholds of 0.5, as LAVT counts."
        ),
    ] = "original",
    pictures: Annotated[Optional[Path], typer.Option(help="Folder for pictures of good and bad answers.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Read each photo mirrored too, and average.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a dataset."""
    from ris_core.data.readers.registry import dataset_name
    from ris_core.evaluation.contact_sheet import write_pictures
    from ris_core.evaluation.evaluate import evaluate
    from ris_core.inference.flip import FlipPredictor
    from ris_core.inference.predictor import Predictor

    samples = read_samples(dataset, split)
    predictor = (FlipPredictor if flip else Predictor).load(model)
    with bar("Evaluating", len(samples)) as on_progress:
        report = evaluate(predictor, samples, on_progress, convention)
    if pictures:
        write_pictures(pictures, predictor, report, convention)
    if as_json:
        conditions = {"model_version": predictor.version, "convention": convention, "flip": flip}
        print(json.dumps({**conditions, **_all_figures(report), "kinds": report.kinds}))
        return
    how = f"{convention}, photos also mirrored" if flip else convention
    _print_figures(report, f"{predictor.version} on {dataset_name(dataset)}, {how}")


def calibrate(
    dataset: Annotated[list[Path], typer.Option(help=MORE_DATASETS)],
    folder: OutOption,
    model: ModelOption = None,
    accepted: AcceptedOption = ACCEPTED,
    balance: Annotated[
        bool, typer.Option("--balance", help="Answer as large a share of the targets as is refused of what is absent.")
    ] = False,
) -> None:
    """Choose anew, on validation splits, from which probability a thing is there and a pixel is its own."""
    from ris_core.training.pipeline import calibrate_checkpoint, check_free

    # Before datasets are read, which may take minutes.
    check_free(folder)
    datasets = read_datasets(dataset)
    with bars() as on_progress:
        calibrate_checkpoint(model, datasets, folder, None if balance else accepted, on_progress)
    say_checkpoint(folder)


def average(
    models: Annotated[list[str], typer.Argument(help="Folders of checkpoints made alike, two or more.")],
    folder: OutOption,
) -> None:
    """Average the weights of checkpoints that were trained from one start."""
    from ris_core.training.pipeline import average_checkpoints

    say_checkpoint(average_checkpoints(models, folder))


def say_checkpoint(folder: Path) -> None:
    """Print which version is in a folder that was just written."""
    from ris_core.checkpoint_files import CARD, version

    say(f"{version(folder)} is in {folder}, described in {folder / CARD}.")


def _print_figures(report: Report, title: str) -> None:
    from ris_core.training.model_card import BRIEF

    table = Table("figure", "value", title=title)
    for name, value in _all_figures(report).items():
        table.add_row(name, _cell(value))
    out.print(table)
    if len(report.kinds) > 1:
        table = Table("kind", *BRIEF, title="by kind of expression")
        for kind, figures in report.kinds.items():
            table.add_row(kind, *(_cell(figures.get(name)) for name in BRIEF))
        out.print(table)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _all_figures(report: Report) -> dict[str, float | int]:
    low, high = report.interval
    pace = 1000 * report.seconds / len(report.scores)
    return report.figures | {"mIoU-low": low, "mIoU-high": high, "ms-per-expression": pace}
