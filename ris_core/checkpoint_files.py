"""The files of a checkpoint, a folder of `model.safetensors`, `config.json` and `card.md`: found, named, copied.

That of a zero-shot segmenter has no weights of its own: its `config.json` says which fetched ones it means, by digest.

Knows no torch, whose import takes seconds: a version's name and its operating point are to be had before that. What
is in the tensors is `checkpoint`'s matter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ris_core.errors import CheckpointError
from ris_core.files import atomic_dir, cache, sha256
from ris_core.switches import checked
from ris_core.zero_shot_catalogue import CATALOGUE

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"
FORMAT = 2
# The keys of `ris_core.models.MODELS`.
DESIGNS = ("vipa", "maris", "haris", "lda")
ZERO_SHOT = tuple(CATALOGUE)
MAX_CONFIG_BYTES = 4 << 20

# What a config.json has, and what that is.
_KEYS: dict[str, type] = {
    **dict.fromkeys(("image_encoder", "text_encoder", "weights"), str),
    **dict.fromkeys(("options", "tuning", "operating_point"), dict),
}
_POINTER_KEYS: dict[str, type] = {"sources": dict, "operating_point": dict}
_NAMES: dict[type, str] = {str: "text", dict: "object"}


@dataclass(frozen=True)
class OperatingPoint:
    """Fixed on validation data and kept with the weights.

    side: the longer side, in pixels, at which a photo is read.
    mask: probability from which a pixel belongs to the mask. presence: probability from which a thing is there.
    answer_scale, answer_shift, refusal_scale, refusal_shift: what makes the score of a mask, and that of a refusal, the
    IoU to expect, see `calibration.corrected`; 1 and 0 leave it alone.
    answer_presence: how much presence counts in a mask's score beside its quality: the power that it is raised to.
    names: the sentences that the model was taught as names. doubt: how much less a refusal counts the less what was
    asked is like one of them, see `calibration.belief`; 0 for not at all.
    refinement: how much of the logits of what words found is what the interactive decoder makes of them, [0, 1].
    instance: score from which a thing counts that a zero-shot segmenter found; our models find no such.
    """

    side: int = 384
    mask: float = 0.5
    presence: float = 0.5
    answer_scale: float = 1.0
    answer_shift: float = 0.0
    refusal_scale: float = 1.0
    refusal_shift: float = 0.0
    answer_presence: float = 1.0
    names: Sequence[str] = ()
    doubt: float = 0.0
    refinement: float = 0.0
    instance: float = 0.3

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "names", tuple(self.names))


def shipped() -> Path:
    """The folder of the default model, which a wheel or a checkout brings. Raises CheckpointError if it is missing."""
    here = Path(__file__).resolve().parent
    for folder in (here / "weights", here.parent / "weights"):
        if (folder / CONFIG).is_file():
            return folder
    raise CheckpointError("The shipped weights are missing. Install the package again, or run `ris train`.")


def ships(design: str) -> Path | None:
    """The folder of the weights that come with a design: the default model's, or the one beside it that is named so."""
    if read_config(shipped())["model"] == design:
        return shipped()
    folder = shipped() / design
    return folder if (folder / CONFIG).is_file() else None


def find(model: str | Path | None) -> Path:
    """The checkpoint folder that someone means by a folder, by a design's name, or by nothing at all: the shipped one.

    Raises CheckpointError if no weights are at hand for the design.
    """
    if model is None:
        return shipped()
    name = str(model)
    if Path(name).is_dir() or name not in DESIGNS + ZERO_SHOT:
        return Path(model)
    if name in ZERO_SHOT:
        return _fetched(name)
    if folder := ships(name):
        return folder
    raise CheckpointError(
        f"No weights for {name} come with this version. Make some with `ris train --model {name} --dataset DIR "
        f"--out FOLDER`, then give that folder instead of {name!r}."
    )


def pointer_folder(name: str) -> Path:
    """Where fetching zero-shot segmenter `name` leaves its pointer: a checkpoint folder without weights."""
    return cache() / "zero-shot" / name


def _fetched(name: str) -> Path:
    folder = pointer_folder(name)
    if (folder / CONFIG).is_file():
        return folder
    entry = CATALOGUE[name]
    raise CheckpointError(
        f"The weights of {name} aren't on this machine. Run `ris fetch {name}`: that takes about {entry.disk:,} MB of "
        f"disk, and to answer {entry.memory:,} MB of memory."
    )


def is_zero_shot(folder: Path) -> bool:
    """Whether a checkpoint is a pointer to published weights. Raises CheckpointError if it can't be read."""
    return read_config(folder)["model"] in ZERO_SHOT


def trainable_config(folder: Path) -> dict[str, Any]:
    """`read_config` of a model of ours, which training can go on with.

    Raises CheckpointError if it is a zero-shot segmenter, or the name of one, and as `read_config` does.
    """
    by_name = str(folder) in ZERO_SHOT and not folder.is_dir()
    config = {"model": str(folder)} if by_name else read_config(folder)
    if config["model"] in ZERO_SHOT:
        raise CheckpointError(
            f"{folder} can't be trained or averaged: it is the zero-shot segmenter {config['model']}, used as it was "
            "published. `ris distil` has a model of ours learn from its answers."
        )
    return config


def find_trainable(model: str | Path | None) -> Path:
    """`find` of a model of ours; raises as that does, and as `trainable_config`."""
    if model is not None and str(model) in ZERO_SHOT:
        trainable_config(Path(model))
    folder = find(model)
    trainable_config(folder)
    return folder


def digest(folder: Path) -> str:
    """Eight hexadecimal digits that change with the weights, the design's switches or the operating point."""
    return sha256(json.dumps(read_config(folder), sort_keys=True).encode())[:8]


def version(folder: Path) -> str:
    """`<model>-<digest>`: the name under which predictions of this checkpoint are known."""
    return f"{read_config(folder)['model']}-{digest(folder)}"


def with_point(source: Path, point: OperatingPoint, folder: Path, card: str | None = None) -> None:
    """Write the checkpoint `source` at `folder`, which must not be there, with another operating point and `card`.

    Raises CheckpointError if `source` is none, OSError if it can't be read, FileExistsError if `folder` is there.
    """
    config = read_config(source) | {"operating_point": asdict(point)}
    card = card or (source / CARD).read_text(encoding="utf-8")
    write(folder, None if is_zero_shot(source) else (source / WEIGHTS).read_bytes(), config, card)


def write(folder: Path, tensors: bytes | None, config: Mapping[str, Any], card: str) -> None:
    """Write a checkpoint's three files at `folder`, all or none; `tensors`: None for a pointer, which has no weights.

    Raises FileExistsError if it is there already.
    """
    with atomic_dir(folder) as temporary:
        if tensors is not None:
            (temporary / WEIGHTS).write_bytes(tensors)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")


def operating_point(folder: Path) -> OperatingPoint:
    """What a checkpoint says from when on a pixel or a thing counts. Raises CheckpointError."""
    return checked(OperatingPoint, read_config(folder).get("operating_point"))


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` says; what it has of what belongs to a model is of the right kind.

    Raises CheckpointError if it is missing, damaged or of another version.
    """
    config = read_json(folder)
    if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("model") not in DESIGNS + ZERO_SHOT:
        raise CheckpointError(f"{folder / CONFIG} is of a format or model that this version doesn't know.")
    for key, kind in (_POINTER_KEYS if config["model"] in ZERO_SHOT else _KEYS).items():
        if key in config and not isinstance(config[key], kind):
            raise CheckpointError(f'{folder / CONFIG} is damaged: its "{key}" is no {_NAMES[kind]}.')
    return config


def complete(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with all that loading its model takes. Raises CheckpointError if something is missing."""
    keys = _POINTER_KEYS if config["model"] in ZERO_SHOT else _KEYS
    if missing := [key for key in keys if key not in config]:
        raise CheckpointError(f"{folder / CONFIG} is damaged: it lacks {', '.join(missing)}.")
    return config


def read_json(folder: Path) -> object:
    """What stands in `config.json`. Raises CheckpointError if it is missing, no JSON, too long or nested too deeply."""
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_CONFIG_BYTES >> 20} MiB, which none is.")
        return json.loads(content)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} isn't a checkpoint: {CONFIG} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read: {error}.") from None


def check_weights(folder: Path) -> None:
    """Raise CheckpointError unless the weights are whole: the file that `config.json` names by its digest.

    Reads a file again only when it has changed. A zero-shot segmenter has no weights of its own to check.
    """
    config = read_config(folder)
    if config["model"] in ZERO_SHOT:
        return
    path = folder / WEIGHTS
    try:
        stat = path.stat()
        digest = _digest(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        raise CheckpointError(f"{path} can't be read. A checkpoint is a folder with {WEIGHTS}.") from None
    if digest != config.get("weights"):
        raise CheckpointError(f"{path} isn't the file that {CONFIG} describes. Fetch both again.")


@lru_cache(maxsize=64)
def _digest(path: Path, _modified: int, _size: int) -> str:
    return sha256(path)


def answers_clicks(folder: Path) -> bool:
    """Whether a checkpoint is answered when it is pointed at: by its own decoder, else by the shipped weights'.

    Raises CheckpointError if its configuration can't be read.
    """
    own, ours = read_config(folder), read_config(shipped())
    if own["model"] in ZERO_SHOT:
        return bool(own.get("clicks"))
    borrowed = bool(ours.get("interactive")) and ours.get("image_encoder") == own.get("image_encoder")
    return bool(own.get("interactive")) or borrowed
