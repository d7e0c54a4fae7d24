"""Photos as published models take them, and where they lie on the canvas.

Each equals what the model's own processor makes of a photo, within rounding; but no torchvision is needed.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling, fromarray
from torch import Tensor
from torch.nn import functional as F

from ris_core.inference.frame import Frame, Image

Size: TypeAlias = tuple[int, int]
# Mean and standard deviation of red, green and blue in [0, 255], as `encoders.pixels` has them.
Scale: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

# In sigmas: how far a Gaussian reaches, as in scipy.ndimage.
_REACH = 4.0


def resized(image: Image, size: Size, resampling: Resampling = Resampling.BILINEAR) -> Image:
    """HxWx3 uint8 -> the same at `size`, (h, w), smoothed where it shrinks."""
    if image.shape[:2] == size:
        return image
    return np.array(fromarray(image).resize(size[::-1], resampling), dtype=np.uint8)


def normalised(pixels: NDArray[np.uint8] | NDArray[np.float32], scale: Scale) -> Tensor:
    """HxWx3 in [0, 255] -> (3, H, W) float32 of zero mean and unit deviation over the photos of `scale`."""
    mean, deviation = (np.asarray(values, np.float32) for values in scale)
    return torch.from_numpy((pixels.astype(np.float32) - mean) / deviation).permute(2, 0, 1).contiguous()


def padded(pixels: Tensor, canvas: Size) -> Tensor:
    """(C, h, w) -> (C, H, W) of `canvas`, zeros to the right and below."""
    return F.pad(pixels, (0, canvas[1] - pixels.shape[2], 0, canvas[0] - pixels.shape[1]))


def stretched_frame(image: Image, side: int) -> Frame:
    """That of HxWx3 which fills a square canvas, whatever its shape."""
    height, width = image.shape[:2]
    return Frame((side, side), (side, side), (height, width))


def fitted_frame(image: Image, side: int) -> Frame:
    """That of HxWx3 which keeps its shape in the upper left corner of a square canvas."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    inner = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    return Frame((side, side), inner, (height, width))


def bounded_size(size: Size, shortest: int, longest: int, least: int = 1) -> Size:
    """(h, w) with its shorter side scaled to `shortest`, less where the other would be longer than `longest`.

    No side comes out below `least`, though the shape suffers.
    """
    short, long = min(size), max(size)
    exact = min(float(shortest), longest * short / long)
    near = round(exact)
    far = long if near == short else int(exact * long / short)
    near, far = max(near, least), max(far, least)
    return (near, far) if size[0] <= size[1] else (far, near)


def blurred_square(image: Image, side: int) -> NDArray[np.float32]:
    """HxWx3 -> (side, side, 3) in [0, 255]: padded with black to a square, blurred as far as it shrinks, and sampled.

    Equal to scipy's `gaussian_filter` and `zoom` on the padded photo, as OWLv2 learnt from; but the padding isn't made,
    and both are one sum over a few neighbours along each axis.
    """
    padded_to = max(image.shape[:2])
    rows = _sampled(image, *_taps(image.shape[0], padded_to, side))
    return _sampled(rows.swapaxes(0, 1), *_taps(image.shape[1], padded_to, side)).swapaxes(0, 1)


def _taps(length: int, padded_to: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(side, T) each: which of `length` lines every new line is the sum of, and how much each of them counts."""
    factor = padded_to / side
    places = (np.arange(side) + 0.5) * factor - 0.5
    first = np.floor(places)
    beyond = (places - first)[:, None]
    blur = _gaussian(max(0.0, (factor - 1) / 2))
    weights = (1 - beyond) * np.append(blur, 0.0) + beyond * np.insert(blur, 0, 0.0)
    lines = first.astype(np.intp)[:, None] + np.arange(len(blur) + 1) - len(blur) // 2
    # What lies beyond the square's edges is its mirror image.
    lines = np.clip(padded_to - 1 - np.abs(padded_to - 1 - np.abs(lines)), 0, None)
    return np.minimum(lines, length - 1), np.where(lines < length, weights, 0).astype(np.float32)


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """(2 R + 1,), its values at whole steps, which sum to 1."""
    steps = np.arange(-(reach := int(_REACH * sigma + 0.5)), reach + 1)
    values = np.exp(-0.5 * (steps / max(sigma, 1e-9)) ** 2)
    return np.asarray(values / values.sum())


def _sampled(
    lines: NDArray[np.uint8] | NDArray[np.float32], numbers: NDArray[np.intp], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(L, M, 3) -> (side, M, 3), tap after tap: all at once would need the memory of them all."""
    total = np.zeros((len(numbers), *lines.shape[1:]), np.float32)
    for own, share in zip(numbers.T, weights.T, strict=True):
        total += lines[own] * share[:, None, None]
    return total
