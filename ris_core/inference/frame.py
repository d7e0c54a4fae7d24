"""Where a photo lies on a model's canvas, and the way there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Image: TypeAlias = NDArray[np.uint8]
_GRID = 32


@dataclass(frozen=True)
class Frame:
    """Where a photo lies, in pixels.

    canvas: (h, w) of the model's input. inner: (h, w) of the photo on it, from the top left. size: (h, w) of the photo.
    """

    canvas: tuple[int, int]
    inner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, image: Image, side: int, square: bool) -> Frame:
        """That of HxWx3, read at `side` pixels of its longer side; square: whether the canvas has to be."""
        height, width = image.shape[:2]
        scale = side / max(height, width)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        canvas = tuple(-(-length // _GRID) * _GRID for length in inner)
        if square:
            canvas = (max(canvas),) * 2
        return cls((canvas[0], canvas[1]), inner, (height, width))


def fit(image: Image, frame: Frame) -> Image:
    """HxWx3 of a photo -> the same at `frame.inner`."""
    shrinks = frame.inner[0] < frame.size[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, frame.inner[::-1], interpolation=interpolation), dtype=np.uint8)


def to_grid(values: NDArray[np.float32], frame: Frame, stride: int = 4) -> NDArray[np.float32]:
    """HxW about a photo -> the same about the canvas' cells of `stride` pixels, 0 where there is no photo."""
    canvas = np.zeros(frame.canvas, np.float32)
    rows, columns = frame.inner
    canvas[:rows, :columns] = cv2.resize(values, frame.inner[::-1], interpolation=cv2.INTER_AREA)
    cells = frame.canvas[1] // stride, frame.canvas[0] // stride
    return np.asarray(cv2.resize(canvas, cells, interpolation=cv2.INTER_AREA), dtype=np.float32)


def to_canvas(logits: Tensor, frame: Frame) -> Tensor:
    """(N, 1, h, w) logits on the canvas' grid -> (N, 1, H, W) probabilities of the canvas' pixels."""
    return F.interpolate(logits, size=frame.canvas, mode="bilinear", align_corners=False).sigmoid()


def to_photos(logits: Tensor, frames: Sequence[Frame]) -> list[NDArray[np.float32]]:
    """(N, 1, h, w) logits on the canvas' grid -> N HxW probabilities, each at its photo's own size."""
    probabilities = to_canvas(logits, frames[0])[:, 0].cpu().numpy()
    return [_to_photo(probability, frame) for probability, frame in zip(probabilities, frames, strict=True)]


def _to_photo(probability: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    rows, columns = frame.inner
    full = cv2.resize(probability[:rows, :columns], frame.size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, dtype=np.float32)
