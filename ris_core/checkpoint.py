"""A model on disk: a folder of `model.safetensors`, `config.json` and `card.md`. Nothing is ever unpickled.

Frozen encoders aren't in it: they come from their packages or from a hub. Adapters in them are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.adapters import Tuning, merge, with_room
from ris_core.errors import CheckpointError
from ris_core.files import atomic_dir, sha256
from ris_core.models import MODELS, OPTIONS, RISModel
from ris_core.models.class_alignment import freeze_alignment

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"
_FORMAT = 2
# So many tensors are named in a message; the rest are counted.
_NAMED = 5


@dataclass(frozen=True)
class OperatingPoint:
    """Fixed on validation data and kept with the weights.

    side: the longer side, in pixels, at which a photo is read.
    mask: probability from which a pixel belongs to the mask. presence: probability from which a thing is there.
    answer_scale, answer_shift, refusal_scale, refusal_shift: what makes the score of a mask, and that of a refusal, the
    IoU to expect, see `calibration.corrected`; 1 and 0 leave it alone.
    """

    side: int = 384
    mask: float = 0.5
    presence: float = 0.5
    answer_scale: float = 1.0
    answer_shift: float = 0.0
    refusal_scale: float = 1.0
    refusal_shift: float = 0.0


def shipped() -> Path:
    """The folder of the model that comes with the project, in a wheel or in a checkout: the default.

    Raises:
        CheckpointError: there is none.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "weights", here.parent / "weights"):
        if (folder / CONFIG).is_file():
            return folder
    raise CheckpointError("The shipped weights are missing. Install the package again, or run `ris train`.")


def ships(design: str) -> Path | None:
    """The folder of the weights that come with a design: the default model's, or the one beside it that is named so."""
    if _read_config(shipped())["model"] == design:
        return shipped()
    folder = shipped() / design
    return folder if (folder / CONFIG).is_file() else None


def find(model: str | Path | None) -> Path:
    """The checkpoint folder that someone means by a folder, by a design's name, or by nothing at all: the shipped one.

    Raises:
        CheckpointError: a design is named that no weights are at hand for.
    """
    if model is None:
        return shipped()
    name = str(model)
    if name not in MODELS or Path(name).is_dir():
        return Path(model)
    if folder := ships(name):
        return folder
    raise CheckpointError(
        f"No weights for {name} come with this version. Make some with `ris train --model {name} --dataset DIR "
        f"--out FOLDER`, then give that folder instead of {name!r}."
    )


def digest(folder: Path) -> str:
    """Eight hexadecimal digits that change with the weights, the design's switches or the operating point."""
    config = _read_config(folder)
    canonical = json.dumps(config, sort_keys=True).encode()
    return sha256(canonical)[:8]


def version(folder: Path) -> str:
    """`<model>-<digest>`: the name under which predictions of this checkpoint are known."""
    return f"{_read_config(folder)['model']}-{digest(folder)}"


def save(model: RISModel, point: OperatingPoint, folder: Path, card: str) -> None:
    """Write a checkpoint at `folder`, which must not be there: checkpoints are immutable.

    Raises:
        FileExistsError: `folder` is there already.
    """
    tensors = save_tensors({name: tensor.detach().contiguous() for name, tensor in model.own_state().items()})
    config = model.config() | {"operating_point": asdict(point), "format": _FORMAT, "weights": sha256(tensors)}
    _write(folder, tensors, config, card)


def with_point(source: Path, point: OperatingPoint, folder: Path) -> None:
    """Write the checkpoint `source` at `folder`, which must not be there, with another operating point.

    Raises:
        CheckpointError: `source` is none.
        OSError: one of its files can't be read.
        FileExistsError: `folder` is there already.
    """
    config = _read_config(source) | {"operating_point": asdict(point)}
    _write(folder, (source / WEIGHTS).read_bytes(), config, (source / CARD).read_text(encoding="utf-8"))


def _write(folder: Path, tensors: bytes, config: Mapping[str, Any], card: str) -> None:
    with atomic_dir(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(tensors)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")


def load(folder: Path, tuning: Tuning | None = None, merged: bool = False) -> tuple[RISModel, OperatingPoint]:
    """Rebuild the model of a checkpoint, in evaluation mode, on the CPU.

    Args:
        tuning: what is to be trained of the encoders from here on, if not what the checkpoint says; adapters that
            it doesn't hold start without any effect.
        merged: have adapters merged into the encoders: as quick as these alone, and for prediction only. Saved, such
            a model gives the same checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged or of another version, or its tensors don't fit the model.
    """
    config = _read_config(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError:
        raise CheckpointError(f"{folder / WEIGHTS} can't be read. A checkpoint is a folder with {WEIGHTS}.") from None
    if sha256(data) != config["weights"]:
        raise CheckpointError(f"{folder / WEIGHTS} isn't the file that {CONFIG} describes. Fetch both again.")
    try:
        model = build(config | ({"tuning": asdict(tuning)} if tuning else {}), merged)
        tensors = load_tensors(data)
        point = OperatingPoint(**config["operating_point"])
    except (SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} doesn't fit this version: {error}") from None
    expected = model.own_state()
    if tuning and asdict(tuning) != config["tuning"]:
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith("encoders.")}
        if config["tuning"]["encoders"] != "frozen":
            raise CheckpointError(f"{folder} has changed its encoders: train it further as it is, {config['tuning']}.")
    if differences := misfits(tensors, expected):
        raise CheckpointError(f"{folder} doesn't fit this version: {differences}.")
    model.load_state_dict(tensors, strict=False)
    if merged:
        merge(model)
    freeze_alignment(model)
    return model.eval(), point


def operating_point(folder: Path) -> OperatingPoint:
    """What a checkpoint says from when on a pixel or a thing counts. Raises CheckpointError."""
    try:
        return OperatingPoint(**_read_config(folder)["operating_point"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} doesn't fit this version: {error}") from None


def tuning(folder: Path) -> Tuning:
    """What a checkpoint has changed of the encoders. Raises CheckpointError."""
    return Tuning(**_read_config(folder)["tuning"])


def build(config: dict[str, Any], mergeable: bool = False) -> RISModel:
    """The untrained model that a config names, over its encoders; `mergeable` as in `adapters.with_room`.

    Raises:
        CheckpointError: the config names a switch that the design doesn't have, or an encoder that isn't at hand.
    """
    name, tuning = config["model"], _options(Tuning, config["tuning"])
    image, text = image_encoder(config["image_encoder"]), text_encoder(config["text_encoder"])
    if mergeable:
        image, text = with_room(image, tuning), with_room(text, tuning)
    return MODELS[name](image, text, _options(OPTIONS[name], config["options"]), tuning)


def misfits(given: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """What keeps the given tensors from being the expected ones, by name and shape; empty if nothing does."""
    shapes = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & given.keys()
        if given[name].shape != expected[name].shape
    ]
    found = (
        ("missing", sorted(expected.keys() - given.keys())),
        ("unknown", sorted(given.keys() - expected.keys())),
        ("of another shape", sorted(shapes)),
    )
    return "; ".join(f"{len(names)} tensors {kind}: {_some(names)}" for kind, names in found if names)


def parameters(model: nn.Module, trainable: bool = False) -> int:
    """How many numbers `model` holds, or how many of them training may change."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad or not trainable)


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _options(kind: type[Any], values: dict[str, Any]) -> Any:
    unknown = values.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise CheckpointError(f"{kind.__name__} has no switch named {', '.join(sorted(unknown))}.")
    # JSON has no tuples.
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} isn't a checkpoint: {CONFIG} is missing.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} can't be read: {error}.") from None
    if not isinstance(config, dict) or config.get("format") != _FORMAT or config.get("model") not in MODELS:
        raise CheckpointError(f"{folder / CONFIG} is of a format or model that this version doesn't know.")
    return config
