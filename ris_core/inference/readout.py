"""From what a decoder says, still on its device, to numbers and masks where they are used: with as few transfers as
there can be, since each waits for all that the device has been given before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ris_core.encoders.transfer import send
from ris_core.inference.frame import Frame, to_canvas, to_photos
from ris_core.inference.passes import grouped, in_batches
from ris_core.masks import Mask

# Brought to the canvas together, and pixels of photos that are made into masks together.
_CANVASES, _PIXELS = 32, 1 << 26


class Heard(NamedTuple):
    """An answer on its device. logits: (1, h, w), the mask on the canvas' grid. scores: (K,), float32. frame: where."""

    logits: Tensor
    scores: Tensor
    frame: Frame


def scores(heard: Sequence[Heard], beside: Tensor | None = None) -> list[list[float]]:
    """The K scores of each, and what else is known of each (N,) after them; one transfer."""
    stacked = torch.stack([one.scores for one in heard])
    together = stacked if beside is None else torch.cat([stacked, send(beside, stacked.device)[:, None]], dim=1)
    numbers: list[list[float]] = together.tolist()
    return numbers


def probabilities(heard: Sequence[Heard]) -> list[NDArray[np.float32]]:
    """HxW of each, at its photo's own size; a transfer for each canvas, made larger by OpenCV."""
    return grouped(heard, lambda one: one.frame.canvas, lambda canvas: _CANVASES, _probabilities)


def masks(heard: Sequence[Heard], threshold: float) -> list[Mask]:
    """HxW bool of each, at its photo's own size: where `probabilities` reaches the threshold, up to rounding.

    Made where the logits are and brought from there at a byte a pixel, all with one transfer unless they are huge.
    """
    largest = max((one.frame.size[0] * one.frame.size[1] for one in heard), default=1)
    return list(in_batches(heard, max(1, _PIXELS // largest), partial(_masks, threshold=threshold)))


def _probabilities(heard: Sequence[Heard]) -> list[NDArray[np.float32]]:
    return to_photos(torch.stack([one.logits for one in heard]).float(), [one.frame for one in heard])


def _masks(heard: Sequence[Heard], threshold: float) -> list[Mask]:
    alike: dict[Frame, list[int]] = defaultdict(list)
    for number, one in enumerate(heard):
        alike[one.frame].append(number)
    drawn = [
        _drawn(torch.stack([heard[number].logits for number in numbers]), frame) >= threshold
        for frame, numbers in alike.items()
    ]
    flat = torch.cat([masks.flatten() for masks in drawn]).cpu()
    parts = torch.split(flat, [masks.numel() for masks in drawn])
    found: dict[int, Mask] = {}
    for part, (frame, numbers) in zip(parts, alike.items(), strict=True):
        found.update(zip(numbers, part.view(-1, *frame.size).numpy(), strict=True))
    return [found[number] for number in range(len(heard))]


def _drawn(logits: Tensor, frame: Frame) -> Tensor:
    """(N, 1, h, w) logits on the canvas' grid -> (N, 1, H, W) probabilities at the size of the photo.

    Interpolated as `cv2.resize` does with INTER_LINEAR: by the pixels' centres, and without smoothing where it shrinks.
    """
    rows, columns = frame.inner
    photo = to_canvas(logits.float(), frame)[..., :rows, :columns]
    return F.interpolate(photo, size=frame.size, mode="bilinear", align_corners=False)
