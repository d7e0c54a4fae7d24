"""A model's figures on a dataset, and the operating point that validation data fixes; see also `convention`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
from PIL import Image as Picture

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data.derive.expressions import ExpressionKind
from ris_core.data.folder import Sample, by_photo
from ris_core.errors import DatasetError
from ris_core.evaluation.convention import ACCEPTED, Convention
from ris_core.evaluation.metrics import Score, interval, score, summarise
from ris_core.inference.calibration import (
    Bin,
    belief,
    corrected,
    fit_correction,
    fit_doubt,
    mean,
    misfit,
    reliability,
)
from ris_core.inference.frame import Image
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.segmenter import Segmenter, decide
from ris_core.masks import Mask

OnProgress = Callable[[int], None]

# How much presence may count in a mask's score: not at all where the quality that a model predicts knows of it.
_POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)
_MASK_THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
# Predicted together; a photo's prompts stay together, however many they are.
_PHOTOS, _PROMPTS = 8, 64


@dataclass(frozen=True)
class Report:
    """`scores[i]` belongs to `samples[i]`. seconds: how long the model took, photos read and masks compared aside."""

    samples: list[Sample]
    scores: list[Score]
    seconds: float = 0.0

    @property
    def figures(self) -> dict[str, float | int]:
        """See `metrics.summarise`."""
        return summarise(self.scores)

    @property
    def kinds(self) -> dict[str, dict[str, float | int]]:
        """The same of each `ExpressionKind`; kinds of another name come last."""
        groups: dict[str, list[Score]] = {kind: [] for kind in get_args(ExpressionKind)}
        for sample, result in zip(self.samples, self.scores, strict=True):
            groups.setdefault(sample.kind, []).append(result)
        return {kind: summarise(scores) for kind, scores in groups.items() if scores}

    @property
    def bins(self) -> list[Bin]:
        """How far the model's own scores can be believed."""
        return reliability([result.expected for result in self.scores], [result.correct for result in self.scores])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of mIoU over photos."""
        return interval(self.scores, [str(sample.image) for sample in self.samples])


class EvaluatedSample(NamedTuple):
    """One expression answered and judged.

    image: HxWx3, as the convention shows it. target: HxW, None for what isn't there. seconds: that the model took.
    """

    sample: Sample
    image: Image
    target: Mask | None
    prediction: Prediction
    score: Score
    seconds: float


def evaluate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    on_progress: OnProgress | None = None,
    convention: Convention = "original",
) -> Report:
    """Answer every sample; `on_progress` hears how many are done.

    Raises ImageError if a photo can't be read, DatasetError if a mask can't be decoded or a photo's size isn't as said.
    """
    done, scores, seconds = list[Sample](), list[Score](), 0.0
    for evaluated in evaluate_each(segmenter, samples, convention):
        done.append(evaluated.sample)
        scores.append(evaluated.score)
        seconds += evaluated.seconds
        if on_progress:
            on_progress(len(done))
    return Report(done, scores, seconds)


def evaluate_each(
    segmenter: Segmenter, samples: Sequence[Sample], convention: Convention = "original"
) -> Iterator[EvaluatedSample]:
    """Answer and judge every sample, photo by photo; raises as `evaluate` does."""
    point = segmenter.point
    if convention == "lavt":
        point = replace(point, mask=0.5, presence=0.0)
    for sample, image, raw, seconds in _predict(segmenter, samples, convention):
        prediction = decide(sample.sentence, raw, point)
        target = _target(sample, image) if sample.has_target else None
        judged = score(raw.probability >= point.mask, target, not prediction.present, prediction.score)
        judged = replace(judged, accepted=sample.origin == "accepted", distance=raw.distance)
        yield EvaluatedSample(sample, image, target, prediction, judged, seconds)


def calibrate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    accepted: float | None = ACCEPTED,
    on_progress: OnProgress | None = None,
    names: Sequence[str] = (),
) -> OperatingPoint:
    """Fix the operating point on validation data, at the photos' own size and the segmenter's side.

    1. A pixel's threshold is the one of 0.2, 0.25 ... 0.6 with the highest mean IoU over the targets.
    2. A thing's is the highest, in thousandths, at which at least the share `accepted` of the targets are answered. Who
       types a prompt mostly sees the thing, so a wrong refusal costs more than a mask to delete. Where `accepted` is
       None, both cost the same: of the share of targets answered and that of absent things refused, the smaller one is
       as large as can be.
    3. The scores of masks and of refusals are corrected to what they came to, see `calibration.fit_correction` and
       `fit_doubt`: how much presence counts in the score of a mask, and the distance from `names`, which the model was
       taught, in that of a refusal. The latter need `samples` of absent things; without them they stay as they are.

    Raises DatasetError if none of the samples has a target, or all have where shares are balanced; and as `evaluate`.
    """
    trials = []
    for sample, _, raw, _ in _predict(segmenter, samples, "original"):
        [distance] = segmenter.distances([sample.sentence], names) if names else [0.0]
        trials.append(_Trial.of(sample, raw._replace(distance=distance)))
        if on_progress:
            on_progress(len(trials))
    targets = [trial for trial in trials if trial.has_target]
    if not targets:
        raise DatasetError("No expression of the validation split has a target, so no operating point can be fixed.")
    best = max(range(len(_MASK_THRESHOLDS)), key=lambda number: mean([trial.ious[number] for trial in targets]))
    there = [trial.presence_at(best) for trial in targets]
    absent = [trial.presence_at(best) for trial in trials if not trial.has_target]
    lowest = balanced_presence_threshold(there, absent) if accepted is None else presence_threshold(there, accepted)
    kept = OperatingPoint(
        segmenter.point.side, refinement=segmenter.point.refinement, instance=segmenter.point.instance
    )
    point = replace(kept, mask=_MASK_THRESHOLDS[best], presence=lowest, names=names)
    point = replace(
        point, answer_presence=_presence_power([trial for trial in trials if trial.shown(best, point)], best)
    )
    answers = [trial.answer(best, point) for trial in trials]
    if absent:
        refusals = [answer[1:] for answer in answers if not answer.shown]
        point = replace(point, doubt=fit_doubt(*zip(*refusals, strict=True)) if refusals else 0.0)
    return _correct(point, answers, [trial.has_target for trial in trials])


class _Answer(NamedTuple):
    """shown: a mask, not a refusal. score: before it is believed less. came_to: in [0, 1]. distance: from a name."""

    shown: bool
    score: float
    came_to: float
    distance: float


class _Trial(NamedTuple):
    """A prediction at each of `_MASK_THRESHOLDS`. ious, filled: there the IoU, and whether there is a mask at all."""

    has_target: bool
    presence: float
    quality: float
    distance: float
    ious: list[float]
    filled: list[bool]

    def presence_at(self, number: int) -> float:
        """P(it is there) at a mask's threshold: without a mask there is nothing."""
        return self.presence if self.filled[number] else 0.0

    def shown(self, number: int, point: OperatingPoint) -> bool:
        """Whether there is a mask at that threshold."""
        return self.filled[number] and self.presence >= point.presence

    def answer(self, number: int, point: OperatingPoint) -> _Answer:
        """What the operating point makes of it, its score not yet corrected."""
        shown = self.shown(number, point)
        score = self.presence**point.answer_presence * self.quality if shown else 1 - self.presence
        return _Answer(shown, score, self.ious[number] if shown else float(not self.has_target), self.distance)

    @classmethod
    def of(cls, sample: Sample, raw: RawPrediction) -> _Trial:
        masks = [raw.probability >= threshold for threshold in _MASK_THRESHOLDS]
        target = sample.mask() if sample.has_target else None
        ious = [score(mask, target, False).iou for mask in masks]
        filled = [bool(mask.any()) for mask in masks]
        return cls(target is not None, raw.presence, raw.quality, raw.distance, ious, filled)


def _predict(
    segmenter: Segmenter, samples: Sequence[Sample], convention: Convention
) -> Iterator[tuple[Sample, Image, RawPrediction, float]]:
    """Samples with their photo, what the model says and the seconds that it took, photo by photo."""
    square = segmenter.point.side if convention == "lavt" else None
    for photos in _together(samples):
        images = [_read(photo[0], square) for photo in photos]
        started = time.perf_counter()
        sentences = [[sample.sentence for sample in photo] for photo in photos]
        predictions = segmenter.predict_raw(list(zip(segmenter.embed_all(images), sentences, strict=True)))
        pace = (time.perf_counter() - started) / len(predictions)
        pairs = [(sample, image) for photo, image in zip(photos, images, strict=True) for sample in photo]
        yield from ((*pair, raw, pace) for pair, raw in zip(pairs, predictions, strict=True))


def _together(samples: Sequence[Sample]) -> Iterator[list[list[Sample]]]:
    photos: list[list[Sample]] = []
    for photo in by_photo(samples):
        photos.append(photo)
        if len(photos) == _PHOTOS or sum(map(len, photos)) >= _PROMPTS:
            yield photos
            photos = []
    if photos:
        yield photos


def _read(sample: Sample, square: int | None) -> Image:
    image = sample.photo()
    return _resized(image, (square, square), Picture.Resampling.BILINEAR) if square else image


def _target(sample: Sample, image: Image) -> Mask:
    mask, size = sample.mask(), (image.shape[0], image.shape[1])
    if mask.shape == size:
        return mask
    return _resized(mask.astype(np.uint8), size, Picture.Resampling.NEAREST).astype(bool)


def _resized(pixels: Image, size: tuple[int, int], resampling: Picture.Resampling) -> Image:
    """To (height, width), by Pillow as in LAVT's code: OpenCV smooths less and its nearest pixel is another."""
    return np.asarray(Picture.fromarray(pixels).resize(size[::-1], resampling))


def fit_refinement(segmenter: Segmenter, samples: Sequence[Sample]) -> float:
    """How much the interactive decoder is to have of masks, 0, a half or 1: what has the highest mean IoU over targets,
    each at the threshold that suits it best.

    The segmenter's own share is left as it was.
    """
    point, targets = segmenter.point, [sample for sample in samples if sample.has_target]

    def mean_iou(share: float) -> float:
        segmenter.point = replace(point, refinement=share)
        trials = [_Trial.of(sample, raw) for sample, _, raw, _ in _predict(segmenter, targets, "original")]
        return max(mean(ious) for ious in zip(*(trial.ious for trial in trials), strict=True))

    try:
        return max((0.0, 0.5, 1.0), key=mean_iou) if targets else point.refinement
    finally:
        segmenter.point = point


def presence_threshold(presence: Sequence[float], accepted: float) -> float:
    """The highest threshold that keeps the share `accepted`, rounded down to thousandths: up would refuse more."""
    # 0.07 * 100 is a little more than 7.
    kept = max(1, math.ceil(accepted * len(presence) - 1e-9))
    return math.floor(sorted(presence, reverse=True)[kept - 1] * 1000) / 1000


def balanced_presence_threshold(there: Sequence[float], absent: Sequence[float]) -> float:
    """The threshold, in thousandths above 0, whose smaller share is largest; the lowest of those that are equal.

    Shares: of `there` at or above it, of `absent` below it. Raises DatasetError if nothing is absent.
    """
    if not absent:
        raise DatasetError("No expression of the validation split is of an absent thing: there is nothing to balance.")

    def smaller(threshold: float) -> float:
        answered, refused = [value >= threshold for value in there], [value < threshold for value in absent]
        return min(mean(answered), mean(refused))

    return max((number / 1000 for number in range(1, 1001)), key=smaller)


def recalibrate(point: OperatingPoint, report: Report, start: OperatingPoint) -> OperatingPoint:
    """The operating point with its scores corrected to what the answers of `report` came to, as far as from `start`.

    Thresholds stay, so answers do: `report` has to be of answers at `point`. A handful of them changes little about the
    scores of `start`, which were corrected with many; and done again with the same answers it changes nothing.
    """
    answers = []
    for result in report.scores:
        scale, shift = _correction(point, result.refused)
        said = result.expected / belief(result.distance, point.doubt) if result.refused else result.expected
        # What the model said itself.
        raw = corrected(min(said, 1.0), 1 / scale, -shift / scale)
        again = corrected(raw, *_correction(start, result.refused))
        answers.append(_Answer(not result.refused, again, result.correct, result.distance))
    point = replace(
        point,
        answer_scale=start.answer_scale,
        answer_shift=start.answer_shift,
        refusal_scale=start.refusal_scale,
        refusal_shift=start.refusal_shift,
    )
    return _correct(point, answers, [result.has_target for result in report.scores])


def _correction(point: OperatingPoint, refused: bool) -> tuple[float, float]:
    return (point.refusal_scale, point.refusal_shift) if refused else (point.answer_scale, point.answer_shift)


def _presence_power(trials: Sequence[_Trial], number: int) -> float:
    """How much presence counts in the score of a mask: the one of `_POWERS` that foretells best."""

    def missed(power: float) -> float:
        scores = [trial.presence**power * trial.quality for trial in trials]
        line = fit_correction(scores, came)
        return misfit([corrected(score, *line) for score in scores], came)

    came = [trial.ious[number] for trial in trials]
    return min(_POWERS, key=missed) if trials else 1.0


def _correct(point: OperatingPoint, answers: Sequence[_Answer], there: Sequence[bool]) -> OperatingPoint:
    """The point with the scores of `answers`, which stand as it has them but for doubt, made what they came to."""
    masks, refusals = ([answer for answer in answers if answer.shown is shown] for shown in (True, False))
    # Where everything is there, each refusal is wrong, and where nothing is, each mask: that says nothing of others.
    answer = _refine(masks if any(there) else [], point.answer_scale, point.answer_shift)
    doubt = point.doubt
    refusal = _refine(refusals if not all(there) else [], point.refusal_scale, point.refusal_shift, doubt)
    return replace(
        point, answer_scale=answer[0], answer_shift=answer[1], refusal_scale=refusal[0], refusal_shift=refusal[1]
    )


def _refine(answers: Sequence[_Answer], scale: float, shift: float, doubt: float = 0.0) -> tuple[float, float]:
    """A line through the logit that already went through (scale, shift): both together are one line."""
    beliefs = [belief(answer.distance, doubt) for answer in answers]
    more, further = fit_correction([a.score for a in answers], [a.came_to for a in answers], beliefs)
    return round(more * scale, 4), round(more * shift + further, 4)
