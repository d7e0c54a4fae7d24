"""A picture of a report: small, its masks over it, as an address that holds the picture itself."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.datasets.dataset import DatasetImage, Ref
from ris_core.images import read_image
from ris_core.masks import Mask
from ris_core.overlay import PALETTE, Colour, outline, tint

# Pixels of the longer side: a card of the page on a usual screen.
_SIDE, _QUALITY = 288, 80
# Of the thumbnail's pixels: what is smaller isn't seen without a ring around it.
_SEEN, _RADIUS = 24, 9


@dataclass(frozen=True)
class LabelCount:
    """How often a label is in a picture, and the colour of its masks there."""

    name: str
    count: int
    colour: Colour


@dataclass(frozen=True)
class Card:
    """A picture as the page shows it. reasons: why; none in the sample. source: a data URI of a JPEG."""

    image: DatasetImage
    reasons: Sequence[str]
    labels: Sequence[LabelCount]
    source: str
    width: int
    height: int

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What is said of it, what was predicted worst first."""
        return tuple(sorted(self.image.refs, key=lambda ref: ref.told.get("iou", 1.0)))

    @property
    def alt(self) -> str:
        """What is to be seen, in words."""
        seen = ", ".join(f"{label.count} {label.name}" for label in self.labels)
        return f"Picture of task {self.image.number}, " + (f"with masks: {seen}" if seen else "without masks")


def card(image: DatasetImage, names: Mapping[int, str], reasons: Sequence[str]) -> Card:
    """names: of the categories. Raises ImageError if the picture can't be read."""
    counts = Counter(instance.category for instance in image.instances)
    colours = {number: PALETTE[place % len(PALETTE)] for place, number in enumerate(sorted(counts))}
    drawn = _draw(image, colours)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    labels = [LabelCount(names[number], counts[number], colour) for number, colour in colours.items()]
    return Card(image, reasons, labels, source, drawn.shape[1], drawn.shape[0])


def _draw(image: DatasetImage, colours: Mapping[int, Colour]) -> NDArray[np.uint8]:
    photo = read_image(image.path)
    scale = _SIDE / max(photo.shape[:2])
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    canvas = np.asarray(cv2.resize(photo, (width, height), interpolation=shrink), np.uint8)
    for instance in image.instances:
        share = cv2.resize(instance.mask().astype(np.float32), (width, height), interpolation=shrink)
        _lay(canvas, np.asarray(share >= 0.5), colours[instance.category])
        if (share >= 0.5).sum() < _SEEN and share.any():
            row, column = (int(place.mean()) for place in np.nonzero(share))
            cv2.circle(canvas, (column, row), _RADIUS, (255, 255, 255), 3, cv2.LINE_AA)
            cv2.circle(canvas, (column, row), _RADIUS, colours[instance.category], 2, cv2.LINE_AA)
    return canvas


def _lay(canvas: NDArray[np.uint8], mask: Mask, colour: Colour) -> None:
    tint(canvas, mask, colour)
    outline(canvas, mask, colour, 1)
