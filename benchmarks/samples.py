"""`make bench-samples`: which masks drawn on the sample photos are found from their plainest words, and by clicks.

Nothing was ever trained on these photos. MODEL names a checkpoint's folder or a design (default: the shipped model).
A mask counts as found from IoU 0.5 on, at the photo's own size and at the operating point: where the model takes a
thing for absent its IoU is 0, and the mask that it would have shown is told apart. Clicks are simulated: in the middle
of the thing, then where the answer is most wrong. Results are appended to benchmarks/results/samples.json.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from record import keep, machine
from rich.console import Console
from rich.table import Table

from backend.projects.samples import SampleMask, corrections, photos
from ris_core.evaluation.interactive import Thing
from ris_core.evaluation.interactive import measure as evaluate
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.inference.segmenter import decide
from ris_core.masks import iou

FOUND = 0.5
CLICKS = 3


class Row(NamedTuple):
    """One mask. words: IoU from them, 0 where refused. score: IoU to expect. unasked: IoU if presence had no say.
    clicks: IoU after one, two and so on.
    """

    photo: str
    sentence: str
    words: float
    score: float
    unasked: float
    clicks: tuple[float, ...]


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    predictor = Predictor.load(os.environ.get("MODEL"))
    rows = list(measure(predictor))
    show(rows, predictor.version)
    keep(
        "samples",
        figures(rows),
        model=predictor.version,
        masks={f"{row.photo}: {row.sentence}": round(row.words, 4) for row in rows},
    )


def measure(predictor: Predictor) -> Iterator[Row]:
    """Each mask's row, photo by photo: a photo is encoded once."""
    drawn: dict[str, list[SampleMask]] = defaultdict(list)
    for mask in corrections():
        drawn[mask.photo].append(mask)
    for name, file in photos():
        image = predictor.embed(read_image(file))
        sentences = [mask.prompts[0] for mask in drawn[name]]
        for mask, sentence, raw in zip(
            drawn[name], sentences, predictor.predict_raw([(image, sentences)]), strict=True
        ):
            answer = decide(sentence, raw, predictor.point)
            unasked = iou(raw.probability >= predictor.point.mask, mask.mask())
            [clicked] = evaluate(predictor, image, [Thing(mask.mask())])
            yield Row(name, sentence, iou(answer.mask, mask.mask()), answer.score, unasked, clicked.clicks)


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """How many are found, of how many, and mIoU."""
    found = sum(row.words >= FOUND for row in rows)
    mean = sum(row.words for row in rows) / len(rows)
    clicked = sum(max(row.clicks[:CLICKS]) >= FOUND for row in rows)
    return {
        "masks": len(rows),
        "found from words": found,
        "mIoU from words": round(mean, 4),
        f"found after at most {CLICKS} clicks": clicked,
    }


def show(rows: Sequence[Row], version: str) -> None:
    table = Table(
        "photo", "words", "IoU", "score", "presence aside", "1 click", "2", "3", title=f"{version}, {machine()}"
    )
    for row in sorted(rows, key=lambda row: -row.words):
        cells = (f"{value:.3f}" for value in (row.words, row.score, row.unasked, *row.clicks[:CLICKS]))
        table.add_row(row.photo, row.sentence, *cells)
    console = Console(width=120)
    console.print(table)
    console.print(", ".join(f"{name}: {value}" for name, value in figures(rows).items()), highlight=False)


if __name__ == "__main__":
    main()
