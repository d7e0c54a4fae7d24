"""`python benchmarks/derived.py`: does a model choose, or paint all of a class? Figures against the latter.

Asked are the expressions that mean some things of a class and not all ("the left dog", "red bus") of the dataset folder
DATA. With one checkpoint in MODELS, those of the splits in SPLITS (default test), which it must not have been trained
on; with five, separated by blanks, all photos: the first model answers those of fold 0, see `splits.fold_of`, and was
trained on the others, and so on. Without MODELS the shipped one answers.

The baseline is the union of all that is labelled of the class, drawn by people. Intervals are over photos. Results are
appended to benchmarks/results/derived.json.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from record import keep, machine
from rich.console import Console
from rich.table import Table

from ris_core.data import Sample, fold_of, read_folder
from ris_core.evaluation.baseline import advantage, choices_of
from ris_core.evaluation.evaluate import evaluate
from ris_core.files import sha256
from ris_core.inference.predictor import Predictor

FOLDS = 5
# Of one expression: what it is counted under, its photo, the model's IoU and the baseline's.
Row = tuple[str, str, float, float]


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    folder, models = Path(os.environ["DATA"]), os.environ.get("MODELS", "").split()
    if len(models) not in {0, 1, FOLDS}:
        raise SystemExit(f"MODELS names {len(models)} checkpoints. Give one, or {FOLDS}, one for each fold.")
    pairs = [pair for pair in choices_of(folder, read_folder(folder)) if len(models) == FOLDS or _held_out(pair[0])]
    predictors = [Predictor.load(model) for model in models or [None]]
    figures = compare([row for rows in answer(predictors, pairs) for row in rows])
    show(figures)
    versions = [predictor.version for predictor in predictors]
    keep("derived", figures, models=versions, refs=sha256(folder / "refs.json"))


def answer(predictors: Sequence[Predictor], pairs: Sequence[tuple[Sample, float]]) -> Iterator[tuple[Row, ...]]:
    """Each expression's rows: under "all", its kind and its fold."""
    for number, predictor in enumerate(predictors):
        mine = [pair for pair in pairs if len(predictors) < FOLDS or _fold(pair[0]) == number]
        baseline = {id(sample): iou for sample, iou in mine}
        report = evaluate(predictor, [sample for sample, _ in mine])
        for sample, score in zip(report.samples, report.scores, strict=True):
            names = ("all", sample.kind, f"fold {_fold(sample)}")
            yield tuple((name, sample.image.name, score.iou, baseline[id(sample)]) for name in names)


def compare(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Figures by name."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[0]].append(row)
    figures = {}
    for name, group in sorted(groups.items()):
        _, photos, model, baseline = zip(*group, strict=True)
        figures[name] = {"expressions": len(group), "photos": len(set(photos))}
        figures[name] |= advantage(model, baseline, photos)._asdict()
    return figures


def show(figures: dict[str, dict[str, float]]) -> None:
    table = Table("", "expressions", "photos", "model mIoU", "baseline mIoU", "difference, 95 %", title=machine())
    for name, row in figures.items():
        cells = [f"{row['expressions']}", f"{row['photos']}", f"{row['model']:.3f}", f"{row['baseline']:.3f}"]
        table.add_row(name, *cells, f"{row['low']:+.3f} to {row['high']:+.3f}")
    Console().print(table)


def _held_out(sample: Sample) -> bool:
    return sample.split in os.environ.get("SPLITS", "test").split()


def _fold(sample: Sample) -> int:
    return fold_of(sample.image.name, FOLDS)


if __name__ == "__main__":
    main()
