"""What `ris evaluate`, `calibrate` and `average` do, and what `ris train` ends with: figures, operating point, card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from backend.cli.datasets import Data, read_all, read_samples
from backend.terminal import bar, out
from ris_core import checkpoint
from ris_core.data import Sample
from ris_core.data.readers.registry import dataset_name, held_out_splits
from ris_core.errors import InputError
from ris_core.evaluation.contact_sheet import write_pictures
from ris_core.evaluation.evaluate import Convention, Report, calibrate, evaluate
from ris_core.inference.flip import FlipPredictor
from ris_core.inference.predictor import Predictor
from ris_core.models import RISModel
from ris_core.training.model_card import BRIEF, Figures, Reports, mean_card, refit_card
from ris_core.training.soup import average


def evaluate_folder(
    dataset: Path,
    split: str | None,
    model: str | None,
    convention: Convention,
    pictures: Path | None,
    as_json: bool,
    flip: bool = False,
) -> None:
    """Print the figures of a model on a dataset, and draw pictures if there is a folder for them."""
    samples = read_samples(dataset, split)
    predictor = (FlipPredictor if flip else Predictor).load(model)
    with bar("Evaluating", len(samples)) as tell:
        report = evaluate(predictor, samples, tell, convention)
    if pictures:
        write_pictures(pictures, predictor, report, convention)
    if as_json:
        asked = {"model_version": predictor.version, "convention": convention, "flip": flip}
        print(json.dumps({**asked, **_all_figures(report), "kinds": report.kinds}))
        return
    how = f"{convention}, photos also mirrored" if flip else convention
    _print_figures(report, f"{predictor.version} on {dataset_name(dataset)}, {how}")


def calibrate_model(model: str | None, datasets: Sequence[Path], folder: Path, accepted: float | None) -> None:
    """Fix the operating point of a checkpoint anew and write the same weights with it to `folder`.

    Args:
        accepted: as in `evaluation.calibrate`.
    """
    check_free(folder)
    data = read_all(datasets)
    source, predictor = checkpoint.find(model), Predictor.load(model)
    reports = settle(predictor, data, accepted)
    words = [f"--model {predictor.version}", *(f"--dataset {dataset_name(dataset)}" for dataset in datasets)]
    rule = "--balance" if accepted is None else f"--accepted {accepted}"
    command = " ".join(["ris calibrate", *words, rule])
    card = refit_card((source / checkpoint.CARD).read_text(encoding="utf-8"), predictor.point, reports, command)
    keep(predictor.model, predictor.point, folder, card)


def average_models(models: Sequence[str], folder: Path) -> None:
    """Write the mean of checkpoints to `folder`."""
    check_free(folder)
    folders = [checkpoint.find(model) for model in models]
    keep(*average(folders), folder, mean_card(folders))


def check_free(folder: Path) -> None:
    """Raise an InputError if a checkpoint can't be written to `folder`."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} isn't empty. Checkpoints are never overwritten: choose another folder.")


def validation_samples(data: Data) -> list[Sample]:
    """The `val` splits of all datasets."""
    return [sample for samples in data.values() for sample in _split(samples, "val")]


def settle(predictor: Predictor, data: Data, accepted: float | None) -> Reports:
    """Fix the predictor's operating point on the `val` splits -> how it does on all held out."""
    held_out = validation_samples(data)
    with bar("Fixing the operating point", len(held_out)) as tell:
        predictor.point = calibrate(predictor, held_out, accepted, tell)
    reports: dict[tuple[str, str], Report] = {}
    for dataset, samples in data.items():
        name = dataset_name(dataset)
        for split in held_out_splits(samples):
            chosen = _split(samples, split)
            with bar(f"Measuring {name} {split}", len(chosen)) as tell:
                reports[name, split] = evaluate(predictor, chosen, tell)
    return reports


def keep(model: RISModel, point: checkpoint.OperatingPoint, folder: Path, card: str) -> None:
    """Write a checkpoint to `folder` and say so."""
    if folder.is_dir():
        folder.rmdir()
    checkpoint.save(model, point, folder, card)
    out.print(f"{checkpoint.version(folder)} is in {folder}, described in {folder / checkpoint.CARD}.")


def _print_figures(report: Report, title: str) -> None:
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


def _all_figures(report: Report) -> Figures:
    low, high = report.interval
    pace = 1000 * report.seconds / len(report.scores)
    return report.figures | {"mIoU-low": low, "mIoU-high": high, "ms-per-expression": pace}


def _split(samples: Sequence[Sample], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]
