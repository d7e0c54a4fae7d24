"""`ris`: the commands. Each is a thin door to a service; heavy modules are imported when a command needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ris_core.errors import InputError, RisError

app = typer.Typer(
    name="ris",
    help="Type a sentence, get the mask, correct it, and the model learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Model = Annotated[Optional[Path], typer.Option(help="Folder of a checkpoint. [default: the shipped model]")]

WITHOUT = "On the command line"
LOOP = "In Label Studio"
MODELS = "Models and data"


@app.command(rich_help_panel=WITHOUT)
def segment(
    photo: Annotated[Path, typer.Argument(help="A photo.")],
    prompts: Annotated[list[str], typer.Argument(help='What to find: "the cat" "the cup".')],
    out: Annotated[Optional[Path], typer.Option(help="Folder for the pictures. [default: PHOTO-masks]")] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Find things in a photo: masks, an overlay picture and a table."""
    from backend import commands

    commands.segment_photo(photo, prompts, out, model, json)


@app.command(rich_help_panel=MODELS)
def models(json: Json = False) -> None:
    """List the models, their encoders and the weights at hand."""
    from backend import commands

    commands.list_models(json)


@app.command(rich_help_panel=MODELS)
def evaluate(
    dataset: Annotated[Path, typer.Option(help="A folder with images/, instances.json and refs.json.")],
    split: Annotated[Optional[str], typer.Option(help="Only refs of this split. [default: all]")] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Measure a model on a dataset folder, at full resolution."""
    from backend import commands

    commands.evaluate_folder(dataset, split, model, json)


@app.command(rich_help_panel=MODELS)
def train(
    dataset: Annotated[list[Path], typer.Option(help="A dataset folder; give it again for more.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
    run: Annotated[Path, typer.Option(help="Folder for the run's state; a run that died goes on.")] = Path(
        "runs/train"
    ),
    start: Annotated[Optional[Path], typer.Option("--from", help="Checkpoint to start from. [default: none]")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the photos.")] = 16,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same weights.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read photos ahead.")] = 1,
) -> None:
    """Train on dataset folders; the operating point is fixed on their validation splits."""
    from backend import commands
    from ris_core.training import Recipe

    commands.train_model(dataset, out, run, start, Recipe(epochs=epochs, seed=seed, workers=workers))


@app.command(rich_help_panel=MODELS)
def convert(
    kind: Annotated[str, typer.Argument(help="ccp (Clothing Co-Parsing) or coco (COCO with class names).")],
    source: Annotated[Path, typer.Argument(help="The dataset as it was downloaded.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
) -> None:
    """Turn a public dataset into a dataset folder."""
    from backend import commands

    commands.convert(kind, source, out)


def main() -> None:
    """Run `ris`; an error of ours becomes one sentence and an exit code: 2 for bad input, 1 for the rest."""
    try:
        app()
    except RisError as error:
        print(f"ris: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
