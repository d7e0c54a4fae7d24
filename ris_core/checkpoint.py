"""A model on disk, built, saved and loaded; see `checkpoint_files` for the folder. Nothing is ever unpickled.

Frozen encoders aren't in it: they come from their packages or from a hub. Adapters in them are.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from ris_core.checkpoint_files import CONFIG, FORMAT, WEIGHTS, OperatingPoint, complete, trainable_config, write
from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.adapters import merge, with_room, without_room
from ris_core.encoders.weights import misfits
from ris_core.errors import CheckpointError
from ris_core.files import sha256
from ris_core.models import MODELS, OPTIONS
from ris_core.models.base import RISModel
from ris_core.switches import checked
from ris_core.tuning import Tuning


def save(model: RISModel, point: OperatingPoint, folder: Path, card: str) -> None:
    """Write a checkpoint at `folder`; raises FileExistsError if that is there already: checkpoints are immutable."""
    tensors = save_tensors({name: tensor.detach().contiguous() for name, tensor in model.own_state().items()})
    config = model.config() | {"operating_point": asdict(point), "format": FORMAT, "weights": sha256(tensors)}
    write(folder, tensors, config, card)


def load(folder: Path, tuning: Tuning | None = None, merged: bool = False) -> tuple[RISModel, OperatingPoint]:
    """Rebuild the model of a checkpoint, in evaluation mode, on the CPU.

    Args:
        tuning: what is to be trained of the encoders from here on, if not what the checkpoint says; adapters that
            it doesn't hold start without any effect, and those that it holds are merged where encoders are trained
            in full.
        merged: have adapters merged into the encoders: as quick as these alone, and for prediction only. Saved, such
            a model gives the same checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged or of another version, its tensors don't fit the model, or it is a
            zero-shot segmenter.
    """
    config = complete(folder, trainable_config(folder))
    saved, point = checked(Tuning, config["tuning"]), checked(OperatingPoint, config["operating_point"])
    if tuning and tuning.encoders == "full" and saved.encoders == "adapters":
        return _load_to_train_in_full(folder, tuning)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError:
        raise CheckpointError(f"{folder / WEIGHTS} can't be read. A checkpoint is a folder with {WEIGHTS}.") from None
    if sha256(data) != config["weights"]:
        raise CheckpointError(f"{folder / WEIGHTS} isn't the file that {CONFIG} describes. Fetch both again.")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"{folder} doesn't fit this version: {error}") from None
    model = build(config | ({"tuning": asdict(tuning)} if tuning else {}), merged)
    expected = model.own_state()
    if tuning and tuning != saved:
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith("encoders.")}
        if saved.encoders != "frozen":
            raise CheckpointError(f"{folder} has changed its encoders: train it further as it is, {asdict(saved)}.")
    if differences := misfits(tensors, expected):
        raise CheckpointError(f"{folder} doesn't fit this version: {differences}.")
    model.load_state_dict(tensors, strict=False)
    if merged:
        merge(model)
    model.on_load()
    return model.eval(), point


def _load_to_train_in_full(folder: Path, tuning: Tuning) -> tuple[RISModel, OperatingPoint]:
    start, point = load(folder, merged=True)
    if start.tuning.text_stages and not tuning.text_stages:
        raise CheckpointError(f"{folder} has changed its text encoder: train that too, with --text-stages 1.")
    image, text = without_room(start.image_encoder), without_room(start.text_encoder)
    model = MODELS[start.name](image, text, start.options, tuning)
    if start.interactive is not None:
        model.add_interactive()
    decoder = {name: tensor for name, tensor in start.own_state().items() if not name.startswith("encoders.")}
    model.load_state_dict(decoder, strict=False)
    model.on_load()
    return model.eval(), point


def tuning(folder: Path) -> Tuning:
    """What a checkpoint has changed of the encoders. Raises CheckpointError."""
    return checked(Tuning, trainable_config(folder).get("tuning"))


def build(config: dict[str, Any], mergeable: bool = False) -> RISModel:
    """The untrained model that a config names, over its encoders; `mergeable` as in `adapters.with_room`.

    Raises CheckpointError if it names a switch that the design doesn't have, one out of range, or an encoder that isn't
    at hand.
    """
    name, tuning = config["model"], checked(Tuning, config["tuning"])
    options = checked(OPTIONS[name], config["options"])
    image, text = image_encoder(config["image_encoder"]), text_encoder(config["text_encoder"])
    if mergeable:
        image, text = with_room(image, tuning), with_room(text, tuning)
    try:
        model = MODELS[name](image, text, options, tuning)
    except (ValueError, RuntimeError, ArithmeticError, AssertionError, IndexError) as error:
        raise CheckpointError(f"No {name} can be built with {options}: {error}") from None
    # Checkpoints from before there was such a decoder don't say.
    if config.get("interactive"):
        model.add_interactive()
    return model


def parameters(model: nn.Module, trainable: bool = False) -> int:
    """How many numbers `model` holds, or how many of them training may change."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad or not trainable)
