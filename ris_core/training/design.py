"""Models that aren't trained yet: their switches as they are typed, building one, and what there is of each design."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ris_core import checkpoint, checkpoint_files
from ris_core.errors import InputError
from ris_core.models import MODELS, OPTIONS
from ris_core.models.base import RISModel
from ris_core.models.class_alignment import align
from ris_core.training.recipe import Design
from ris_core.tuning import Tuning


@dataclass(frozen=True)
class DesignCard:
    """A design with the weights that come with it; without any (None), as `ris train` would begin it.

    parameters, trainable: how many numbers it holds, and how many of them training changes. switches: their types.
    """

    model: str
    image_encoder: str
    text_encoder: str
    parameters: int
    trainable: int
    version: str | None
    weights: Path | None
    switches: dict[str, str]


def describe_designs() -> list[DesignCard]:
    """All designs, each loaded once to be counted."""
    return [_describe(name) for name in MODELS]


def _describe(name: str) -> DesignCard:
    folder = checkpoint_files.ships(name)
    model = checkpoint.load(folder)[0] if folder else build(Design(name), Tuning())
    frozen = sum(checkpoint.parameters(encoder) for encoder in (model.image_encoder, model.text_encoder))
    return DesignCard(
        name,
        model.image_encoder.name,
        model.text_encoder.name,
        frozen + checkpoint.parameters(model),
        checkpoint.parameters(model, trainable=True),
        checkpoint_files.version(folder) if folder else None,
        folder,
        {switch: str(kind) for switch, kind in OPTIONS[name].__annotations__.items()},
    )


def build(design: Design, tuning: Tuning) -> RISModel:
    """The model of a design with random weights. Raises CheckpointError if an encoder isn't at hand."""
    return checkpoint.build(asdict(design) | {"tuning": asdict(tuning)})


def begin(start: Design | Path, tuning: Tuning) -> RISModel:
    """What training begins with: a new model whose classes are aligned, or that of a checkpoint's folder.

    Raises CheckpointError if an encoder isn't at hand, the checkpoint can't be loaded, or `tuning` doesn't suit it.
    """
    if isinstance(start, Path):
        return checkpoint.load(start, tuning)[0]
    model = build(start, tuning)
    align(model)
    return model


def tuning_of(start: Path | None, **chosen: Any) -> Tuning:
    """What is trained of the encoders: what is chosen, and for the rest (None) as the checkpoint `start` has it.

    Raises CheckpointError if `start` is none, InputError if a number is out of its range.
    """
    tuning = checkpoint.tuning(start) if start else Tuning()
    return replace(tuning, **{name: value for name, value in chosen.items() if value is not None})


def parse_options(name: str, assignments: Sequence[str]) -> dict[str, Any]:
    """["rates=[1,2]", "fusion=sum"] -> the switches of design `name`, of the types that they have.

    Raises InputError if there is no such design or switch, or a value isn't one of the switch's.
    """
    if name not in OPTIONS:
        raise InputError(f"There is no model {name!r}. Choose from {', '.join(MODELS)}.")
    values = {switch: text for switch, _, text in (assignment.partition("=") for assignment in assignments)}
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
