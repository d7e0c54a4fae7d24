"""Image and text encoders behind two small interfaces, by name."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ris_core.encoders import bert, clip, efficientnet_lite, minilm, sam, swin
from ris_core.encoders.base import Encoder, EncoderEntry, ImageEncoder, TextEncoder
from ris_core.errors import CheckpointError

IMAGE_ENCODERS: dict[str, EncoderEntry[ImageEncoder]] = {
    **efficientnet_lite.ENTRIES,
    **swin.ENTRIES,
    **clip.IMAGE_ENTRIES,
    **sam.ENTRIES,
}
TEXT_ENCODERS: dict[str, EncoderEntry[TextEncoder]] = {**minilm.ENTRIES, **bert.ENTRIES, **clip.TEXT_ENTRIES}

Entry = TypeVar("Entry")

# One thread at a time: the others would load the same again, and the first import of transformers isn't safe for two.
_loading = threading.Lock()
_loaded: dict[EncoderEntry[Any], Any] = {}


@dataclass(frozen=True)
class EncoderCard:
    """An encoder for people to read.

    channels, strides: as in `EncoderEntry`. source: where its weights come from, in words. folder: where they lie on
    this machine, None if they don't.
    """

    name: str
    kind: Literal["image", "text"]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    source: str
    folder: Path | None


def image_encoder(name: str) -> ImageEncoder:
    """The image encoder of that name, loaded once a process: encoders are frozen, so every model shares them.

    Raises CheckpointError if no encoder has that name, or its weights are missing or damaged.
    """
    return _shared(find_entry(IMAGE_ENCODERS, name))


def text_encoder(name: str) -> TextEncoder:
    """The text encoder of that name, shared; raises as `image_encoder` does."""
    return _shared(find_entry(TEXT_ENCODERS, name))


def describe_encoders() -> list[EncoderCard]:
    """All encoders, and whether their weights are at hand. Loads none."""
    images = [_card(name, "image", entry) for name, entry in IMAGE_ENCODERS.items()]
    return images + [_card(name, "text", entry) for name, entry in TEXT_ENCODERS.items()]


def find_entry(entries: dict[str, Entry], name: str) -> Entry:
    """The entry of that name. Raises CheckpointError if there is none."""
    if name not in entries:
        raise CheckpointError(f"There is no encoder {name!r}. Choose from {', '.join(entries)}.")
    return entries[name]


def _shared(entry: EncoderEntry[Encoder]) -> Encoder:
    # Whoever asks first may only want to look; the weights it gets have to serve training as well.
    with _loading, torch.inference_mode(False):
        if entry not in _loaded:
            _loaded[entry] = entry.load()
        encoder: Encoder = _loaded[entry]
        return encoder


def _card(name: str, kind: Literal["image", "text"], entry: EncoderEntry[Any]) -> EncoderCard:
    return EncoderCard(name, kind, entry.channels, entry.strides, str(entry.source), entry.source.find())
