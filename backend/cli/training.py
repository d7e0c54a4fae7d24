"""`ris train`, `evaluate`, `calibrate` and `average`: checkpoints that are made from datasets, and measured on them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from backend.cli.options import JsonOption, ModelOption
from backend.terminal import bar, bars, err, out, say
from ris_core.errors import InputError
from ris_core.evaluation.convention import ACCEPTED, Convention
from ris_core.training.recipe import Design, Recipe, TrainingPrecision
from ris_core.tuning import TunedEncoders, Tuning

if TYPE_CHECKING:
    from ris_core.data import Sample
    from ris_core.data.datasets import Datasets
    from ris_core.evaluation.evaluate import Report
    from ris_core.inference.segmenter import Segmenter


def _of_start(usual: object, help: str, least: int | None = None) -> Any:
    """An option that has no value of its own where it isn't given."""
    return typer.Option(help=help, min=least, show_default=f"as in --from, else {usual}")


DATASET = "A folder with images/, instances.json and refs.json, or KIND:FOLDER, such as phrasecut:/data."
DatasetsOption = Annotated[list[Path], typer.Option(help=f"{DATASET} Give it again for more.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for the checkpoint; it must not exist.")]
AcceptedOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the targets that are to be answered, and not refused.")
]
EncoderOption = Annotated[str, typer.Option(help="See `ris models`.")]
SwitchOption = Annotated[
    Optional[list[str]], typer.Option(help="A switch of the model, NAME=VALUE; `ris models --json` lists them.")
]
StartOption = Annotated[
    Optional[Path], typer.Option("--from", help="Checkpoint to train further, instead of --model from scratch.")
]
EncodersOption = Annotated[Optional[TunedEncoders], _of_start(Tuning.encoders, "What is trained of the encoders.")]
StagesOption = Annotated[
    Optional[int], _of_start(Tuning.stages, "Last stages of the image encoder that get adapters.", 1)
]
TextStagesOption = Annotated[
    Optional[int], _of_start(Tuning.text_stages, "The same of the text encoder; 0 leaves it frozen, with full too.", 0)
]
RunOption = Annotated[Path, typer.Option(help="Folder for the run's state; a run that died goes on.")]
EpochsOption = Annotated[int, typer.Option(min=1, help="Passes over the photos.")]
PhotosOption = Annotated[int, typer.Option(min=1, help="Photos of a batch.")]
RateOption = Annotated[float, typer.Option(min=0, help="Learning rate at its highest.")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same machine: same weights.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that read photos ahead.")]
PresentOption = Annotated[int, typer.Option(min=1, help="Expressions asked of a photo in each pass, of what is there.")]
AbsentOption = Annotated[int, typer.Option(min=0, help="Expressions asked of a photo in each pass, of what isn't.")]
SideOption = Annotated[int, typer.Option(min=96, help="Longer side of a photo in pixels, a multiple of 96.")]
ViewsOption = Annotated[
    int,
    typer.Option(min=0, help="Fixed views of each photo, encoded once: quicker, less varied. 0: a new view each time."),
]
PasteOption = Annotated[
    float, typer.Option(min=0, max=1, help="Chance that a thing of another photo is laid over a photo.")
]
PrecisionOption = Annotated[TrainingPrecision, typer.Option(help="Of the passes through the model; half is for GPUs.")]
ValidateOption = Annotated[
    bool, typer.Option(help="After each pass, figures and overlays of a few validation photos, into the run.")
]


def train(
    dataset: DatasetsOption,
    folder: OutOption,
    run: RunOption = Path("runs/train"),
    model: Annotated[str, typer.Option(help="lda, vipa, maris or haris; see `ris models`.")] = Design.model,
    image_encoder: EncoderOption = Design.image_encoder,
    text_encoder: EncoderOption = Design.text_encoder,
    option: SwitchOption = None,
    start: StartOption = None,
    encoders: EncodersOption = None,
    stages: StagesOption = None,
    text_stages: TextStagesOption = None,
    rank: Annotated[Optional[int], _of_start(Tuning.rank, "Rank of the adapters.", 1)] = None,
    epochs: EpochsOption = Recipe.epochs,
    photos: PhotosOption = Recipe.photos,
    present: PresentOption = Recipe.present,
    absent: AbsentOption = Recipe.absent,
    rate: RateOption = Recipe.rate,
    side: SideOption = Recipe.side,
    views: ViewsOption = Recipe.views,
    paste: PasteOption = Recipe.paste,
    precision: PrecisionOption = Recipe.precision,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches whose gradients make one step.")] = Recipe.accumulate,
    validate: ValidateOption = True,
    seed: SeedOption = Recipe.seed,
    # Of a command; whoever calls `loop.train` from a program gets none.
    workers: WorkersOption = 1,
    accepted: AcceptedOption = ACCEPTED,
) -> None:
    """Train on datasets; from which probability a thing counts as there is fixed on their validation splits."""
    from ris_core.training.design import parse_options, tuning_of
    from ris_core.training.pipeline import check_free, train_checkpoint
    from ris_core.training.processes import is_first

    draw = (photos, present, absent, side, views)
    recipe = Recipe(
        epochs, *draw, rate, accumulate=accumulate, precision=precision, seed=seed, workers=workers, paste=paste
    )
    tuning = tuning_of(start, encoders=encoders, stages=stages, text_stages=text_stages, rank=rank)
    design = Design(model, image_encoder, text_encoder, parse_options(model, option or []))
    # Of several processes that train together, one speaks for all.
    out.quiet = err.quiet = not is_first()
    # Before datasets are read, which may take minutes.
    check_free(folder)
    datasets = read_datasets(dataset)
    if datasets.left_out:
        err.print(f"{datasets.left_out:,} expressions are left out: another split measures on their photos.")
    with bars() as on_progress:
        written = train_checkpoint(
            datasets, folder, run, start or design, tuning, recipe, on_progress, accepted, validate
        )
    if written:
        _say_checkpoint(written)


def train_clicks(
    dataset: DatasetsOption,
    folder: OutOption,
    model: ModelOption = None,
    run: RunOption = Path("runs/clicks"),
    epochs: EpochsOption = Recipe.epochs,
    photos: PhotosOption = 4,
    objects: Annotated[int, typer.Option(min=1, help="Objects asked for of a photo in each pass.")] = 4,
    often: Annotated[
        Optional[list[str]],
        typer.Option(metavar="DIR=NUMBER", help="How often a dataset's photos are shown; 1 is as often as others."),
    ] = None,
    rate: RateOption = Recipe.rate,
    side: SideOption = 288,
    precision: PrecisionOption = Recipe.precision,
    seed: SeedOption = Recipe.seed,
    workers: WorkersOption = 1,
) -> None:
    """Train what answers clicks and boxes, on single objects of datasets; what answers words stays as it is."""
    from ris_core.checkpoint_files import find_trainable
    from ris_core.training.pipeline import check_free, train_clicks_checkpoint
    from ris_core.training.processes import is_first

    recipe = Recipe(
        epochs,
        photos,
        objects,
        0,
        side,
        rate=rate,
        warm_up=60,
        average=0.996,
        precision=precision,
        seed=seed,
        workers=workers,
    )
    shares = dict(map(_share, often or []))
    if unknown := shares.keys() - set(dataset):
        raise InputError(f"--often {min(unknown)} is about no --dataset.")
    out.quiet = err.quiet = not is_first()
    # Before datasets are read, which may take minutes.
    check_free(folder)
    find_trainable(model)
    datasets = read_datasets(dataset)
    with bars() as on_progress:
        written = train_clicks_checkpoint(model, datasets, folder, run, recipe, on_progress, shares)
    if written:
        _say_checkpoint(written)


def _share(text: str) -> tuple[Path, float]:
    folder, _, number = text.rpartition("=")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not folder or not 0 <= share < math.inf:
        raise InputError(f"--often {text} isn't a dataset and a number from 0 on, such as --often photos=0.5.")
    return Path(folder), share


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
    clicks: Annotated[
        bool, typer.Option("--clicks", help="Measure single objects after clicks, and from boxes, instead of words.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a dataset."""
    from ris_core.data.readers.registry import dataset_name
    from ris_core.evaluation.contact_sheet import write_pictures
    from ris_core.evaluation.evaluate import evaluate

    samples = read_samples(dataset, split)
    predictor = _load(model, flip)
    if clicks:
        _evaluate_clicks(predictor, [sample for sample in samples if sample.has_target], dataset, as_json)
        return
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


def _load(model: str | None, flip: bool) -> Segmenter:
    from ris_core import checkpoint_files, segmenters
    from ris_core.inference.flip import FlipPredictor

    if not flip:
        return segmenters.load(model)
    if checkpoint_files.is_zero_shot(checkpoint_files.find(model)):
        raise InputError(f"--flip is for models of ours; {model} is a zero-shot segmenter. Leave it out.")
    return FlipPredictor.load(model)


def _evaluate_clicks(predictor: Segmenter, samples: Sequence[Sample], dataset: Path, as_json: bool) -> None:
    from ris_core.data.readers.registry import dataset_name
    from ris_core.evaluation.interactive import evaluate_clicks

    with bar("Clicking", len({sample.image for sample in samples})) as on_progress:
        figures = evaluate_clicks(predictor, samples, on_progress).figures
    if as_json:
        print(json.dumps({"model_version": predictor.version, **figures}))
        return
    table = Table("mean IoU after", "value", title=f"{predictor.version} on {dataset_name(dataset)}, single objects")
    for name, value in figures.items():
        table.add_row(name, _cell(value))
    out.print(table)


def calibrate(
    dataset: DatasetsOption,
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
    _say_checkpoint(folder)


def average(
    models: Annotated[list[str], typer.Argument(help="Folders of checkpoints made alike, two or more.")],
    folder: OutOption,
) -> None:
    """Average the weights of checkpoints that were trained from one start."""
    from ris_core.training.pipeline import average_checkpoints

    _say_checkpoint(average_checkpoints(models, folder))


def read_samples(dataset: Path, split: str | None) -> list[Sample]:
    """The samples of a dataset or of one split; says where there are more or fewer than were published."""
    from ris_core.data import datasets

    samples = datasets.read_samples(dataset, split)
    _say_differences(dataset, samples)
    return samples


def read_datasets(names: Sequence[Path]) -> Datasets:
    """Several datasets, whole; says the same of each."""
    from ris_core.data.datasets import Datasets

    datasets = Datasets.read(names)
    for name, samples in datasets.samples.items():
        _say_differences(name, samples)
    return datasets


def _say_differences(dataset: Path, samples: Sequence[Sample]) -> None:
    from ris_core.data.datasets import differences

    for difference in differences(dataset, samples):
        err.print(difference)


def _say_checkpoint(folder: Path) -> None:
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
