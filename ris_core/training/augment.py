"""One photo and its masks, moved together onto a training canvas, and the words that a mirrored photo changes."""

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ris_core.masks import Mask

Array = NDArray[np.float32]


class Tint(NamedTuple):
    """Factors by which a view's colours change; saturation 0 is grey."""

    saturation: float
    contrast: float
    brightness: float


@dataclass(frozen=True)
class View:
    """How a photo of `size` (height, width) lies on a `canvas` (height, width), both in pixels.

    matrix: 2x3, photo -> canvas. mirrored: whether left and right are swapped. tint: None leaves the colours alone.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    matrix: NDArray[np.float64]
    mirrored: bool
    tint: Tint | None

    @property
    def whole(self) -> bool:
        """Whether all of the photo is on the canvas, but for a hundredth."""
        height, width = self.size
        corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]])
        across, down = self.matrix @ corners.T / np.array([[self.canvas[1] - 1], [self.canvas[0] - 1]])
        return bool(min(across.min(), down.min()) >= -0.01 and max(across.max(), down.max()) <= 1.01)

    def pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The photo on the canvas: HxWx3 uint8, black where there is none."""
        moved = _warp(image, self.matrix, self.canvas[::-1])
        return _recolour(moved, self.tint) if self.tint else moved

    def valid(self) -> Array:
        """HxW, 1 where there is photo."""
        inside = np.ones(self.size, dtype=np.float32)
        moved = cv2.warpAffine(inside, self.matrix, self.canvas[::-1], flags=cv2.INTER_NEAREST)
        return np.asarray(moved, dtype=np.float32)

    def target(self, mask: Mask) -> Array:
        """A mask of the photo -> H/4 x W/4, the share of each cell covered."""
        height, width = self.canvas
        moved = cv2.warpAffine(mask.astype(np.float32), self.matrix, (width, height))
        return np.asarray(cv2.resize(moved, (width // 4, height // 4), interpolation=cv2.INTER_AREA), dtype=np.float32)

    def key(self) -> str:
        """What tells this view from every other of the same photo."""
        return f"{self.canvas} {self.matrix.tobytes().hex()} {self.tint}"


def fit_view(
    size: tuple[int, int],
    canvas: tuple[int, int],
    rng: random.Random | None,
    zoom: tuple[float, float] = (0.75, 1.6),
) -> View:
    """Fit a photo onto a canvas, whose sides are multiples of 32; with `rng`, moved and recoloured.

    zoom: how much smaller or larger than fits it then may be.
    """
    mirrored = rng is not None and rng.random() < 0.5
    matrix = _matrix(size, canvas, mirrored, rng, zoom)
    return View(size, canvas, matrix, mirrored, _tint(rng) if rng else None)


def _tint(rng: random.Random) -> Tint:
    """Brightness, contrast and saturation by up to a third, now and then grey."""
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.7, 1.3)
    return Tint(saturation, rng.uniform(0.7, 1.3), rng.uniform(0.75, 1.25))


def _matrix(
    shape: tuple[int, ...],
    canvas: tuple[int, int],
    mirrored: bool,
    rng: random.Random | None,
    zoom: tuple[float, float],
) -> NDArray[np.float64]:
    """Photo -> canvas: turned and scaled about the centre, then placed."""
    height, width = shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    angle, across, down = 0.0, 0.0, 0.0
    if rng is not None:
        scale *= math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
        angle = math.radians(rng.gauss(0, 5))
        # Anywhere between flush with one edge and flush with the other, whether the photo is smaller or larger.
        across = rng.uniform(-0.5, 0.5) * abs(canvas[1] - scale * width)
        down = rng.uniform(-0.5, 0.5) * abs(canvas[0] - scale * height)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    flip = -1.0 if mirrored else 1.0
    linear = np.array([[flip * cosine, -sine], [flip * sine, cosine]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    target = np.array([(canvas[1] - 1) / 2 + across, (canvas[0] - 1) / 2 + down])
    return np.hstack([linear, (target - linear @ centre)[:, None]])


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    # Shrunk by area first, as at prediction: a plain warp skips pixels, and the encoder sees the jagged edges.
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 1:
        smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        across, down = image.shape[1] / smaller.shape[1], image.shape[0] / smaller.shape[0]
        # Pixel centres lie at halves: x = across * (x' + 1/2) - 1/2.
        back = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
        image, matrix = np.asarray(smaller, dtype=np.uint8), matrix @ back
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _recolour(pixels: NDArray[np.uint8], tint: Tint) -> NDArray[np.uint8]:
    values = pixels.astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * tint.saturation
    values = (values - values.mean()) * tint.contrast + values.mean() * tint.brightness
    return np.asarray(np.clip(values, 0, 255), dtype=np.uint8)
