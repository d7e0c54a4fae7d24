"""The colour that people would name a thing by, from the pixels inside its mask; silent where they might disagree.

Source: ours. Hue in degrees, saturation and value in [0, 1], as in HSV. Pixels between two rows belong to none.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ris_core.images import Pixels
from ris_core.masks import Mask

# A thing has a colour that half of its pixels have, twice as many as have any other.
DOMINANT, LEAD = 0.5, 2.0
# It lacks a colour that fewer have: a label, a shadow, a mask's edge.
TRACE = 0.15


class _Row(NamedTuple):
    name: str
    hue: tuple[int, int] = (0, 360)
    saturation: tuple[float, float] = (0.0, 1.0)
    value: tuple[float, float] = (0.0, 1.0)


# Pixels read in a mask, evenly spread.
_ENOUGH = 5000
# Median value of a photo, below which its shadows look as black as what is black.
_DARK = 0.25

# The first row that fits counts.
_TABLE = (
    _Row("black", value=(0.0, 0.16)),
    _Row("black", saturation=(0.0, 0.35), value=(0.0, 0.27)),
    _Row("white", saturation=(0.0, 0.12), value=(0.72, 1.0)),
    _Row("grey", saturation=(0.0, 0.14), value=(0.33, 0.64)),
    _Row("brown", (8, 40), (0.3, 0.9), (0.18, 0.52)),
    _Row("pink", (300, 348), (0.2, 1.0), (0.6, 1.0)),
    _Row("pink", (348, 360), (0.2, 0.5), (0.75, 1.0)),
    _Row("red", (350, 360), (0.55, 1.0), (0.3, 1.0)),
    _Row("red", (0, 10), (0.6, 1.0), (0.3, 1.0)),
    _Row("orange", (15, 38), (0.65, 1.0), (0.7, 1.0)),
    _Row("yellow", (44, 66), (0.45, 1.0), (0.55, 1.0)),
    _Row("green", (78, 165), (0.25, 1.0), (0.2, 1.0)),
    _Row("blue", (195, 250), (0.3, 1.0), (0.2, 1.0)),
    _Row("purple", (262, 298), (0.25, 1.0), (0.2, 1.0)),
)

# What nobody would call a thing of each colour, in any light: neighbours in hue and shade are left out.
_NEVER = {
    "red": ("green", "blue", "white", "yellow"),
    "orange": ("green", "blue", "purple", "white"),
    "yellow": ("blue", "purple", "red", "black"),
    "green": ("red", "pink", "purple", "orange"),
    "blue": ("red", "yellow", "orange", "pink"),
    "purple": ("yellow", "green", "orange", "white"),
    "pink": ("green", "blue", "black", "yellow"),
    "brown": ("blue", "green", "white", "pink"),
    "black": ("white", "yellow", "red", "pink"),
    "white": ("black", "red", "green", "brown"),
    "grey": ("red", "yellow", "orange", "pink"),
}

# How often a colour is said of a thing without it, of 1: a colour that is seldom true would soon mean "not there".
# Chosen so that of the sentences with a colour about a third at most are untrue.
UNTRUE = dict.fromkeys(("black", "white", "blue", "grey"), 1.0)
UNTRUE |= {"brown": 0.9, "purple": 0.4, "red": 0.14, "green": 0.14, "orange": 0.1, "pink": 0.06, "yellow": 0.03}


def colour_shares(image: Pixels, mask: Mask) -> dict[str, float]:
    """HxWx3 RGB and HxW -> the share of the mask's pixels, in [0, 1], that has each colour; none for those without."""
    places = np.flatnonzero(mask)
    if not len(places):
        return {}
    pixels = image.reshape(-1, 3)[None, places[:: len(places) // _ENOUGH + 1]].astype(np.float32) / 255
    channels = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[0].T
    rows = np.full(channels.shape[1], len(_TABLE))
    for number in reversed(range(len(_TABLE))):
        rows[_fits(channels, _TABLE[number])] = number
    shares: dict[str, float] = {}
    for row, count in zip(_TABLE, np.bincount(rows, minlength=len(_TABLE)), strict=False):
        if count:
            shares[row.name] = shares.get(row.name, 0.0) + float(count) / len(rows)
    return shares


def is_dark(image: Pixels) -> bool:
    """Whether a photo is too dark for colours to be told: HxWx3 RGB."""
    return float(np.median(image[::4, ::4].max(axis=2))) < _DARK * 255


def dominant(shares: Mapping[str, float]) -> str | None:
    """The colour that a thing has beyond doubt, if any."""
    first, second, *_ = *sorted(shares, key=lambda name: (-shares[name], name)), "", ""
    clear = first and shares[first] >= DOMINANT and shares[first] >= LEAD * shares.get(second, 0.0)
    return first if clear else None


def contradictions(colour: str, shares: Mapping[str, float]) -> list[str]:
    """Colours that a thing of a dominant `colour` certainly doesn't have."""
    return [other for other in _NEVER[colour] if shares.get(other, 0.0) < TRACE / 5]


def _fits(channels: NDArray[np.float32], row: _Row) -> NDArray[np.bool_]:
    within = [(channel >= low) & (channel <= high) for channel, (low, high) in zip(channels, row[1:], strict=True)]
    return np.asarray(np.logical_and.reduce(within), dtype=bool)
