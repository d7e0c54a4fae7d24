"""Photos of one canvas on their way to a model: as bytes to its device, and made into numbers there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from ris_core.encoders.transfer import send, staging
from ris_core.inference.frame import Frame, Image, fit

# Each photo's resizing takes a millisecond or two, and OpenCV has threads of its own.
_THREADS = 4


class Fitter:
    """Photos brought to the size at which a model reads them: on a CPU when they are needed; else in threads, while the
    device still works on those before.
    """

    def __init__(self, device: torch.device) -> None:
        self._threads = None if device.type == "cpu" else ThreadPoolExecutor(_THREADS, "fit")

    def __call__(self, photos: Sequence[Image], frames: Sequence[Frame]) -> list[Callable[[], Image]]:
        """HxWx3 each -> what gives the photo at `Frame.inner`."""
        if self._threads is None:
            return [partial(fit, *pair) for pair in zip(photos, frames, strict=True)]
        return [self._threads.submit(fit, *pair).result for pair in zip(photos, frames, strict=True)]


def on_canvas(photos: Sequence[Image], frames: Sequence[Frame], device: torch.device) -> tuple[Tensor, Tensor]:
    """N photos, each fitted to its frame's `inner`, all of one canvas -> pixels and valid, as models take them.

    pixels: (N, 3, H, W) in [0, 255]. valid: (N, 1, H, W), 1 where there is photo; both float32, on `device`.
    """
    place = _here if device.type == "cpu" else from_bytes
    return place(photos, frames, device)


def _here(photos: Sequence[Image], frames: Sequence[Frame], _device: torch.device) -> tuple[Tensor, Tensor]:
    canvas = frames[0].canvas
    pixels, valid = torch.zeros(len(photos), 3, *canvas), torch.zeros(len(photos), 1, *canvas)
    for number, (photo, frame) in enumerate(zip(photos, frames, strict=True)):
        rows, columns = frame.inner
        pixels[number, :, :rows, :columns] = torch.from_numpy(photo).permute(2, 0, 1)
        valid[number, :, :rows, :columns] = 1
    return pixels, valid


def from_bytes(photos: Sequence[Image], frames: Sequence[Frame], device: torch.device) -> tuple[Tensor, Tensor]:
    """A quarter of the bytes travel, and nobody waits for them."""
    height, width = frames[0].canvas
    staged = staging((len(photos), height, width, 3), torch.uint8, device).zero_()
    for number, (photo, frame) in enumerate(zip(photos, frames, strict=True)):
        rows, columns = frame.inner
        staged[number, :rows, :columns] = torch.from_numpy(photo)
    # Already channels last, which is how convolutions on a GPU are fastest.
    pixels = send(staged, device).permute(0, 3, 1, 2).float()
    inner = send(torch.tensor([frame.inner for frame in frames]), device)[:, :, None, None]
    in_height = torch.arange(height, device=device)[:, None] < inner[:, :1]
    in_width = torch.arange(width, device=device)[None] < inner[:, 1:]
    return pixels, (in_height & in_width).float()
