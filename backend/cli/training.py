"""`ris train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.cli.options import MORE_DATASETS, AcceptedOption


class Tuned(StrEnum):
    """What `ris train` may change of the encoders."""

    frozen = "frozen"
    adapters = "adapters"
    full = "full"


class Precision(StrEnum):
    """Of the passes through a model in training."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# Of `ris train`: what isn't given is as in --from, so none has a value of its own.
Encoders = Annotated[
    Optional[Tuned], typer.Option(help="What is trained of the encoders.", show_default="as in --from, else frozen")
]
Stages = Annotated[
    Optional[int],
    typer.Option(
        min=1, help="Last stages of the image encoder that get adapters.", show_default="as in --from, else 1"
    ),
]
TextStages = Annotated[
    Optional[int],
    typer.Option(min=0, help="The same of the text encoder; 0 leaves it frozen.", show_default="as in --from, else 1"),
]
Rank = Annotated[Optional[int], typer.Option(min=1, help="Rank of the adapters.", show_default="as in --from, else 8")]


def train(
    dataset: Annotated[list[Path], typer.Option(help=MORE_DATASETS)],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
    run: Annotated[Path, typer.Option(help="Folder for the run's state; a run that died goes on.")] = Path(
        "runs/train"
    ),
    model: Annotated[str, typer.Option(help="lda, vipa, maris or haris; see `ris models`.")] = "lda",
    image_encoder: Annotated[str, typer.Option(help="See `ris models`.")] = "efficientnet-lite2",
    text_encoder: Annotated[str, typer.Option(help="See `ris models`.")] = "minilm",
    option: Annotated[
        Optional[list[str]], typer.Option(help="A switch of the model, NAME=VALUE; `ris models --json` lists them.")
    ] = None,
    start: Annotated[
        Optional[Path], typer.Option("--from", help="Checkpoint to train further, instead of --model from scratch.")
    ] = None,
    encoders: Encoders = None,
    stages: Stages = None,
    text_stages: TextStages = None,
    rank: Rank = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the photos.")] = 10,
    photos: Annotated[int, typer.Option(min=1, help="Photos of a batch.")] = 8,
    present: Annotated[
        int, typer.Option(min=1, help="Expressions asked of a photo in each pass, of what is there.")
    ] = 2,
    absent: Annotated[int, typer.Option(min=0, help="Expressions asked of a photo in each pass, of what isn't.")] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate at its highest.")] = 1e-3,
    side: Annotated[int, typer.Option(min=96, help="Longer side of a photo in pixels, a multiple of 96.")] = 384,
    views: Annotated[
        int,
        typer.Option(
            min=0, help="Fixed views of each photo, encoded once: quicker, less varied. 0: a new view each time."
        ),
    ] = 0,
    paste: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that a thing of another photo is laid over a photo.")
    ] = 0.0,
    precision: Annotated[
        Precision, typer.Option(help="Of the passes through the model; half is for GPUs.")
    ] = Precision.float32,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches whose gradients make one step.")] = 1,
    validate: Annotated[
        bool, typer.Option(help="After each pass, figures and overlays of a few validation photos, into the run.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same weights.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read photos ahead.")] = 1,
    accepted: AcceptedOption = 0.95,
) -> None:
    """Train on datasets; from which probability a thing counts as there is fixed on their validation splits."""
    from backend.cli import old_models as models
    from ris_core.training.recipe import Recipe

    recipe = Recipe(
        epochs,
        photos,
        present,
        absent,
        side=side,
        views=views,
        rate=rate,
        accumulate=accumulate,
        precision=precision.value,
        seed=seed,
        workers=workers,
        paste=paste,
    )
    tuning = models.tuning_from(
        start, encoders=encoders and encoders.value, stages=stages, text_stages=text_stages, rank=rank
    )
    design = models.Design(model, image_encoder, text_encoder, models.parse_options(model, option or []))
    models.train_model(dataset, out, run, start or design, tuning, recipe, accepted, validate)
