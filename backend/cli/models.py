"""`ris segment`, `models`, `fetch` and `convert`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from backend.cli.options import JsonOption, ModelOption
from backend.terminal import bar, out, say
from ris_core.errors import InputError

if TYPE_CHECKING:
    from ris_core.encoders import EncoderCard
    from ris_core.inference.prediction import Prediction
    from ris_core.training.design import DesignCard
    from ris_core.zero_shot.describe import ZeroShotCard

# What has no words.
_POINTED = "pointed at"


def segment(
    photo: Annotated[Path, typer.Argument(help="A photo.")],
    prompts: Annotated[
        Optional[list[str]], typer.Argument(help='What to find: "the cat" "the cup".', show_default=False)
    ] = None,
    points: Annotated[
        Optional[list[str]],
        typer.Option("--point", metavar="X,Y", help="A pixel of the thing; several: again.", show_default=False),
    ] = None,
    beside: Annotated[
        Optional[list[str]],
        typer.Option("--not", metavar="X,Y", help="A pixel that isn't of it; several: again.", show_default=False),
    ] = None,
    box: Annotated[
        Optional[str],
        typer.Option(
            metavar="X,Y,X,Y", help="Left, top, right and bottom of the thing, in pixels.", show_default=False
        ),
    ] = None,
    folder: Annotated[
        Optional[Path], typer.Option("--out", help="Folder for the pictures.", show_default="PHOTO-masks")
    ] = None,
    model: ModelOption = None,
    instances: Annotated[bool, typer.Option("--instances", help="A mask for each thing that a prompt finds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find things in a photo, by words, by pointing, or by both: masks, an overlay picture and a table."""
    from backend.cli.places import read_prompts
    from ris_core import segmenters
    from ris_core.images import read_image, write_image
    from ris_core.inference.instances import one_each, tell_apart
    from ris_core.overlay import draw

    folder = folder or Path(f"{photo.stem}-masks")
    image = read_image(photo)
    asked = read_prompts(prompts or [], points or [], beside or [], box, (image.shape[0], image.shape[1]))
    _check_writable(folder)
    predictor = segmenters.load(model)
    prepared = predictor.embed(image)
    predictions = predictor.segment(prepared, asked)
    if instances:
        predictions = [one for answer in predictions for one in one_each(tell_apart(predictor, prepared, answer))]
    rows = [_write(folder, f"{photo.stem}.{number}", answer) for number, answer in enumerate(predictions, 1)]
    overlay = folder / f"{photo.stem}.overlay.png"
    present = [answer for answer in predictions if answer.present]
    named = [(f"{answer.prompt or _POINTED}  {answer.score:.2f}", answer.mask) for answer in present]
    write_image(overlay, draw(image, named))
    if as_json:
        print(json.dumps({"model_version": predictor.version, "overlay": str(overlay), "results": rows}))
        return
    out.print(_answers(rows))
    say(f"Overlay: {overlay}")


def _check_writable(folder: Path) -> None:
    """Before the model is loaded and asked: raise InputError if pictures can't be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder} can't be written ({error.strerror}). Choose another --out.") from None


def models(as_json: JsonOption = False) -> None:
    """List the models, their encoders and the weights at hand."""
    from ris_core.encoders import describe_encoders
    from ris_core.training.design import describe_designs
    from ris_core.zero_shot.describe import describe_zero_shot

    designs, encoders, zero_shot = describe_designs(), describe_encoders(), describe_zero_shot()
    if as_json:
        lists = {"models": map(asdict, designs), "encoders": map(asdict, encoders), "zero_shot": map(asdict, zero_shot)}
        print(json.dumps({name: list(cards) for name, cards in lists.items()}, default=str))
        return
    out.print(_designs(designs))
    out.print(_encoders(encoders))
    out.print(_zero_shot(zero_shot))


def fetch(
    name: Annotated[str, typer.Argument(help="An encoder or a zero-shot segmenter, see `ris models`.")],
    file: Annotated[
        Optional[Path],
        typer.Option(help="The downloaded file, or a folder of the hub's files.", show_default="download"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the licence, where it has to be agreed to.")] = False,
) -> None:
    """Fetch the published weights of an encoder or a zero-shot segmenter, check them and keep them."""
    from ris_core.zero_shot_catalogue import CATALOGUE

    notes: list[str] = []
    if name in CATALOGUE:
        from ris_core.zero_shot.fetch import fetch_zero_shot

        _introduce(name, yes)
        with bar(f"Fetching {name}", None) as on_progress:
            folder = fetch_zero_shot(name, file, notes.append, on_progress)
    else:
        from ris_core.encoders.fetch import fetch

        with bar(f"Fetching {name}", None) as on_progress:
            folder = fetch(name, file, on_progress)
    for note in notes:
        say(note)
    say(f"{name} is in {folder}.")


def _introduce(name: str, agreed: bool) -> None:
    """Say what a zero-shot segmenter costs and under which licence it is, and ask where that has to be agreed to."""
    from ris_core.files import cache
    from ris_core.zero_shot.describe import describe
    from ris_core.zero_shot_catalogue import find_zero_shot

    card = describe(find_zero_shot(name))
    say(
        f"{name}, under {', '.join(card.licences)}: about {card.disk:,} MB in {cache()}, "
        f"and {card.memory:,} MB of memory while it answers."
    )
    if card.free or agreed or card.version:
        return
    where = " and ".join(f"https://huggingface.co/{repository}" for repository in card.repositories.values())
    if not sys.stdin.isatty():
        raise InputError(f"The licence of {name} has to be agreed to: read it at {where}, then add --yes.")
    if not typer.confirm(f"That licence has to be agreed to: read it at {where}. Do you agree?"):
        say("Nothing was fetched.")
        raise typer.Exit(1)


def convert(
    kind: Annotated[str, typer.Argument(help="ccp (Clothing Co-Parsing) or coco (COCO's instances).")],
    source: Annotated[Path, typer.Argument(help="The dataset as it was downloaded.")],
    folder: Annotated[Path, typer.Argument(metavar="out", help="Folder to write; it must not exist.")],
    mosaics: Annotated[int, typer.Option(min=0, help="Pictures to add, each of two training photos (coco).")] = 0,
) -> None:
    """Turn a public dataset into a dataset folder: names, expressions derived from masks and pixels, absent things."""
    from ris_core.data.derive.convert import convert

    say(f"{convert(kind, source, folder, mosaics)} expressions in {folder}.")


def _write(folder: Path, stem: str, prediction: Prediction) -> dict[str, Any]:
    """Write the mask, if there is one, and return what there is to say of it."""
    from ris_core.images import write_image
    from ris_core.masks import bounding_box, encode_rle

    slug = re.sub(r"\W+", "-", (prediction.prompt or _POINTED).lower()).strip("-")[:40]
    file = folder / f"{stem}-{slug}.png"
    if prediction.present:
        write_image(file, prediction.mask.astype("uint8") * 255)
    return {
        "prompt": prediction.prompt,
        "present": prediction.present,
        "score": round(prediction.score, 4),
        "presence": round(prediction.presence, 4),
        "quality": round(prediction.quality, 4),
        "area": int(prediction.mask.sum()),
        "bbox": bounding_box(prediction.mask),
        "rle": encode_rle(prediction.mask),
        "mask": str(file) if prediction.present else None,
    }


def _answers(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("prompt", "there", "score", "pixels", "box x, y, w, h")
    # A path that is cut can't be opened.
    table.add_column("mask", overflow="fold")
    for row in rows:
        box = ", ".join(f"{side:.0f}" for side in row["bbox"]) if row["present"] else ""
        there = "yes" if row["present"] else "no"
        table.add_row(row["prompt"] or _POINTED, there, f"{row['score']:.2f}", str(row["area"]), box, row["mask"] or "")
    return table


def _designs(cards: Iterable[DesignCard]) -> Table:
    table = Table("model", "encoders", "parameters", "trainable", "weights")
    for card in cards:
        encoders = f"{card.image_encoder}, {card.text_encoder}"
        weights = card.version or f"none yet: ris train --model {card.model}"
        table.add_row(card.model, encoders, f"{card.parameters:,}", f"{card.trainable:,}", weights)
    return table


def _encoders(cards: Iterable[EncoderCard]) -> Table:
    table = Table("encoder", "of", "channels", "strides", "weights from", "at hand")
    for card in cards:
        channels, strides = (" ".join(map(str, numbers)) for numbers in (card.channels, card.strides))
        at_hand = "yes" if card.folder else f"no: ris fetch {card.name}"
        table.add_row(card.name, card.kind, channels, strides, card.source, at_hand)
    return table


def _zero_shot(cards: Iterable[ZeroShotCard]) -> Table:
    table = Table(caption="`ris fetch NAME` brings what isn't at hand.")
    # A name that is cut can't be typed.
    table.add_column("zero-shot segmenter", no_wrap=True)
    for title in ("good for", "licence", "disk, MB", "memory, MB", "clicks", "at hand"):
        table.add_column(title, overflow="fold")
    for card in cards:
        clicks, at_hand = ("yes" if said else "no" for said in (card.clicks, card.version))
        sizes = f"{card.disk:,}", f"{card.memory:,}"
        table.add_row(card.name, card.good_for, ", ".join(card.licences), *sizes, clicks, at_hand)
    return table
