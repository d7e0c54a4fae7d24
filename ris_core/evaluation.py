"""A model's figures on a dataset, at the photos' own resolution, and the operating point that validation data fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ris_core.checkpoint import OperatingPoint
from ris_core.data.batches import by_photo
from ris_core.data.folder import Sample
from ris_core.images import read_image
from ris_core.metrics import Score, score, summarise
from ris_core.predictor import Predictor

Progress = Callable[[int], None]


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


def calibrate(
    predictor: Predictor,
    samples: Sequence[Sample],
    masks: Iterable[float] = np.arange(0.3, 0.65, 0.05),
    presences: Iterable[float] = np.arange(0.02, 0.9, 0.02),
) -> OperatingPoint:
    """The thresholds with the highest mean of `Score.correct` (gRefCOCO's gIoU) over `samples`: validation data."""
    masks, presences = np.array(list(masks)), np.array(list(presences))
    ious, presence, has_target = [], [], []
    for photo in by_photo(samples):
        embedding = predictor.embed(read_image(photo[0].image))
        answers = predictor.probabilities(embedding, [sample.sentence for sample in photo])
        for sample, (probability, there) in zip(photo, answers, strict=True):
            truth = sample.mask()
            ious.append([score(probability >= threshold, truth, False).iou for threshold in masks])
            presence.append(there)
            has_target.append(sample.has_target)
    target = np.array(has_target)
    accepted = np.array(presence)[None, :] >= presences[:, None]  # (P, N)
    gained = accepted[:, None, :] * np.array(ious).T[None]  # (P, M, N)
    correct = np.where(target, gained, ~accepted[:, None, :]).mean(axis=2)  # (P, M)
    best = np.unravel_index(correct.argmax(), correct.shape)
    return OperatingPoint(
        side=predictor.point.side,
        mask=round(float(masks[best[1]]), 2),
        presence=round(float(presences[best[0]]), 2),
    )
