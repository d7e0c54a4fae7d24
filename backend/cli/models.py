"""`ris segment`, `models`, `fetch` and `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.cli.options import JsonOption, ModelOption


def segment(
    photo: Annotated[Path, typer.Argument(help="A photo.")],
    prompts: Annotated[list[str], typer.Argument(help='What to find: "the cat" "the cup".')],
    out: Annotated[Optional[Path], typer.Option(help="Folder for the pictures.", show_default="PHOTO-masks")] = None,
    model: ModelOption = None,
    json: JsonOption = False,
) -> None:
    """Find things in a photo: masks, an overlay picture and a table."""
    from backend.cli import old_models as models

    models.segment_photo(photo, prompts, out, model, json)


def models(json: JsonOption = False) -> None:
    """List the models, their encoders and the weights at hand."""
    from backend.cli import old_models as models

    models.list_models(json)


def fetch(
    name: Annotated[str, typer.Argument(help="An encoder, see `ris models`.")],
    file: Annotated[
        Optional[Path],
        typer.Option(help="The downloaded file, or a folder of the hub's files.", show_default="download"),
    ] = None,
) -> None:
    """Fetch an encoder's published weights, check them and keep them."""
    from backend.cli import old_models as models

    models.fetch_encoder(name, file)


def convert(
    kind: Annotated[str, typer.Argument(help="ccp (Clothing Co-Parsing) or coco (COCO's instances).")],
    source: Annotated[Path, typer.Argument(help="The dataset as it was downloaded.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    mosaics: Annotated[int, typer.Option(min=0, help="Pictures to add, each of two training photos (coco).")] = 0,
) -> None:
    """Turn a public dataset into a dataset folder: names, expressions derived from masks and pixels, absent things."""
    from backend.cli import old_models as models

    models.convert(kind, source, out, mosaics)
