"""What `ris segment`, `train`, `convert`, `fetch` and `models` do: arguments in, tables, pictures or JSON out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from backend.cli.datasets import read_all, training_samples
from backend.cli.old_evaluation import check_free, keep, settle, validation_samples
from backend.terminal import bar, err, out
from ris_core import checkpoint, encoders
from ris_core.data import read_folder
from ris_core.data.derive.convert import convert_ccp, convert_coco_names
from ris_core.encoders.adapters import Tuning
from ris_core.encoders.fetch import fetch
from ris_core.errors import DatasetError, InputError
from ris_core.evaluation.evaluate import ACCEPTED
from ris_core.images import read_image, write_image
from ris_core.inference.predictor import Prediction, Predictor
from ris_core.masks import bounding_box, encode_rle
from ris_core.models import MODELS, OPTIONS, RISModel
from ris_core.models.class_alignment import align
from ris_core.overlay import draw
from ris_core.training.loop import is_first, train
from ris_core.training.model_card import write_card
from ris_core.training.preview import few, validate
from ris_core.training.recipe import Recipe


@dataclass(frozen=True)
class Design:
    """A model that isn't trained yet: by name, with its encoders' names and its switches."""

    model: str
    image_encoder: str = "efficientnet-lite2"
    text_encoder: str = "minilm"
    options: dict[str, Any] = field(default_factory=dict)


CONVERTERS: dict[str, Callable[..., None]] = {"ccp": convert_ccp, "coco": convert_coco_names}


def segment_photo(photo: Path, prompts: Sequence[str], folder: Path | None, model: str | None, as_json: bool) -> None:
    """Answer the prompts, write masks and overlay, print a table or one JSON object."""
    image = read_image(photo)
    predictor = Predictor.load(model)
    predictions = predictor.segment(predictor.embed(image), prompts)
    target = folder or Path(f"{photo.stem}-masks")
    files = _write_masks(target, photo.stem, predictions)
    overlay = target / f"{photo.stem}.overlay.png"
    found = [(f"{each.prompt}  {each.score:.2f}", each.mask) for each in predictions if each.present]
    write_image(overlay, draw(image, found))
    rows = [_row(prediction, file) for prediction, file in zip(predictions, files, strict=True)]
    if as_json:
        print(json.dumps({"model_version": predictor.version, "overlay": str(overlay), "results": rows}))
        return
    _print_rows(rows)
    out.print(f"Overlay: {overlay}")


def train_model(
    datasets: Sequence[Path],
    folder: Path,
    run: Path,
    design: Design | Path,
    tuning: Tuning,
    recipe: Recipe,
    accepted: float = ACCEPTED,
    watched: bool = True,
) -> None:
    """Train a design from scratch, or a checkpoint further, on the datasets' training splits.

    The operating point is fixed on `val`; the card reports every split but `train`. Of several processes that train
    together, the first does so and speaks for all.

    Args:
        watched: whether a few photos of `val` are answered after each pass, for the run's figures and overlays.
    """
    out.quiet = err.quiet = not is_first()
    check_free(folder)
    data = read_all(datasets)
    torch.manual_seed(recipe.seed)
    model = _model(design, tuning)
    look = partial(validate, model, few(validation_samples(data)), recipe.side) if watched else None
    with bar("Training", None) as tell:
        train(
            model,
            training_samples(data),
            recipe,
            run,
            lambda at: tell(at.step, at.steps, f"loss {at.loss:.3f}"),
            look,
        )
    if is_first():
        predictor = Predictor(model, replace(checkpoint.OperatingPoint(), side=recipe.side), "candidate")
        reports = settle(predictor, data, accepted)
        start = design if isinstance(design, Path) else None
        card = write_card(model, predictor.point, recipe, datasets, reports, start, accepted)
        keep(model, predictor.point, folder, card)


def tuning_from(start: Path | None, **asked: Any) -> Tuning:
    """What is trained of the encoders: what is asked for, and for the rest (None) as the checkpoint `start` has it."""
    known = checkpoint.tuning(start) if start else Tuning()
    return replace(known, **{name: value for name, value in asked.items() if value is not None})


def convert(kind: str, source: Path, target: Path, mosaics: int = 0) -> None:
    """Turn a public dataset into a dataset folder."""
    if kind not in CONVERTERS:
        raise InputError(f"There is no converter {kind!r}. Choose from {', '.join(CONVERTERS)}.")
    if mosaics and kind != "coco":
        raise InputError("Mosaics are put together of things that are told apart, which only coco has. Leave them out.")
    try:
        CONVERTERS[kind](source, target, **({"mosaics": mosaics} if mosaics else {}))
    except FileExistsError:
        raise InputError(f"{target} exists already. Choose another folder, or delete it.") from None
    except FileNotFoundError as error:
        raise DatasetError(f"{source} isn't a {kind} folder: {error.filename} is missing.") from None
    out.print(f"{len(read_folder(target))} expressions in {target}.")


def list_models(as_json: bool) -> None:
    """The designs at hand, the weights there are for them, and the encoders that any of them can stand on."""
    designs, cards = [_describe(name) for name in MODELS], encoders.describe_encoders()
    if as_json:
        print(json.dumps({"models": designs, "encoders": [asdict(card) for card in cards]}, default=str))
        return
    table = Table("model", "encoders", "parameters", "trainable", "weights")
    for row in designs:
        weights = row["version"] or f"none yet: ris train --model {row['model']}"
        table.add_row(
            row["model"],
            f"{row['image_encoder']}, {row['text_encoder']}",
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            weights,
        )
    out.print(table)
    table = Table("encoder", "of", "channels", "strides", "weights from", "at hand")
    for card in cards:
        channels, strides = (" ".join(map(str, numbers)) for numbers in (card.channels, card.strides))
        at_hand = "yes" if card.folder else f"no: ris fetch {card.name}"
        table.add_row(card.name, card.kind, channels, strides, card.source, at_hand)
    out.print(table)


def fetch_encoder(name: str, file: Path | None) -> None:
    """Put an encoder's weights where they are looked for."""
    with bar(f"Fetching {name}", None) as tell:
        folder = fetch(name, file, tell)
    out.print(f"{name} is in {folder}.")


def _describe(name: str) -> dict[str, Any]:
    """A design with the weights that come with it; without any, as `ris train` would begin it."""
    folder = checkpoint.ships(name)
    model = checkpoint.load(folder)[0] if folder else checkpoint.build(asdict(Design(name)) | {"tuning": {}})
    frozen = sum(checkpoint.parameters(encoder) for encoder in (model.image_encoder, model.text_encoder))
    return {
        "model": name,
        "image_encoder": model.image_encoder.name,
        "text_encoder": model.text_encoder.name,
        "parameters": frozen + checkpoint.parameters(model),
        "trainable": checkpoint.parameters(model, trainable=True),
        "version": checkpoint.version(folder) if folder else None,
        "weights": str(folder) if folder else None,
        "switches": {switch: str(kind) for switch, kind in OPTIONS[name].__annotations__.items()},
    }


def parse_options(name: str, given: Sequence[str]) -> dict[str, Any]:
    """["rates=[1,2]", "fusion=sum"] -> the switches of design `name`, of the types that they have.

    Raises:
        InputError: there is no such design or switch, or a value isn't one of the switch's.
    """
    if name not in OPTIONS:
        raise InputError(f"There is no model {name!r}. Choose from {', '.join(MODELS)}.")
    values = {switch: text for switch, _, text in (each.partition("=") for each in given)}
    if unknown := values.keys() - {field.name for field in fields(OPTIONS[name])}:
        raise InputError(f"{name} has no switch {', '.join(sorted(unknown))}: `ris models --json` lists them.")
    try:
        options = TypeAdapter(OPTIONS[name]).validate_python({key: _value(text) for key, text in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--option {first['loc'][0]}={first['input']}: {first['msg']}.") from None
    return asdict(options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _model(design: Design | Path, tuning: Tuning) -> RISModel:
    if isinstance(design, Path):
        return checkpoint.load(design, tuning)[0]
    model = checkpoint.build(asdict(design) | {"tuning": asdict(tuning)})
    align(model)
    return model


def _write_masks(folder: Path, stem: str, predictions: Sequence[Prediction]) -> list[Path | None]:
    files: list[Path | None] = []
    for number, prediction in enumerate(predictions, 1):
        slug = re.sub(r"\W+", "-", prediction.prompt.lower()).strip("-")[:40]
        file = folder / f"{stem}.{number}-{slug}.png"
        if prediction.present:
            write_image(file, prediction.mask.astype(np.uint8) * 255)
        files.append(file if prediction.present else None)
    return files


def _row(prediction: Prediction, file: Path | None) -> dict[str, Any]:
    return {
        "prompt": prediction.prompt,
        "present": prediction.present,
        "score": round(prediction.score, 4),
        "presence": round(prediction.presence, 4),
        "quality": round(prediction.quality, 4),
        "area": int(prediction.mask.sum()),
        "bbox": bounding_box(prediction.mask),
        "rle": encode_rle(prediction.mask),
        "mask": str(file) if file else None,
    }


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("prompt", "there", "score", "pixels", "box x, y, w, h")
    # A path that is cut can't be opened.
    table.add_column("mask", overflow="fold")
    for row in rows:
        box = ", ".join(f"{side:.0f}" for side in row["bbox"]) if row["present"] else ""
        there = "yes" if row["present"] else "no"
        table.add_row(row["prompt"], there, f"{row['score']:.2f}", str(row["area"]), box, row["mask"] or "")
    out.print(table)
