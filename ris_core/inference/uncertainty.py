"""What choosing the next label wants to know of an answer: where it lies among others, how far the model wavers.

An embedding is two directions side by side: the sentence's, and that of the image features inside the mask (inside the
whole photo where nothing is found), both of length 1. So two answers are alike if alike things were asked and found.

Disagreement is what is left of 1 when PASSES answers are laid over each other two by two, each from features of which
other channels are dropped (Monte Carlo dropout, Gal and Ghahramani 2016, on the features that the decoder reads, since
the decoders have no dropout of their own; the rate is ours). What is compared is the probability of each pixel times
that of presence, by the soft IoU: sum of minima over sum of maxima. Which channels are dropped depends on the seed
alone, so photos and prompts beside it make no difference. The photo isn't encoded again: it costs PASSES more passes
through the decoder, about as many as a prompt each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ris_core.inference.predictor import Map, Prediction, Predictor, PreparedImage
from ris_core.masks import Mask
from ris_core.models.layers import rebuild

PASSES = 4
# Measured on COCO photos: at this rate disagreement tells errors as well as the score does (rank correlation 0.46).
_DROPPED = 0.05
_NOTHING = 1e-6

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Studied(Prediction):
    """An answer with its embedding (D,) and, if that was asked for, its disagreement in [0, 1]."""

    embedding: Vector
    disagreement: float | None = None


def study(
    predictor: Predictor, requests: Sequence[tuple[PreparedImage, Sequence[str]]], passes: int = 0, seed: int = 0
) -> list[list[Studied]]:
    """`Predictor.segment_all`, and what is to be known besides; without `passes` there is no disagreement.

    Raises:
        PromptError: a prompt is empty.
        OutOfMemory: not even one of them fits.
    """
    answers = predictor.segment_all(requests)
    wavering = iter(disagreements(predictor, requests, passes, seed) if passes else [])
    return [
        [
            Studied(**vars(answer), embedding=embedding, disagreement=next(wavering, None))
            for answer, embedding in zip(each, embed(predictor, image, each), strict=True)
        ]
        for (image, _), each in zip(requests, answers, strict=True)
    ]


@torch.inference_mode()
def embed(predictor: Predictor, image: PreparedImage, answers: Sequence[Prediction]) -> list[Vector]:
    """The embeddings (D,) of answers about one photo."""
    if not answers:
        return []
    sentences = predictor.vectors([answer.prompt for answer in answers])
    found = torch.stack([_inside(image, answer.mask) for answer in answers])
    both = [torch.nn.functional.normalize(part.float().cpu(), dim=1) for part in (sentences, found)]
    return list(torch.cat(both, dim=1).numpy())


@torch.inference_mode()
def disagreements(
    predictor: Predictor, requests: Sequence[tuple[PreparedImage, Sequence[str]]], passes: int = PASSES, seed: int = 0
) -> list[float]:
    """One after the other, how far each prompt's answers lie apart, [0, 1]."""
    found: list[list[Map]] = []
    for number in range(passes):
        photos = {id(image): _thinned(image, seed + number) for image, _ in requests}
        found.append(predictor.maps([(photos[id(image)], prompts) for image, prompts in requests]))
    return [_apart(maps) for maps in zip(*found, strict=True)]


def _apart(maps: Sequence[Map]) -> float:
    answers = [each.presence * each.probability for each in maps]
    pairs = list(combinations(answers, 2))
    return 1 - sum(_overlap(*pair) for pair in pairs) / len(pairs) if pairs else 0.0


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of probabilities at the same pixels. Two that see next to nothing agree."""
    either = float(np.maximum(one, other).sum(dtype=np.float64))
    return float(np.minimum(one, other).sum(dtype=np.float64)) / either if either > _NOTHING * one.size else 1.0


def _thinned(image: PreparedImage, seed: int) -> PreparedImage:
    """The photo with some channels of its features dropped, the others stronger in turn."""
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(
        rebuild(level, [*(_drop(part, level[-1], generator) for part in level[:-1]), level[-1]])
        for level in image.levels
    )
    return type(image)(levels, image.frame)


def _drop(features: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
    by_cell = features.shape[-2:] == valid.shape[-2:]
    shape = (1, features.shape[1], 1, 1) if by_cell else (features.shape[-1],)
    kept = torch.rand(shape, generator=generator) >= _DROPPED
    return features * (kept / (1 - _DROPPED)).to(features)


def _inside(image: PreparedImage, mask: Mask) -> Tensor:
    """(C,), the mean of the deepest features inside a mask, or of all where it is empty."""
    cells, valid = _cells(image.levels[-1])
    rows, columns = image.frame.inner
    canvas = np.zeros(image.frame.canvas, dtype=np.float32)
    canvas[:rows, :columns] = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    grid = cv2.resize(canvas, (valid.shape[1], valid.shape[0]), interpolation=cv2.INTER_AREA)
    weights = torch.from_numpy(grid).to(valid) * valid
    weights = (weights if float(weights.sum()) > _NOTHING else valid).flatten().float()
    return (weights / weights.sum()) @ cells.float()


def _cells(level: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What a design keeps of a photo at one level -> features (HW, C) and where there is photo (H, W)."""
    features, valid = level[0][0], level[-1][0, 0]
    if features.shape[-2:] == valid.shape:
        return features.flatten(1).T, valid
    # Cells come before channels; where there are several maps, their mean says what is where.
    return features.reshape(-1, *features.shape[-2:]).mean(dim=0), valid
