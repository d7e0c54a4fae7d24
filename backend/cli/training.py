"""`ris train`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.cli.datasets import read_datasets
from backend.cli.evaluation import say_checkpoint
from backend.cli.options import MORE_DATASETS, AcceptedOption, OutOption
from backend.terminal import bars, err, out
from ris_core.evaluation.convention import ACCEPTED
from ris_core.training.recipe import Design, Recipe, TrainingPrecision
from ris_core.tuning import TunedEncoders, Tuning


def _as_start(usual: object) -> str:
    """Of what isn't given, and so has no value of its own."""
    return f"as in --from, else {usual}"


RunOption = Annotated[Path, typer.Option(help="Folder for the run's state; a run that died goes on.")]
ModelOption = Annotated[str, typer.Option(help="lda, vipa, maris or haris; see `ris models`.")]
EncoderOption = Annotated[str, typer.Option(help="See `ris models`.")]
SwitchOption = Annotated[
    Optional[list[str]], typer.Option(help="A switch of the model, NAME=VALUE; `ris models --json` lists them.")
]
StartOption = Annotated[
    Optional[Path], typer.Option("--from", help="Checkpoint to train further, instead of --model from scratch.")
]
EncodersOption = Annotated[
    Optional[TunedEncoders],
    typer.Option(help="What is trained of the encoders.", show_default=_as_start(Tuning.encoders)),
]
StagesOption = Annotated[
    Optional[int],
    typer.Option(
        min=1, help="Last stages of the image encoder that get adapters.", show_default=_as_start(Tuning.stages)
    ),
]
TextStagesOption = Annotated[
    Optional[int],
    typer.Option(
        min=0, help="The same of the text encoder; 0 leaves it frozen.", show_default=_as_start(Tuning.text_stages)
    ),
]
RankOption = Annotated[
    Optional[int], typer.Option(min=1, help="Rank of the adapters.", show_default=_as_start(Tuning.rank))
]
EpochsOption = Annotated[int, typer.Option(min=1, help="Passes over the photos.")]
PhotosOption = Annotated[int, typer.Option(min=1, help="Photos of a batch.")]
PresentOption = Annotated[int, typer.Option(min=1, help="Expressions asked of a photo in each pass, of what is there.")]
AbsentOption = Annotated[int, typer.Option(min=0, help="Expressions asked of a photo in each pass, of what isn't.")]
LearningRateOption = Annotated[float, typer.Option(min=0, help="Learning rate at its highest.")]
SideOption = Annotated[int, typer.Option(min=96, help="Longer side of a photo in pixels, a multiple of 96.")]
ViewsOption = Annotated[
    int,
    typer.Option(min=0, help="Fixed views of each photo, encoded once: quicker, less varied. 0: a new view each time."),
]
PasteOption = Annotated[
    float, typer.Option(min=0, max=1, help="Chance that a thing of another photo is laid over a photo.")
]
PrecisionOption = Annotated[TrainingPrecision, typer.Option(help="Of the passes through the model; half is for GPUs.")]
AccumulateOption = Annotated[int, typer.Option(min=1, help="Batches whose gradients make one step.")]
ValidateOption = Annotated[
    bool, typer.Option(help="After each pass, figures and overlays of a few validation photos, into the run.")
]
SeedOption = Annotated[int, typer.Option(help="Same seed, same machine: same weights.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that read photos ahead.")]


def train(
    dataset: Annotated[list[Path], typer.Option(help=MORE_DATASETS)],
    folder: OutOption,
    run: RunOption = Path("runs/train"),
    model: ModelOption = Design.model,
    image_encoder: EncoderOption = Design.image_encoder,
    text_encoder: EncoderOption = Design.text_encoder,
    option: SwitchOption = None,
    start: StartOption = None,
    encoders: EncodersOption = None,
    stages: StagesOption = None,
    text_stages: TextStagesOption = None,
    rank: RankOption = None,
    epochs: EpochsOption = Recipe.epochs,
    photos: PhotosOption = Recipe.photos,
    present: PresentOption = Recipe.present,
    absent: AbsentOption = Recipe.absent,
    rate: LearningRateOption = Recipe.rate,
    side: SideOption = Recipe.side,
    views: ViewsOption = Recipe.views,
    paste: PasteOption = Recipe.paste,
    precision: PrecisionOption = Recipe.precision,
    accumulate: AccumulateOption = Recipe.accumulate,
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
        say_checkpoint(written)
