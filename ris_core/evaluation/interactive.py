"""How well a model answers clicks, boxes, and words that a click mends: the figures of interactive segmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ris_core.data.folder import Sample, by_photo
from ris_core.errors import DatasetError
from ris_core.evaluation.clicker import next_click
from ris_core.inference.calibration import calibration_error, mean, reliability
from ris_core.inference.frame import Image
from ris_core.inference.prompt import Box, Point, Prompt, box_of
from ris_core.inference.segmenter import PreparedImage, Segmenter
from ris_core.masks import Mask, iou

CLICKS = 5
# After how many of them figures are told.
_TOLD = (1, 3, 5)
# Smaller things than this share of their photo aren't asked for.
LEAST = 0.005
_GRABCUT_ROUNDS = 5


@dataclass(frozen=True)
class Thing:
    """One object of a photo. sentence: means it, perhaps beside others; "" where nothing does."""

    mask: Mask
    sentence: str = ""


@dataclass(frozen=True)
class ThingFigures:
    """IoUs of one thing's answers. clicks: after 1 to `CLICKS`. words, worded_click: of its sentence, and after a click
    that mends the answer; NaN without a sentence. scores: the IoU that the model expected after each click.
    """

    clicks: tuple[float, ...]
    scores: tuple[float, ...]
    box: float
    words: float
    worded_click: float


@dataclass(frozen=True)
class ClickReport:
    """What `evaluate_clicks` measured of single things."""

    things: list[ThingFigures]

    @property
    def figures(self) -> dict[str, float | int]:
        """Mean IoUs, all over things but the last two, which are over those with a sentence; ECE of the scores."""
        clicks = np.array([thing.clicks for thing in self.things])
        expected = np.array([thing.scores for thing in self.things])
        after = {f"{count} click{'s' * (count > 1)}": float(clicks[:, count - 1].mean()) for count in _TOLD}
        spoken = [thing for thing in self.things if not math.isnan(thing.words)]
        bins = reliability(expected.ravel().tolist(), clicks.ravel().tolist())
        return {
            "things": len(self.things),
            **after,
            "box": mean([thing.box for thing in self.things]),
            "ECE": calibration_error(bins),
            "words": mean([thing.words for thing in spoken]),
            "words + click": mean([thing.worded_click for thing in spoken]),
        }


def evaluate_clicks(
    segmenter: Segmenter, samples: Sequence[Sample], on_progress: Callable[[int], None] | None = None
) -> ClickReport:
    """Ask for every object of the samples' photos that isn't tiny; `on_progress` hears how many photos are done.

    Raises ImageError or DatasetError if a photo or a mask can't be read; DatasetError if there is no such object.
    """
    figures: list[ThingFigures] = []
    for number, (photo, things) in enumerate(things_of(samples), 1):
        figures += measure(segmenter, segmenter.embed(photo.photo()), things)
        if on_progress:
            on_progress(number)
    if not figures:
        raise DatasetError(f"No object covers {LEAST:.1%} of its photo, so there is nothing to click on.")
    return ClickReport(figures)


def things_of(samples: Sequence[Sample], least: float = LEAST) -> Iterator[tuple[Sample, list[Thing]]]:
    """Each photo, by one of its samples, with its single objects; the sentence is the first that means one."""
    for photo in by_photo(samples):
        objects: dict[str, Thing] = {}
        for sample in photo:
            for segmentation in sample.segmentations:
                key = repr(segmentation)
                if key not in objects:
                    alone = replace(sample, segmentations=(segmentation,))
                    objects[key] = Thing(alone.mask(), sample.sentence)
        large = [thing for thing in objects.values() if thing.mask.mean() >= least]
        if large:
            yield photo[0], large


def measure(segmenter: Segmenter, image: PreparedImage, things: Sequence[Thing]) -> list[ThingFigures]:
    """Ask for things of one photo, by the simulated annotator of `clicker`; each round's prompts go together."""
    by_click = _rounds(segmenter, image, things, CLICKS)
    boxes = segmenter.segment(image, [Prompt(box=box_of(thing.mask)) for thing in things])
    spoken = [thing for thing in things if thing.sentence]
    words = dict(zip(map(id, spoken), _words(segmenter, image, spoken), strict=True))
    nothing = (float("nan"), float("nan"))
    return [
        ThingFigures(*clicks, iou(box.mask, thing.mask), *words.get(id(thing), nothing))
        for thing, clicks, box in zip(things, by_click, boxes, strict=True)
    ]


def grabcut(image: Image, box: Box) -> Mask:
    """The floor: OpenCV's GrabCut (Rother et al. 2004) from a box, with colours alone."""
    height, width = image.shape[:2]
    left, top = round(box.left * width), round(box.top * height)
    right, bottom = round(box.right * width), round(box.bottom * height)
    labels = np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    if (right - left, bottom - top) >= (width, height):
        # Without anything outside the box it has nothing to compare with.
        return np.ones((height, width), np.bool_)
    rectangle = (left, top, max(1, right - left), max(1, bottom - top))
    try:
        cv2.grabCut(image, labels, rectangle, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_RECT)
    except cv2.error:
        return np.zeros((height, width), np.bool_)
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), dtype=np.bool_)


def _rounds(
    segmenter: Segmenter, image: PreparedImage, things: Sequence[Thing], clicks: int
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    points: list[list[Point]] = [[] for _ in things]
    answers: list[Mask | None] = [None] * len(things)
    ious, scores = [], []
    for _ in range(clicks):
        for own, answer, thing in zip(points, answers, things, strict=True):
            own.extend(_click(answer if answer is not None else np.zeros_like(thing.mask), thing.mask))
        prompts = [Prompt(points=tuple(own), mask=answer) for own, answer in zip(points, answers, strict=True)]
        predictions = segmenter.segment(image, prompts)
        answers = [prediction.mask for prediction in predictions]
        ious.append([iou(prediction.mask, thing.mask) for prediction, thing in zip(predictions, things, strict=True)])
        scores.append([prediction.score for prediction in predictions])
    return list(zip(zip(*ious, strict=True), zip(*scores, strict=True), strict=True))


def _words(segmenter: Segmenter, image: PreparedImage, things: Sequence[Thing]) -> list[tuple[float, float]]:
    if not things:
        return []
    said = segmenter.segment(image, [thing.sentence for thing in things])
    clicks = [_click(answer.mask, thing.mask) for answer, thing in zip(said, things, strict=True)]
    prompts = [Prompt(thing.sentence, tuple(click)) for thing, click in zip(things, clicks, strict=True)]
    mended = segmenter.segment(image, prompts)
    return [
        (iou(answer.mask, thing.mask), iou(after.mask, thing.mask))
        for answer, after, thing in zip(said, mended, things, strict=True)
    ]


def _click(answer: Mask, truth: Mask) -> list[Point]:
    click = next_click(answer, truth)
    if click is None:
        return []
    height, width = truth.shape
    return [Point((click.column + 0.5) / width, (click.row + 0.5) / height, click.positive)]
