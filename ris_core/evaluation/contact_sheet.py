"""Pictures of an evaluation: how far its scores can be believed, and what went best, worst and in between."""

import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from ris_core.data.folder import Sample
from ris_core.evaluation.convention import Convention
from ris_core.evaluation.evaluate import EvaluatedSample, Report, evaluate_each
from ris_core.images import write_image
from ris_core.inference.calibration import BINS, Bin, calibration_error
from ris_core.inference.frame import Image
from ris_core.inference.segmenter import Segmenter
from ris_core.masks import Mask
from ris_core.overlay import PALETTE, outline, tint

# The colours of the model's mask and of the target.
MASK, TARGET = PALETTE[0], PALETTE[5]
_INK, _PALE = (20, 20, 20), (220, 220, 220)
# Of a sheet: cells a row and in all; a cell's photo and its caption, in pixels.
_COLUMNS, _CELLS = 4, 12
_WIDTH, _HEIGHT, _CAPTION, _GAP = 320, 260, 46, 8
_HEADER = 36
# Of the diagram: its frame's side and the margins around it, in pixels.
_SIDE, _MARGIN = 480, 70


def write_pictures(folder: Path, segmenter: Segmenter, report: Report, convention: Convention = "original") -> None:
    """Write reliability.png, best.jpg, worst.jpg and random.jpg; answers that are shown are asked for once more."""
    write_image(folder / "reliability.png", reliability_diagram(report.bins))
    for name, samples in choose_samples(report).items():
        shown = [evaluated for sample in samples for evaluated in evaluate_each(segmenter, [sample], convention)]
        write_image(folder / f"{name}.jpg", contact_sheet(shown, f"{segmenter.version}: {name}"))


def choose_samples(report: Report, count: int = _CELLS, seed: int = 0) -> dict[str, list[Sample]]:
    """At most `count` samples each: the best masks, the worst answers, the surest of those first, and a draw from all.

    A refusal that is right scores 1, and there is nothing to see: the best are masks.
    """
    pairs = list(zip(report.samples, report.scores, strict=True))
    masks = [pair for pair in pairs if pair[1].has_target]
    chosen = {
        "best": sorted(masks, key=lambda pair: -pair[1].correct)[:count],
        "worst": sorted(pairs, key=lambda pair: (pair[1].correct, -pair[1].expected))[:count],
        "random": random.Random(seed).sample(pairs, min(count, len(pairs))),
    }
    return {name: [sample for sample, _ in some] for name, some in chosen.items()}


def contact_sheet(shown: Sequence[EvaluatedSample], title: str) -> NDArray[np.uint8]:
    """Answers side by side -> uint8 RGB: photo with target and mask, sentence, the IoU and the one expected."""
    rows = max(1, -(-len(shown) // _COLUMNS))
    height = _HEADER + rows * (_HEIGHT + _CAPTION + _GAP)
    sheet = Picture.new("RGB", (_COLUMNS * (_WIDTH + _GAP) + _GAP, height), "white")
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_GAP, 8), title, 18)
    for number, (name, colour) in enumerate((("target", TARGET), ("mask", MASK))):
        left = sheet.width - 200 + 100 * number
        pen.rectangle((left, 10, left + 16, 26), fill=colour)
        _write(pen, (left + 22, 8), name, 16)
    for number, evaluated in enumerate(shown):
        row, column = divmod(number, _COLUMNS)
        corner = _GAP + column * (_WIDTH + _GAP), _HEADER + row * (_HEIGHT + _CAPTION + _GAP)
        _draw_cell(sheet, pen, corner, evaluated)
    return np.asarray(sheet)


def reliability_diagram(bins: Sequence[Bin]) -> NDArray[np.uint8]:
    """Mean outcome over mean score, a bar for each bin, as dark as it holds many answers -> uint8 RGB."""
    side = _SIDE + 2 * _MARGIN
    sheet = Picture.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(sheet)
    most = max((group.answers for group in bins), default=1)
    for group in bins:
        left = min(int(group.score * BINS), BINS - 1) / BINS
        box = (*_at(left, group.realised), *_at(left + 1 / BINS, 0))
        pen.rectangle(box, fill=_shade(group.answers / most), outline=_INK)
    _draw_axes(pen)
    for group in bins:
        x, y = _at(group.score, group.realised)
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=TARGET)
        _write(pen, (x, max(_MARGIN, y - 20)), str(group.answers), 12, "ma")
    count = sum(group.answers for group in bins)
    title = f"{count} answers, expected calibration error {calibration_error(bins):.3f}"
    _write(pen, (side / 2, 12), title, 18, "ma")
    return np.asarray(sheet)


def _draw_axes(pen: ImageDraw.ImageDraw) -> None:
    pen.line((*_at(0, 0), *_at(1, 1)), fill=_INK)
    pen.rectangle((*_at(0, 1), *_at(1, 0)), outline=_INK)
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = _at(tick, tick)
        _write(pen, (x, _MARGIN + _SIDE + 6), f"{tick:g}", 14, "ma")
        _write(pen, (_MARGIN - 8, y), f"{tick:g}", 14, "rm")
    _write(pen, (_MARGIN + _SIDE / 2, _MARGIN + _SIDE + 30), "score: the IoU expected", 16, "ma")
    _write(pen, (_MARGIN, _MARGIN - 20), "IoU it came to", 16, "lm")


def _at(x: float, y: float) -> tuple[float, float]:
    """From 0 to 1, rightwards and upwards -> pixels of the diagram."""
    return _MARGIN + x * _SIDE, _MARGIN + (1 - y) * _SIDE


def _shade(share: float) -> tuple[int, int, int]:
    mixed = [round(pale + (full - pale) * share) for pale, full in zip(_PALE, MASK, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def _draw_cell(
    sheet: Picture.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], evaluated: EvaluatedSample
) -> None:
    left, top = corner
    photo = Picture.fromarray(_overlaid(evaluated))
    sheet.paste(photo, (left + (_WIDTH - photo.width) // 2, top + (_HEIGHT - photo.height) // 2))
    _write(pen, (left, top + _HEIGHT + 4), _shortened(evaluated.sample.sentence), 15)
    _write(pen, (left, top + _HEIGHT + 24), _verdict(evaluated), 14)


def _overlaid(evaluated: EvaluatedSample) -> Image:
    """The photo at a cell's size, its masks drawn on it there, so that lines are equally thick on all."""
    height, width = evaluated.image.shape[:2]
    scale = min(_WIDTH / width, _HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.asarray(cv2.resize(evaluated.image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def fit(mask: Mask) -> Mask:
        return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), dtype=bool)

    mask = fit(evaluated.prediction.mask)
    tint(canvas, mask, MASK)
    # On a white plate a tint alone is hard to see.
    outline(canvas, mask, MASK, 1)
    if evaluated.target is not None:
        outline(canvas, fit(evaluated.target), TARGET, 2)
    return canvas


def _verdict(evaluated: EvaluatedSample) -> str:
    result = evaluated.score
    expected = f"expected {result.expected:.2f}"
    if result.has_target:
        refused = ", refused" if result.refused else ""
        return f"IoU {result.iou:.2f}{refused}, {expected}"
    return f"not there, {'refused' if result.refused else 'a mask all the same'}, {expected}"


def _shortened(sentence: str, letters: int = 44) -> str:
    line = " ".join(sentence.split())
    return line if len(line) <= letters else f"{line[: letters - 1]}…"


def _write(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str = "la") -> None:
    pen.text(at, text, fill=_INK, font=ImageFont.load_default(size), anchor=anchor)
