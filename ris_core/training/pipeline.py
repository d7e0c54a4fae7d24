"""From datasets to a checkpoint with its card: train, fix the operating point, measure what is held out, write.

Nothing of it prints: who calls hears how far it is, and gets the folder that was written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from ris_core import checkpoint, checkpoint_files, segmenters
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data.datasets import Datasets
from ris_core.data.readers.registry import dataset_name, held_out_splits
from ris_core.errors import InputError
from ris_core.evaluation.convention import ACCEPTED
from ris_core.evaluation.evaluate import Report, calibrate, evaluate, fit_refinement
from ris_core.evaluation.interactive import evaluate_clicks
from ris_core.evaluation.metrics import Figures
from ris_core.inference.predictor import Predictor
from ris_core.inference.segmenter import Segmenter
from ris_core.models.base import RISModel
from ris_core.training.design import begin
from ris_core.training.interactive import InteractiveCourse
from ris_core.training.loop import train, train_course
from ris_core.training.model_card import Reports, clicks_card, mean_card, refit_card, write_card
from ris_core.training.preview import preview_samples, validate
from ris_core.training.processes import is_first, join_processes
from ris_core.training.recipe import Design, Recipe
from ris_core.training.soup import average, check_several
from ris_core.tuning import Tuning


class OnStage(Protocol):
    """Hears the stage that the work is in, how much of it is done, of how much, and what else is worth a look."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


def train_checkpoint(
    datasets: Datasets,
    folder: Path,
    run: Path,
    start: Design | Path,
    tuning: Tuning,
    recipe: Recipe,
    on_progress: OnStage,
    accepted: float = ACCEPTED,
    watched: bool = True,
) -> Path | None:
    """Train a design from scratch, or a checkpoint further, on the datasets' training splits -> its folder.

    The operating point is fixed on `val`; the card reports every split but `train`. Of several processes that train
    together, the first does so, and the others return None.

    Args:
        run: folder of the run's state; a run that died goes on.
        accepted: as in `evaluate.calibrate`.
        watched: whether a few photos of `val` are answered after each pass, for the run's figures and overlays.

    Raises InputError if `folder` isn't free, and as `design.begin` and `loop.train` do.
    """
    check_free(folder)
    torch.manual_seed(recipe.seed)
    model = begin(start, tuning)
    train(
        model,
        datasets.training,
        recipe,
        run,
        lambda progress: on_progress("Training", progress.step, progress.steps, f"loss {progress.loss:.3f}"),
        partial(validate, model, preview_samples(datasets.validation), recipe.side) if watched else None,
    )
    if not is_first():
        return None
    predictor = Predictor(model, OperatingPoint(side=recipe.side), "candidate")
    reports = settle(predictor, datasets, accepted, on_progress)
    origin = start if isinstance(start, Path) else None
    card = write_card(model, predictor.point, recipe, list(datasets.samples), reports, origin, accepted)
    return _write(model, predictor.point, folder, card)


def train_clicks_checkpoint(
    model: str | None,
    datasets: Datasets,
    folder: Path,
    run: Path,
    recipe: Recipe,
    on_progress: OnStage,
    often: Mapping[Path, float] | None = None,
) -> Path | None:
    """Train the interactive decoder of a checkpoint, all else of it unchanged -> the folder of the new one.

    often: how often the photos of a dataset's folder are shown next to the others. [1]

    The card reports every split but `train`. `run` as for `train_checkpoint`; of several processes the first measures
    and writes. Raises InputError if `folder` isn't free, CheckpointError if `model` is none, and as `loop.train` does.
    """
    check_free(folder)
    source, processes = checkpoint_files.find_trainable(model), join_processes()
    torch.manual_seed(recipe.seed)
    trained, point = checkpoint.load(source, merged=True)
    shares = often or {}

    def wanted(photo: Path) -> float:
        return next((share for dataset, share in shares.items() if dataset in photo.parents), 1.0)

    course = InteractiveCourse(trained, datasets.training, recipe, processes, wanted if shares else None)
    train_course(
        trained,
        course,
        recipe,
        run,
        processes,
        lambda progress: on_progress("Training", progress.step, progress.steps, f"loss {progress.loss:.3f}"),
    )
    if not is_first():
        return None
    predictor, reports = Predictor(trained, point, "candidate"), dict[tuple[str, ...], Figures]()
    named = [sample for sample in datasets.validation if sample.kind == "name"]
    predictor.point = replace(point, refinement=fit_refinement(predictor, named))
    for dataset, samples in datasets.samples.items():
        for split in held_out_splits(samples):
            chosen = [sample for sample in samples if sample.split == split and sample.has_target]
            photos = len({sample.image for sample in chosen})
            heard = partial(on_progress, f"Clicking on {dataset_name(dataset)} {split}", total=photos)
            if chosen:
                reports[dataset_name(dataset), split] = evaluate_clicks(predictor, chosen, heard).figures
    card = clicks_card(source, recipe, list(datasets.samples), reports, shares)
    return _write(trained, predictor.point, folder, card)


def calibrate_checkpoint(
    model: str | None, datasets: Datasets, folder: Path, accepted: float | None, on_progress: OnStage
) -> Path:
    """Fix the operating point of a checkpoint anew and write the same weights with it to `folder`, which is returned.

    Raises InputError if `folder` isn't free, CheckpointError if `model` is none, and as `evaluate.calibrate` does.
    """
    check_free(folder)
    source, predictor = segmenters.find(model), segmenters.load(model)
    reports = settle(predictor, datasets, accepted, on_progress)
    words = [f"--model {predictor.version}", *(f"--dataset {dataset_name(name)}" for name in datasets.samples)]
    rule = "--balance" if accepted is None else f"--accepted {accepted}"
    command = " ".join(["ris calibrate", *words, rule])
    card = refit_card((source / checkpoint_files.CARD).read_text(encoding="utf-8"), predictor.point, reports, command)
    if folder.is_dir():
        folder.rmdir()
    # Not the predictor's model: that may have borrowed what the checkpoint lacks.
    checkpoint_files.with_point(source, predictor.point, folder, card)
    return folder


def average_checkpoints(models: Sequence[str], folder: Path) -> Path:
    """Write the mean of checkpoints to `folder`, which is returned. Raises InputError, and as `soup.average`."""
    check_free(folder)
    check_several(models)
    folders = [checkpoint_files.find_trainable(model) for model in models]
    return _write(*average(folders), folder, mean_card(folders))


def settle(predictor: Segmenter, datasets: Datasets, accepted: float | None, on_progress: OnStage) -> Reports:
    """Fix the predictor's operating point on the `val` splits -> how it does on all that is held out."""
    held_out = datasets.validation
    heard = partial(on_progress, "Fixing the operating point", total=len(held_out))
    predictor.point = calibrate(predictor, held_out, accepted, heard, datasets.names)
    reports: dict[tuple[str, str], Report] = {}
    for dataset, samples in datasets.samples.items():
        name = dataset_name(dataset)
        for split in held_out_splits(samples):
            chosen = [sample for sample in samples if sample.split == split]
            heard = partial(on_progress, f"Measuring {name} {split}", total=len(chosen))
            reports[name, split] = evaluate(predictor, chosen, heard)
    return reports


def check_free(folder: Path) -> None:
    """Raise an InputError if a checkpoint can't be written to `folder`."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} isn't empty. Checkpoints are never overwritten: choose another folder.")


def _write(model: RISModel, point: OperatingPoint, folder: Path, card: str) -> Path:
    if folder.is_dir():
        folder.rmdir()
    checkpoint.save(model, point, folder, card)
    return folder
