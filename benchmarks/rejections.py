"""`make bench-rejections`: what deleting wrong masks is worth, with the shipped model.

64 tasks are asked for seven labels by their names, some of which aren't in the picture. Somebody deletes each mask that
isn't of its label (IoU with the mask that people drew below 0.1) and submits the others as they are; the model learns
from that alone, but for a fifth of the tasks, which its scores are corrected by, and 64 further tasks are asked for the
same. A row counts the masks that are offered: those with a score of 0.3 or more.

The tasks are crops of the seven photos that come with this project, so this shows that rejections are learnt, not how
far what was learnt carries. That is seen with DATA, a dataset folder: there each task is another photo of its `val` and
`test` splits, which the shipped model must not have been trained on, and asked are the seven most frequent names of
those that at most half of the photos show. Two threads, or THREADS; 120 seconds of training, or BUDGET, or, where the
machine is busy, so many PASSES. Results are appended to benchmarks/results/rejections.json.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from annotators import Album, name_of
from PIL import Image
from record import keep, machine
from rich.console import Console
from rich.table import Table

from backend.learning.candidate import PLAN, CandidateSpec, Plan, train_candidate
from backend.projects import samples as shipped
from backend.settings import Settings
from ris_core import checkpoint_files
from ris_core.data import Sample, read_folder
from ris_core.evaluation.evaluate import evaluate, recalibrate
from ris_core.files import atomic_write
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.masks import Mask, encode_rle, iou

TASKS, WRONG = 64, 0.1
# Of so many tasks one is held out.
HELD_OUT = 5
LEAST_SCORE = Settings.model_fields["prelabel_min_score"].default
LABELS = ("person", "cat", "cup", "rocket", "building", "flower", "sky")


class Task(NamedTuple):
    """A picture, what it is asked for, and what people drew in it, by label."""

    number: int
    path: Path
    asked: tuple[str, ...]
    drawn: dict[str, Mask]


class Offer(NamedTuple):
    """A mask that is shown for a label, and whether it is wrong."""

    task: Task
    label: str
    mask: Mask
    wrong: bool


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    count, base = int(os.environ.get("TASKS", TASKS)), checkpoint_files.shipped()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        data = os.environ.get("DATA")
        tasks = photos(Path(data), 2 * count) if data else crops(scratch, 2 * count)
        before = Predictor.load(base)
        taught, further = offers(before, tasks[:count]), offers(before, tasks[count:])
        seconds = float(os.environ.get("BUDGET", "120"))
        candidate, passes = learn(base, corrections(taught), seconds, scratch / "run")
        learnt = offers(Predictor.load(candidate), tasks[count:])
    rows = {"submitted": figures(taught), "further tasks, before": figures(further), "after": figures(learnt)}
    table = Table("tasks", "offered", "wrong", "right", "share wrong", title=f"rejections: {machine()}")
    for name, row in rows.items():
        table.add_row(name, *map(str, row.values()))
    Console(width=120).print(table)
    source = Path(data).name if data else "crops"
    how = {"seconds": seconds, "passes": passes, "threads": torch.get_num_threads()}
    keep("rejections", rows, tasks=count, photos=source, **how)


def learn(base: Path, corrections: Sequence[Sample], seconds: float, run: Path) -> tuple[Path, int]:
    """A candidate as the product makes it, its scores corrected by what is held out -> and how many passes it took."""
    run.mkdir()
    training = [sample for sample in corrections if sample.image_id % HELD_OUT]
    held_out = [sample for sample in corrections if not sample.image_id % HELD_OUT]
    if passes := os.environ.get("PASSES"):
        photos = tuple(dict.fromkeys(sample.image.name for sample in training))
        atomic_write(run / PLAN, json.dumps(asdict(Plan(int(passes), photos))).encode())
    candidate = train_candidate(CandidateSpec(base, training, seconds), run, lambda share: None)
    point, first = map(checkpoint_files.operating_point, (candidate, base))
    point = recalibrate(point, evaluate(Predictor.load(candidate), held_out), first)
    checkpoint_files.with_point(candidate, point, run / "calibrated")
    return run / "calibrated", json.loads((run / PLAN).read_bytes())["passes"]


def crops(folder: Path, count: int) -> list[Task]:
    """Crops of the photos by turns, six to ten tenths of their rows and of their columns."""
    drawn: dict[str, dict[str, list[Mask]]] = defaultdict(lambda: defaultdict(list))
    for mask in shipped.corrections():
        drawn[mask.photo][mask.label].append(mask.mask())
    images = [(name, read_image(data)) for name, data in shipped.photos()]
    rng, tasks = random.Random(0), []
    for number in range(count):
        name, image = images[number % len(images)]
        window = tuple(_slice(length, rng) for length in image.shape[:2])
        path = folder / f"{number}.png"
        Image.fromarray(image[window]).save(path)
        union = {label: np.logical_or.reduce(masks)[window] for label, masks in drawn[name].items()}
        tasks.append(Task(number, path, LABELS, union))
    return tasks


def photos(folder: Path, count: int) -> list[Task]:
    """Photos that a dataset holds out; not asked are names by which another of a photo's labels may be called."""
    album = Album(tuple(read_folder(folder)))
    shown = [*album.photos("val"), *album.photos("test")]
    random.Random(0).shuffle(shown)
    counts = Counter(name_of(sample) for photo in shown for sample in photo if sample.kind == "name")
    names = [name for name, number in counts.most_common() if number <= len(shown) / 2][: len(LABELS)]
    tasks = []
    for number, photo in enumerate(shown[:count]):
        pairs = album.pairs([photo], names)
        drawn = {name_of(pair): pair.mask() for pair in pairs if pair.has_target}
        tasks.append(Task(number, photo[0].image, tuple(map(name_of, pairs)), drawn))
    return tasks


def _slice(length: int, rng: random.Random) -> slice:
    extent = round(length * rng.uniform(0.6, 1.0))
    start = rng.randint(0, length - extent)
    return slice(start, start + extent)


def offers(predictor: Predictor, tasks: Sequence[Task]) -> list[Offer]:
    """What a batch shows in these tasks."""
    shown = []
    for task in tasks:
        answers = predictor.segment(predictor.embed(read_image(task.path)), list(task.asked))
        for label, answer in zip(task.asked, answers, strict=True):
            if answer.present and answer.score >= LEAST_SCORE:
                there = task.drawn.get(label)
                wrong = there is None or iou(answer.mask, there) < WRONG
                shown.append(Offer(task, label, answer.mask, wrong))
    return shown


def corrections(shown: Sequence[Offer]) -> list[Sample]:
    """What is learnt from: wrong masks were deleted, the others submitted as they are."""
    return [
        Sample(
            image=offer.task.path,
            image_id=offer.task.number,
            ref_id=ref,
            split="train",
            sentence=offer.label,
            height=offer.mask.shape[0],
            width=offer.mask.shape[1],
            segmentations=() if offer.wrong else (encode_rle(offer.mask),),
            origin="rejected" if offer.wrong else "accepted",
        )
        for ref, offer in enumerate(shown)
    ]


def figures(shown: Sequence[Offer]) -> dict[str, float]:
    wrong = sum(offer.wrong for offer in shown)
    share = round(wrong / len(shown), 3) if shown else 0.0
    return {"offered": len(shown), "wrong": wrong, "right": len(shown) - wrong, "share": share}


if __name__ == "__main__":
    main()
