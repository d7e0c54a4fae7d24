"""What `ris evaluate` and `ris calibrate` do, and what `ris train` ends with: figures, operating point, checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from backend.console import bar, out
from backend.reading import Data, read_all, read_samples
from ris_core import checkpoint
from ris_core.card import Figures, refit_card
from ris_core.data import Sample
from ris_core.data.readers import dataset_name, held_out_splits
from ris_core.errors import InputError
from ris_core.evaluation import Convention, Report, calibrate, evaluate
from ris_core.pictures import write_pictures
from ris_core.predictor import Predictor


def evaluate_folder(
    dataset: Path, split: str | None, model: str | None, convention: Convention, pictures: Path | None, as_json: bool
) -> None:
    """Print the figures of a model on a dataset, and draw pictures if there is a folder for them."""
    samples = read_samples(dataset, split)
    predictor = Predictor.load(model)
    with bar("Evaluating", len(samples)) as tell:
        report = evaluate(predictor, samples, tell, convention)
    if pictures:
        write_pictures(pictures, predictor, report, convention)
    figures = _all_figures(report)
    if as_json:
        print(json.dumps({"model_version": predictor.version, "convention": convention, **figures}))
        return
    table = Table("figure", "value", title=f"{predictor.version} on {dataset_name(dataset)}, {convention}")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    out.print(table)


def calibrate_model(model: str | None, datasets: Sequence[Path], folder: Path, accepted: float) -> None:
    """Fix the operating point of a checkpoint anew and write the same weights with it to `folder`."""
    check_free(folder)
    data = read_all(datasets)
    source, predictor = checkpoint.find(model), Predictor.load(model)
    figures = settle(predictor, data, accepted)
    words = [f"--model {predictor.version}", *(f"--dataset {dataset_name(dataset)}" for dataset in datasets)]
    command = " ".join(["ris calibrate", *words, f"--accepted {accepted}"])
    card = refit_card((source / checkpoint.CARD).read_text(encoding="utf-8"), predictor.point, figures, command)
    keep(predictor, folder, card)


def check_free(folder: Path) -> None:
    """Raise an InputError if a checkpoint can't be written to `folder`."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} isn't empty. Checkpoints are never overwritten: choose another folder.")


def settle(predictor: Predictor, data: Data, accepted: float) -> dict[tuple[str, str], Figures]:
    """Fix the predictor's operating point on the `val` splits -> figures on all held out, by (dataset, split)."""
    held_out = [sample for samples in data.values() for sample in _split(samples, "val")]
    with bar("Fixing the operating point", len(held_out)) as tell:
        predictor.point = calibrate(predictor, held_out, accepted, tell)
    figures: dict[tuple[str, str], Figures] = {}
    for dataset, samples in data.items():
        name = dataset_name(dataset)
        for split in held_out_splits(samples):
            chosen = _split(samples, split)
            with bar(f"Measuring {name} {split}", len(chosen)) as tell:
                figures[name, split] = evaluate(predictor, chosen, tell).figures
    return figures


def keep(predictor: Predictor, folder: Path, card: str) -> None:
    """Write a checkpoint to `folder` and say so."""
    if folder.is_dir():
        folder.rmdir()
    checkpoint.save(predictor.model, predictor.point, folder, card)
    out.print(f"{checkpoint.version(folder)} is in {folder}; its figures are in {folder / checkpoint.CARD}.")


def _all_figures(report: Report) -> Figures:
    low, high = report.interval
    pace = 1000 * report.seconds / len(report.scores)
    return report.figures | {"mIoU-low": low, "mIoU-high": high, "ms-per-expression": pace}


def _split(samples: Sequence[Sample], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]
