"""What choosing the next label wants to know of an answer: where it lies among others, how far the model wavers.

An embedding is two directions side by side: the sentence's, and that of the deepest image features inside the mask
(inside the whole photo where nothing is found), both of length 1. So two answers are alike if alike things were asked
and found.

Disagreement is what is left of 1 when PASSES answers are laid over each other two by two, each from features of which
other channels are dropped (Monte Carlo dropout, Gal and Ghahramani 2016, on the features that the decoder reads, since
the decoders have no dropout of their own; the rate is ours). What is compared is the probability of each pixel times
that of presence, by the soft IoU: sum of minima over sum of maxima. Which channels are dropped depends on the seed
alone, so photos and prompts beside it make no difference. The photo isn't encoded again: it costs PASSES more passes
through the decoder, about as many as a prompt each.
"""

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ris_core.encoders.transfer import send
from ris_core.inference.frame import Frame
from ris_core.inference.prediction import PASSES, AssessedPrediction, Prediction, RawPrediction, Vector
from ris_core.inference.segmenter import PreparedImage, Segmenter
from ris_core.masks import Mask
from ris_core.models.layers import rebuild

# Measured on COCO photos: at this rate disagreement tells errors as well as the score does (rank correlation 0.46).
_DROPPED = 0.05
_NOTHING = 1e-6


def assess(
    segmenter: Segmenter, requests: Sequence[tuple[PreparedImage, Sequence[str]]], passes: int = 0, seed: int = 0
) -> list[list[AssessedPrediction]]:
    """`Segmenter.segment_all`, which also says what it raises; without `passes`, or from a model that can't
    be asked under dropout, there is no disagreement.
    """
    answers = segmenter.segment_all(requests)
    disagreement = iter(disagreements(segmenter, requests, passes, seed) if passes and segmenter.wavers else [])
    return [
        [
            AssessedPrediction(**vars(prediction), embedding=embedding, disagreement=next(disagreement, None))
            for prediction, embedding in zip(predictions, embed(segmenter, image, predictions), strict=True)
        ]
        for (image, _), predictions in zip(requests, answers, strict=True)
    ]


@torch.inference_mode()
def embed(segmenter: Segmenter, image: PreparedImage, predictions: Sequence[Prediction]) -> list[Vector]:
    """The embeddings (D,) of answers about one photo. Raises OutOfMemory."""
    if not predictions:
        return []
    sentences = segmenter.vectors([prediction.prompt for prediction in predictions])
    features = segmenter.deepest_features(image)
    things = torch.stack([_inside(features, image.frame, prediction.mask) for prediction in predictions])
    directions = [F.normalize(vectors.float().cpu(), dim=1) for vectors in (sentences, things)]
    return list(torch.cat(directions, dim=1).numpy())


@torch.inference_mode()
def disagreements(
    segmenter: Segmenter, requests: Sequence[tuple[PreparedImage, Sequence[str]]], passes: int = PASSES, seed: int = 0
) -> list[float]:
    """One after the other, how far each prompt's answers lie apart, [0, 1]; raises as `assess` does."""
    by_pass: list[list[RawPrediction]] = []
    for number in range(passes):
        thinned = {id(image): _thinned(image, seed + number) for image, _ in requests}
        by_pass.append(segmenter.predict_raw([(thinned[id(image)], prompts) for image, prompts in requests]))
    return [disagreement(answers) for answers in zip(*by_pass, strict=True)]


def disagreement(answers: Sequence[RawPrediction]) -> float:
    """How far answers to one prompt lie apart, [0, 1]; 0 for a single one."""
    seen = [answer.presence * answer.probability for answer in answers]
    pairs = list(combinations(seen, 2))
    return 1 - sum(_soft_iou(*pair) for pair in pairs) / len(pairs) if pairs else 0.0


def _soft_iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
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
    return PreparedImage(levels, image.frame, image.interactive)


def _drop(features: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
    by_cell = features.shape[-2:] == valid.shape[-2:]
    shape = (1, features.shape[1], 1, 1) if by_cell else (features.shape[-1],)
    kept = torch.rand(shape, generator=generator) >= _DROPPED
    return features * send((kept / (1 - _DROPPED)).to(features.dtype), features.device)


def _inside(features: Tensor, frame: Frame, mask: Mask) -> Tensor:
    """(C, H, W), 0 where there is no photo -> (C,), their sum over a mask, or over all where it is empty."""
    rows, columns = frame.inner
    canvas = np.zeros(frame.canvas, dtype=np.float32)
    canvas[:rows, :columns] = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    shares = cv2.resize(canvas, (features.shape[2], features.shape[1]), interpolation=cv2.INTER_AREA)
    weights = send(torch.from_numpy(shares).to(features.dtype), features.device)
    inside = (features * weights).sum(dim=(1, 2))
    # A thin mask may touch no cell that counts as photo.
    return torch.where(inside.any(), inside, features.sum(dim=(1, 2)))
