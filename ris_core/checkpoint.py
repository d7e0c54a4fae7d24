"""A model on disk: a folder of `model.safetensors`, `config.json` and `card.md`. Nothing is ever unpickled.

The frozen encoders aren't in it: they come from their packages, checked by digest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import CheckpointError
from ris_core.files import atomic_dir, sha256
from ris_core.models import LDA, MODELS, LDAOptions
from ris_core.models.alignment import freeze_alignment

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"
_FORMAT = 1


@dataclass(frozen=True)
class OperatingPoint:
    """Fixed on validation data and kept with the weights.

    side: the longer side, in pixels, at which a photo is read.
    mask: probability from which a pixel belongs to the mask. presence: probability from which a thing is there.
    """

    side: int = 384
    mask: float = 0.5
    presence: float = 0.5


def shipped() -> Path:
    """The folder of the model that comes with the project, in a wheel or in a checkout.

    Raises:
        CheckpointError: there is none.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "weights", here.parent / "weights"):
        if (folder / CONFIG).is_file():
            return folder
    raise CheckpointError("The shipped weights are missing. Install the package again, or run `ris train`.")


def digest(folder: Path) -> str:
    """Eight hexadecimal digits that change with the weights, the design's switches or the operating point."""
    config = _read_config(folder)
    canonical = json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()[:8]


def version(folder: Path) -> str:
    """`<model>-<digest>`: the name under which predictions of this checkpoint are known."""
    return f"{_read_config(folder)['model']}-{digest(folder)}"


def save(model: LDA, point: OperatingPoint, folder: Path, card: str) -> None:
    """Write a checkpoint at `folder`, which must not be there: checkpoints are immutable.

    Raises:
        FileExistsError: `folder` is there already.
    """
    tensors = save_tensors({name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()})
    config = model.config() | {
        "operating_point": asdict(point),
        "format": _FORMAT,
        "weights": sha256(tensors),
    }
    with atomic_dir(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(tensors)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")


def load(folder: Path) -> tuple[LDA, OperatingPoint]:
    """Rebuild the model of a checkpoint, in evaluation mode, on the CPU.

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
        model = build(config)
        model.load_state_dict(load_tensors(data))
        freeze_alignment(model)
        point = OperatingPoint(**config["operating_point"])
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} doesn't fit this version: {error}") from None
    return model.eval(), point


def build(config: dict[str, Any]) -> LDA:
    """The untrained model that a config names, over its encoders."""
    options = dict(config["options"])
    options["rates"] = tuple(options["rates"])
    encoders = image_encoder(config["image_encoder"]), text_encoder(config["text_encoder"])
    return MODELS[config["model"]](*encoders, LDAOptions(**options))


def parameters(model: torch.nn.Module) -> int:
    """How many numbers a checkpoint of `model` holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} isn't a checkpoint: {CONFIG} is missing.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} can't be read: {error}.") from None
    if not isinstance(config, dict) or config.get("format") != _FORMAT or config.get("model") not in MODELS:
        raise CheckpointError(f"{folder / CONFIG} is of a format or model that this version doesn't know.")
    return config
