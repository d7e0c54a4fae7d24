"""Copy-paste: a thing cut out of one photo and laid over another.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (CVPR 2021);
edges are blended over a few pixels. Knows arrays alone: `collage` sees to it that what is said of the host stays true.
"""

import random
from typing import NamedTuple

import cv2
import numpy as np

from ris_core.images import Pixels
from ris_core.masks import Mask, bounding_box

# Of a thing's own size, and of the host's sides, which it never exceeds: it should hide a part, not the photo.
SCALES, LARGEST = (0.5, 1.5), 0.6
# Of a side, in pixels, and of the host's pixels: below, nobody could tell what it is, or would point at it.
_LEAST, _SHARE = 8, 0.005
# Standard deviation of the blend, in pixels of the host.
_SOFT = 1.0


class Cutting(NamedTuple):
    """A thing cut out along its bounding box. image: hxwx3 RGB. mask: hxw."""

    image: Pixels
    mask: Mask


class Pasted(NamedTuple):
    """A host with a thing laid over. image: HxWx3 RGB. mask: HxW, the thing's; what it covers is hidden."""

    image: Pixels
    mask: Mask


def cut(image: Pixels, mask: Mask) -> Cutting:
    """A thing and its pixels, HxWx3 and HxW, within its bounding box. Raises ValueError if the mask is empty."""
    left, top, width, height = (int(side) for side in bounding_box(mask))
    if not width:
        raise ValueError("There is nothing to cut out: the mask is empty.")
    window = slice(top, top + height), slice(left, left + width)
    return Cutting(image[window].copy(), mask[window].copy())


def paste(host: Pixels, thing: Cutting, rng: random.Random) -> Pasted | None:
    """Lay a thing over a photo, HxWx3 RGB, resized and at a place drawn by chance, all of it in view.

    Nothing that is passed in changes, and the same randomness gives the same.

    Returns:
        None where the thing would be too small to be told.
    """
    resized = _resize(thing, host.shape[:2], rng)
    if resized is None or resized.mask.sum() < _SHARE * host.shape[0] * host.shape[1]:
        return None
    height, width = resized.mask.shape
    top, left = rng.randint(0, host.shape[0] - height), rng.randint(0, host.shape[1] - width)
    window = slice(top, top + height), slice(left, left + width)
    there = np.zeros(host.shape[:2], dtype=bool)
    there[window] = resized.mask
    image = host.copy()
    image[window] = _blend(host[window], resized)
    return Pasted(image, there)


def _resize(thing: Cutting, size: tuple[int, ...], rng: random.Random) -> Cutting | None:
    height, width = thing.mask.shape
    scale = min(rng.uniform(*SCALES), LARGEST * size[0] / height, LARGEST * size[1] / width)
    across, down = round(scale * width), round(scale * height)
    if min(across, down) < _LEAST:
        return None
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(thing.image, (across, down), interpolation=way)
    covered = cv2.resize(thing.mask.astype(np.float32), (across, down), interpolation=way)
    return Cutting(np.asarray(image, dtype=np.uint8), covered >= 0.5)


def _blend(host: Pixels, thing: Cutting) -> Pixels:
    """Fade the thing's pixels out towards its edge, never beyond: outside the mask they are its own background."""
    inside = cv2.GaussianBlur(thing.mask.astype(np.float32), (0, 0), _SOFT, borderType=cv2.BORDER_CONSTANT)
    # A straight edge is blurred to a half: that is where the thing begins.
    weight = np.clip(2 * inside - 1, 0, 1)[:, :, None]
    return np.asarray(np.rint(weight * thing.image + (1 - weight) * host), dtype=np.uint8)
