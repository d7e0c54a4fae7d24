"""`make bench-clicks DATA=FOLDER`: masks from clicks, boxes, and words that a click mends, beside GrabCut.

Asked are the single objects of at least 0.5 % of their photo in the dataset folder DATA, those of the splits in SPLITS
(default test) and of KINDS of expressions (default name, plural), which the model in MODEL (default: the shipped one)
must not have been trained on. The annotator is simulated: first in the middle of the thing, then where the answer is
most wrong. GrabCut gets the same boxes. Results are appended to benchmarks/results/clicks.json.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from record import record
from rich.progress import track

from ris_core.data import Sample, read_folder
from ris_core.evaluation.interactive import ClickReport, ThingFigures, grabcut, measure, things_of
from ris_core.files import sha256
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import box_of
from ris_core.masks import iou

AIMS = {"1 click": "0.60", "3 clicks": "0.72", "5 clicks": "0.78", "box": "0.72", "words + click": "words + 0.10"}


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    folder = Path(os.environ["DATA"])
    predictor = Predictor.load(os.environ.get("MODEL"))
    figures = clicked(predictor, chosen(folder))
    splits = os.environ.get("SPLITS", "test")
    record("clicks", figures, AIMS, model=predictor.version, splits=splits, refs=sha256(folder / "refs.json"))


def chosen(folder: Path) -> list[Sample]:
    """The samples whose objects are asked for."""
    splits, kinds = os.environ.get("SPLITS", "test").split(), os.environ.get("KINDS", "name plural").split()
    return [sample for sample in read_folder(folder) if sample.split in splits and sample.kind in kinds]


def clicked(predictor: Predictor, samples: list[Sample]) -> dict[str, float]:
    """The model's figures and GrabCut's."""
    figures: list[ThingFigures] = []
    floor: list[float] = []
    for photo, things in track(list(things_of(samples)), "Clicking"):
        image = photo.photo()
        figures += measure(predictor, predictor.embed(image), things)
        floor += [iou(grabcut(image, box_of(thing.mask)), thing.mask) for thing in things]
    measured = ClickReport(figures).figures | {"GrabCut from the box": float(np.mean(floor))}
    return {name: round(value, 4) for name, value in measured.items()}


if __name__ == "__main__":
    main()
