"""A model's figures on a dataset, at the photos' own resolution, and the operating point that validation data fixes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ris_core.checkpoint import OperatingPoint
from ris_core.data.batches import by_photo
from ris_core.data.folder import Sample
from ris_core.images import read_image
from ris_core.metrics import Score, score, summarise
from ris_core.predictor import Predictor

Progress = Callable[[int], None]

ACCEPTED = 0.95
_MASK_THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


@dataclass(frozen=True)
class Report:
    """`scores[i]` belongs to `samples[i]`; `figures` are theirs together, see `metrics.summarise`."""

    samples: list[Sample]
    scores: list[Score]

    @property
    def figures(self) -> dict[str, float | int]:
        return summarise(self.scores)


def evaluate(predictor: Predictor, samples: Sequence[Sample], progress: Progress | None = None) -> Report:
    """Answer every sample at the predictor's operating point; `progress` hears how many are done.

    Raises:
        ImageError: a photo can't be read.
        DatasetError: a mask can't be decoded.
    """
    done: list[Sample] = []
    scores = []
    for photo in by_photo(samples):
        embedding = predictor.embed(read_image(photo[0].image))
        predictions = predictor.segment(embedding, [sample.sentence for sample in photo])
        for sample, prediction in zip(photo, predictions, strict=True):
            target = sample.mask() if sample.has_target else None
            scores.append(score(prediction.mask, target, not prediction.present))
        done += photo
        if progress:
            progress(len(done))
    return Report(done, scores)


def calibrate(predictor: Predictor, samples: Sequence[Sample]) -> OperatingPoint:
    """Fix the thresholds on `samples`, which should be validation data with targets.

    A pixel's is the one with the highest mean IoU. A thing's is the highest at which `ACCEPTED` of the targets are
    still answered: who types a prompt mostly sees the thing, so a wrong refusal costs more than a mask to delete.
    """
    ious, presence = [], []
    for photo in by_photo([sample for sample in samples if sample.has_target]):
        embedding = predictor.embed(read_image(photo[0].image))
        answers = predictor.maps([(embedding, [sample.sentence for sample in photo])])
        for sample, found in zip(photo, answers, strict=True):
            truth = sample.mask()
            ious.append([score(found.probability >= threshold, truth, False).iou for threshold in _MASK_THRESHOLDS])
            presence.append(found.presence)
    best = int(np.mean(ious, axis=0).argmax())
    lowest = float(np.quantile(presence, 1 - ACCEPTED))
    # Rounded down: up would refuse more.
    return OperatingPoint(predictor.point.side, _MASK_THRESHOLDS[best], math.floor(lowest * 100) / 100)
