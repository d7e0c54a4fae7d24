"""Eight real masks learnt by heart: what every design has to be able to do before anything else."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.projects.samples import corrections, photos
from ris_core.images import read_image
from ris_core.losses import total_loss
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.layers import valid_cells

SAID = {
    "astronaut.png": ("the woman", "the flag"),
    "coffee.png": ("the cup", "the table"),
    "china.jpg": ("the temple", "the sky"),
    "camera.png": ("the man", "the grass"),
}
_CANVAS = (128, 192)
_WARM = 10


class Lesson(NamedTuple):
    """Four photos and eight sentences.

    pixels: (4, 3, H, W). valid: (4, 1, H, W), two of the photos letterboxed. index: (8,) the photo of each sentence.
    targets: (8, 1, H/4, W/4) share of each cell covered.
    """

    pixels: Tensor
    valid: Tensor
    sentences: list[str]
    index: Tensor
    targets: Tensor


def lesson() -> Lesson:
    """The four photos shrunk onto one canvas, top left."""
    files = dict(photos())
    masks = {(sample.photo, prompt): sample for sample in corrections() for prompt in sample.prompts}
    pixels, valid = torch.zeros(len(SAID), 3, *_CANVAS), torch.zeros(len(SAID), 1, *_CANVAS)
    targets = []
    for number, (name, prompts) in enumerate(SAID.items()):
        picture = _shrink(read_image(files[name]))
        height, width = picture.shape[:2]
        pixels[number, :, :height, :width] = torch.from_numpy(picture).permute(2, 0, 1)
        valid[number, :, :height, :width] = 1
        for prompt in prompts:
            target = torch.zeros(1, 1, *_CANVAS)
            shrunk = _shrink(masks[name, prompt].mask().astype(np.float32))
            target[0, 0, :height, :width] = torch.from_numpy(shrunk)
            targets.append(F.avg_pool2d(target, 4))
    sentences = [prompt for prompts in SAID.values() for prompt in prompts]
    index = torch.arange(len(SAID)).repeat_interleave(2)
    return Lesson(pixels, valid, sentences, index, torch.cat(targets))


def overfit(model: RISModel, steps: int = 150, rate: float = 2e-3) -> float:
    """Train `model` in place on the eight -> their mean IoU at a quarter of the canvas, in evaluation mode.

    The encoders are frozen: without early fusion, what they make of photos and sentences is computed once.
    """
    taught = lesson()
    with torch.no_grad():
        text = model.encode_text(taught.sentences)
        levels = model.image_encoder(taught.pixels * taught.valid)
    valid = valid_cells(taught.valid, taught.targets)[taught.index]
    present = torch.ones(len(taught.sentences))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / _WARM) * (1 + math.cos(math.pi * step / steps)) / 2
        output = model(_read(model, levels, taught), text, taught.index)
        loss = total_loss(output, taught.targets, valid, present, model.loss)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        mask = model(_read(model, levels, taught), text, taught.index).mask
    return _mean_iou((mask > 0) & (valid > 0), (taught.targets > 0.5) & (valid > 0))


def _read(model: RISModel, levels: list[Tensor], taught: Lesson) -> ImageEmbedding:
    if model.early_fusion:
        return model.encode_image(taught.pixels, taught.valid)
    return model.read_levels(levels, taught.valid)


def _mean_iou(first: Tensor, second: Tensor) -> float:
    """(N, 1, h, w) bool each -> the mean over N."""
    overlap, union = (first & second).sum(dim=(1, 2, 3)), (first | second).sum(dim=(1, 2, 3))
    return float((overlap / union).mean())


def _shrink(picture: np.ndarray) -> np.ndarray:
    """HxW or HxWx3 onto the canvas, its proportions kept."""
    scale = min(_CANVAS[0] / picture.shape[0], _CANVAS[1] / picture.shape[1])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
