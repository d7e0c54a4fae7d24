"""Answers to prompts that point: clicks, a box, an earlier mask, on a photo's embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ris_core.encoders.transfer import send
from ris_core.errors import PromptError
from ris_core.inference import readout
from ris_core.inference.frame import Frame, to_grid
from ris_core.inference.passes import grouped
from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.inference.readout import Heard
from ris_core.masks import Mask
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.interactive import SURE, VisualPrompts
from ris_core.models.layers import join_photos

# A pixel belongs to a mask from this probability on.
_LIKELY = 0.5
# The logits of an earlier answer stay within this, as they were in training.
MOST = 6.0
# What lies further outside a box than this share of it isn't meant.
_SLACK = 0.03


class VisualRequest(NamedTuple):
    """A prompt that points. embedding, frame: of its photo. said: HxW in [0, 1], what its sentence alone found."""

    embedding: ImageEmbedding
    frame: Frame
    prompt: Prompt
    said: NDArray[np.float32] | None


class VisualSegmenter:
    """A model's interactive decoder, asked by prompts."""

    def __init__(self, model: RISModel, together: Callable[[tuple[int, int]], int], masks_on_device: bool) -> None:
        """together: how many prompts on a canvas go through the decoder at once, at most. Else as for `Predictor`."""
        self._model, self._together, self._masks_on_device = model, together, masks_on_device

    @torch.inference_mode()
    def segment(self, requests: Sequence[VisualRequest]) -> list[Prediction]:
        """Answer prompts, those about photos of one canvas together. Raises PromptError if it can't be pointed at.

        Where words found something, they may have found another thing than was pointed at: it is asked with and without
        them. A box alone is asked for with and without a click in its middle. What is likelier right is answered.
        """
        if not requests:
            return []
        heard = grouped(requests, lambda request: request.frame.canvas, self._together, self._hear_ways)
        qualities = iter(readout.scores([way for ways in heard for way in ways]))
        best = [max(((next(qualities)[0], way) for way in ways), key=itemgetter(0)) for ways in heard]
        prompts = [request.prompt for request in requests]
        return self._draw(prompts, [way for _, way in best], [quality for quality, _ in best])

    def _draw(self, prompts: Sequence[Prompt], heard: Sequence[Heard], qualities: Sequence[float]) -> list[Prediction]:
        if not self._masks_on_device:
            return list(map(pointed_answer, prompts, readout.probabilities(heard), qualities))
        masks = readout.masks(heard, _LIKELY)
        return [
            _pointed_answer(prompt, mask, partial(_probability, one), quality)
            for prompt, mask, one, quality in zip(prompts, masks, heard, qualities, strict=True)
        ]

    def _hear_ways(self, requests: Sequence[VisualRequest]) -> list[list[Heard]]:
        """Each request's ways to be asked, answered."""
        ways = [_ways(request) for request in requests]
        answers = iter(self._hear([way for own in ways for way in own]))
        return [[next(answers) for _ in own] for own in ways]

    def _hear(self, requests: Sequence[VisualRequest]) -> list[Heard]:
        decoder = self._model.interactive
        if decoder is None:
            raise PromptError(
                "This model was never trained with clicks and boxes. Use words, or train them with `ris train-clicks`."
            )
        numbers: dict[int, int] = {}
        index = [numbers.setdefault(id(request.embedding), len(numbers)) for request in requests]
        embedding = join_photos(list({id(request.embedding): request.embedding for request in requests}.values()))
        device = self._model.device
        output = decoder(embedding, _prompts(requests, device), send(torch.tensor(index), device))
        qualities = output.quality.float().sigmoid()[:, None]
        frames = [request.frame for request in requests]
        return [Heard(*parts) for parts in zip(output.mask, qualities, frames, strict=True)]


def _probability(heard: Heard) -> NDArray[np.float32]:
    return readout.probabilities([heard])[0]


def _ways(request: VisualRequest) -> list[VisualRequest]:
    """The request, and other ways to ask for the same."""
    said, prompt = request.said, request.prompt
    if prompt.box and not prompt.points and prompt.mask is None and said is None:
        box = prompt.box
        middle = Point((box.left + box.right) / 2, (box.top + box.bottom) / 2)
        return [request, request._replace(prompt=replace(prompt, points=[middle]))]
    pointed = prompt.box is not None or any(point.positive for point in prompt.points)
    return [request, request._replace(said=None)] if said is not None and pointed else [request]


def pointed_answer(prompt: Prompt, probability: NDArray[np.float32], quality: float) -> Prediction:
    """HxW and the IoU expected -> the answer to who pointed; never without a mask."""
    return _pointed_answer(prompt, probability >= _LIKELY, lambda: probability, quality)


def _pointed_answer(
    prompt: Prompt, mask: Mask, probability: Callable[[], NDArray[np.float32]], quality: float
) -> Prediction:
    """`pointed_answer` from the mask; the probabilities are read only where it is empty."""
    if prompt.box:
        mask = mask & _around(prompt.box, mask.shape)
    if not mask.any():
        mask = _nearest(prompt, probability())
    return Prediction(prompt.sentence, mask, True, 1.0, quality, quality)


def _around(box: Box, shape: tuple[int, ...]) -> Mask:
    """HxW of that shape: the box and a little more, as people draw."""
    height, width = shape
    across, down = _SLACK * (box.right - box.left), _SLACK * (box.bottom - box.top)
    rows = slice(max(0, round((box.top - down) * height)), round((box.bottom + down) * height))
    columns = slice(max(0, round((box.left - across) * width)), round((box.right + across) * width))
    around = np.zeros(shape, np.bool_)
    around[rows, columns] = True
    return around


def _nearest(prompt: Prompt, probability: NDArray[np.float32]) -> Mask:
    """The best guess where no pixel is likely: what is at the first click, or likeliest of all."""
    height, width = probability.shape
    clicked = [point for point in prompt.points if point.positive]
    row, column = divmod(int(probability.argmax()), width)
    if clicked:
        row, column = min(int(clicked[0].y * height), height - 1), min(int(clicked[0].x * width), width - 1)
    likely = (probability >= probability[row, column] * 0.5).astype(np.uint8)
    _, parts = cv2.connectedComponents(likely)
    return np.asarray(parts == parts[row, column], dtype=np.bool_)


def _prompts(requests: Sequence[VisualRequest], device: torch.device) -> VisualPrompts:
    """As the decoder takes them: in pixels of the canvas."""
    longest = max(1, *(len(request.prompt.points) for request in requests))
    points, labels = torch.zeros(len(requests), longest, 2), torch.full((len(requests), longest), -1)
    boxes = torch.full((len(requests), 4), float("nan"))
    for number, (_, frame, prompt, _) in enumerate(requests):
        rows, columns = frame.inner
        for place, point in enumerate(prompt.points):
            points[number, place] = torch.tensor([point.x * columns, point.y * rows])
            labels[number, place] = int(point.positive)
        if box := prompt.box:
            boxes[number] = torch.tensor([box.left * columns, box.top * rows, box.right * columns, box.bottom * rows])
    mask = torch.stack([_earlier(request) for request in requests])
    return VisualPrompts(*(send(part, device) for part in (points, labels, boxes, mask)))


def _earlier(request: VisualRequest) -> Tensor:
    """(1, H/4, W/4): the logits of what is to be mended, 0 where nothing is."""
    rows, columns = request.frame.canvas
    logits = earlier_logits(request.frame, request.prompt, request.said)
    return torch.zeros(1, rows // 4, columns // 4) if logits is None else logits[None]


def earlier_logits(frame: Frame, prompt: Prompt, said: NDArray[np.float32] | None) -> Tensor | None:
    """(H/4, W/4) of the canvas: the logits of the answer to be mended, or of what the sentence found; None: neither."""
    if prompt.mask is not None:
        return torch.from_numpy(SURE * (2 * to_grid(prompt.mask.astype(np.float32), frame) - 1))
    if said is not None:
        return torch.logit(torch.from_numpy(to_grid(said, frame)), 1e-4).clamp(-MOST, MOST)
    return None
