"""What somebody asks of a photo: a sentence, places in it, or both. Knows no torch, as `prediction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ris_core.masks import Mask, bounding_box


@dataclass(frozen=True)
class Point:
    """A click. x, y: shares of the photo's width and height, [0, 1]. positive: on the thing, else beside it."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A box around the thing: its left, top, right and bottom, shares of the photo's width and height, [0, 1]."""

    left: float
    top: float
    right: float
    bottom: float


def box_of(mask: Mask) -> Box:
    """The tight box around HxW bool that isn't empty."""
    left, top, across, down = bounding_box(mask)
    height, width = mask.shape
    return Box(left / width, top / height, (left + across) / width, (top + down) / height)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A sentence, what was pointed at, or both; not nothing.

    points, box: where the thing is, and where it isn't. mask: HxW bool at the photo's size, the answer that they mend.
    Where a place is given there is a mask, whatever the sentence says of it: presence has no say.
    """

    sentence: str = ""
    points: Sequence[Point] = ()
    box: Box | None = None
    mask: Mask | None = None

    @property
    def wordless(self) -> bool:
        """Whether there is no sentence beside what it points at; alone, an empty one is a mistake."""
        return self.visual and not self.sentence.strip()

    @property
    def visual(self) -> bool:
        """Whether it points at something."""
        return bool(self.points) or self.box is not None or self.mask is not None
