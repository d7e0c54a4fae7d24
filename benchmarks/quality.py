"""`make bench-quality DATA="ccp coco_mini"`: how well each design learns, and what each of its mechanisms is worth.

Every row is trained alike, from scratch, on the training photos of the dataset folders in DATA, and measured on their
test photos, at full resolution and at the operating point fixed on their validation photos:

    EfficientNet-Lite2 and MiniLM, frozen; width 64; photos at 384 pixels in 4 views; 12 passes of 8 photos a batch,
    3 expressions a photo with a target and 1 without; AdamW at 1e-3 with warm-up and half a cosine

Runs are kept in RUNS (default runs/quality), one that was stopped goes on, and results are appended to
benchmarks/results/quality.json: call it again until no cell says "not run". SEEDS says how many seeds of each row are
run (default 1). A row takes six minutes on an H100; QUICK=1 takes 4 passes at 288 pixels, 13 to 47 minutes a row on two
CPU cores. MINUTES ends it after the run in progress. ONLY names rows to run. The table is of runs of one recipe: the
mean over their seeds and, from two on, the spread (half of highest minus lowest).
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from record import append, machine, results
from rich.console import Console
from rich.table import Table

from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample, by_photo, read_folder
from ris_core.evaluation.evaluate import calibrate, evaluate
from ris_core.inference.predictor import Predictor
from ris_core.models.class_alignment import align
from ris_core.training.loop import train
from ris_core.training.model_card import write_card
from ris_core.training.recipe import Recipe

QUICK = bool(os.environ.get("QUICK"))
RECIPE = Recipe(epochs=4 if QUICK else 12, photos=8, present=3, absent=1, side=288 if QUICK else 384, views=4)
SEEDS = range(int(os.environ.get("SEEDS", "1")))
SHOWN = ("mIoU", "oIoU", "Prec@0.5", "T-acc", "N-acc")


@dataclass(frozen=True)
class Row:
    """One row of the table: a design with its switches, on a share of the training photos."""

    name: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0


ROWS = (
    Row("vipa", "vipa"),
    Row("vipa, words in place of the visual expression", "vipa", {"kv": "language"}),
    Row("vipa, enriched words in its place", "vipa", {"kv": "enriched"}),
    Row("vipa, no retrieval", "vipa", {"retrieval": False}),
    Row("vipa, no refinement", "vipa", {"refinement": False}),
    Row("maris", "maris"),
    Row("maris, not vision-guided", "maris", {"vision_guided": False}),
    Row("maris, not language-guided", "maris", {"language_guided": False}),
    Row("haris", "haris"),
    Row("haris, no feedback", "haris", {"feedback": "off"}),
    Row("haris, feedback unmodulated", "haris", {"feedback": "unmodulated"}),
    Row("lda", "lda"),
    Row("lda, channel attention only", "lda", {"attention": "channel"}),
    Row("lda, spatial attention only", "lda", {"attention": "spatial"}),
    Row("lda, a quarter of the photos", "lda", share=0.25),
    Row("lda, half of the photos", "lda", share=0.5),
)


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    folders = [Path(name) for name in os.environ["DATA"].split()]
    deadline = time.monotonic() + 60 * float(os.environ.get("MINUTES", "inf"))
    for row, seed in missing():
        if time.monotonic() > deadline:
            break
        run_key = {"row": row.name, "seed": seed, "machine": machine(), "recipe": RECIPE.__dict__}
        append("quality", run_key | run(row, seed, folders))
    show()


def missing() -> Iterator[tuple[Row, int]]:
    """Runs without a result, the first seed of every row before the second of any."""
    only = os.environ.get("ONLY", "").split(";") if os.environ.get("ONLY") else [row.name for row in ROWS]
    for seed in SEEDS:
        for row in ROWS:
            if row.name in only and not any(result["row"] == row.name and result["seed"] == seed for result in alike()):
                yield row, seed


def alike() -> list[dict[str, Any]]:
    """The results of this recipe, whatever the seed: of another they can't be compared with."""
    return [result for result in results("quality") if result["recipe"] | {"seed": RECIPE.seed} == RECIPE.__dict__]


def run(row: Row, seed: int, folders: Sequence[Path]) -> dict[str, Any]:
    """Train and measure -> figures by dataset."""
    recipe = Recipe(**(RECIPE.__dict__ | {"seed": seed}))
    data = {folder: read_folder(folder) for folder in folders}
    samples = [sample for part in data.values() for sample in part]
    taught = share([sample for sample in samples if sample.split == "train"], row.share)
    torch.manual_seed(seed)
    model = checkpoint.build(
        {
            "model": row.model,
            "image_encoder": "efficientnet-lite2",
            "text_encoder": "minilm",
            "options": {"width": 64} | row.options,
            "tuning": {},
        }
    )
    align(model)
    runs = Path(os.environ.get("RUNS", "runs/quality"))
    here, started = runs / f"{row.name.replace(' ', '-')}-{seed}", time.monotonic()
    train(model, taught, recipe, here, lambda at: report(row, seed, at.step, at.steps), features=runs / "features")
    seconds = time.monotonic() - started
    predictor = Predictor(model, OperatingPoint(recipe.side), "benchmark")
    predictor.point = calibrate(predictor, [sample for sample in samples if sample.split == "val"])
    reports = {
        (folder.name, "test"): evaluate(predictor, [sample for sample in part if sample.split == "test"])
        for folder, part in data.items()
    }
    card = write_card(model, predictor.point, recipe, folders, reports)
    checkpoint.save(model, predictor.point, here / "checkpoint", card)
    figures = {name: report.figures for (name, _), report in reports.items()}
    return {"seconds": round(seconds), "photos": len(list(by_photo(taught))), "figures": figures}


def share(samples: list[Sample], part: float) -> list[Sample]:
    """Some of the photos, always the same."""
    photos = list(by_photo(samples))
    random.Random(0).shuffle(photos)
    return [sample for photo in photos[: round(part * len(photos))] for sample in photo]


def report(row: Row, seed: int, step: int, steps: int) -> None:
    if step % 25 == 0 or step == steps:
        Console(stderr=True).print(f"{row.name}, seed {seed}: step {step} of {steps}", highlight=False)


def show() -> None:
    kept = alike()
    for name in sorted({name for result in kept for name in result["figures"]}):
        table = Table("row", "seeds", *SHOWN, title=f"{name}, test photos")
        for row in ROWS:
            figures = [result["figures"][name] for result in kept if result["row"] == row.name]
            cells = [cell([run_figures.get(figure) for run_figures in figures]) for figure in SHOWN]
            table.add_row(row.name, str(len(figures)), *cells)
        Console(width=160).print(table)


def cell(values: list[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "not run"
    spread = f" ± {(max(numbers) - min(numbers)) / 2:.3f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.3f}{spread}"


if __name__ == "__main__":
    main()
