"""`make bench-finetune DATA="ccp coco_mini"`: from 100 corrections to the gate's verdict, with the shipped model.

The corrections are masks that people drew for names in test and validation photos of the dataset folders in DATA, which
the shipped model was not trained on. One photo in three is held out, up to 40, and both versions answer some of its
names and an absent one. Without DATA the photos are crops of the seven that come with this project.

A column is one fine-tuning: within 20 seconds, within the usual 120, and within 20 again where the photos are encoded
already, as they are when a project learns anew. "training" is all that `train_candidate` does (loading, a look at the
pace, encoding, steps), "comparing" both versions on what is held out and the gate's word; "seconds of all cores" are
those of both that were computed. A snapshot is there already: what collecting it takes depends on Label Studio.

Two threads, or THREADS; BUDGETS names others, in seconds. Results are appended to benchmarks/results/finetune.json.
"""

from __future__ import annotations

import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import keep, machine
from rich.console import Console
from rich.table import Table

from backend.learning.candidate import PLAN, CandidateSpec, train_candidate
from backend.learning.gate import ComparedExpression, judge
from backend.projects import samples as shipped
from ris_core import checkpoint_files
from ris_core.data import Sample, by_photo, read_folder
from ris_core.evaluation.evaluate import evaluate
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.masks import encode_rle

CORRECTIONS, HELD_OUT, EVERY, ASKED, NEEDED = 100, 40, 3, 3, 20
# Crops of each photo that comes with the project.
CROPS = 12


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    folders = [Path(name) for name in os.environ.get("DATA", "").split()]
    budgets = os.environ.get("BUDGETS", "20 120").split()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        taught, held_out = divide(of_folders(folders) if folders else crops(scratch / "photos"))
        runs = {f"{budget} s": (float(budget), scratch / f"encoded-{budget}") for budget in budgets}
        runs[f"{budgets[0]} s, encoded before"] = (float(budgets[0]), scratch / f"encoded-{budgets[-1]}")
        rows = {
            run: learn(taught, held_out, seconds, scratch / run, encoded) for run, (seconds, encoded) in runs.items()
        }
    show(rows)
    keep("finetune", rows, data=[folder.name for folder in folders] or ["crops"], threads=torch.get_num_threads())


def learn(
    taught: Sequence[Sample], held_out: Sequence[Sample], seconds: float, run: Path, encoded: Path
) -> dict[str, float | str]:
    """Train and compare -> figures by name."""
    run.mkdir()
    base, started, spent = checkpoint_files.shipped(), time.monotonic(), time.process_time()
    candidate = train_candidate(CandidateSpec(base, taught, seconds, features=encoded), run, lambda share: None)
    trained = time.monotonic()
    before, after = (evaluate(Predictor.load(folder), held_out) for folder in (base, candidate))
    compared = [
        ComparedExpression(
            task=sample.image_id,
            prompt=sample.sentence,
            photo=sample.image.name,
            target="mask" if sample.has_target else "",
            before=was.correct,
            after=now.correct,
        )
        for sample, was, now in zip(before.samples, before.scores, after.scores, strict=True)
    ]
    verdict = judge(compared, NEEDED)
    ended = time.monotonic()
    plan = json.loads((run / PLAN).read_text(encoding="utf-8"))
    figures: dict[str, float | str] = {
        "corrections": len(taught),
        "photos": len(list(by_photo(taught))),
        "passes": plan["passes"],
        "photos a batch": plan["batch"],
        "seconds training": round(trained - started, 1),
        "seconds comparing": round(ended - trained, 1),
        "seconds from corrections to verdict": round(ended - started, 1),
        "seconds of all cores": round(time.process_time() - spent, 1),
        "held-out expressions": len(compared),
    }
    for name in ("mIoU", "T-acc", "N-acc", "ECE"):
        figures |= {
            f"{name} {when}": round(report.figures[name], 3) for when, report in (("before", before), ("after", after))
        }
    figures["MB of encoded views"] = round(sum(file.stat().st_size for file in encoded.rglob("*.safetensors")) / 1e6)
    figures["peak memory so far, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return figures | {"verdict": verdict.decision}


def divide(samples: Iterable[Sample]) -> tuple[list[Sample], list[Sample]]:
    """100 corrections of photos to train on, and what is asked of others."""
    photos = list(by_photo(list(samples)))
    random.Random(0).shuffle(photos)
    taught = [sample for photo in photos if photo[0].split == "train" for sample in photo if sample.has_target]
    held_out = [photo for photo in photos if photo[0].split != "train"][:HELD_OUT]
    return taught[:CORRECTIONS], [sample for photo in held_out for sample in _asked(photo)]


def _asked(photo: Sequence[Sample]) -> Iterator[Sample]:
    """Some names of a photo, and one of something absent where there is one."""
    for has_target, most in ((True, ASKED), (False, 1)):
        candidates = [sample for sample in photo if sample.has_target is has_target]
        yield from random.Random(photo[0].image.name).sample(candidates, min(most, len(candidates)))


def of_folders(folders: Sequence[Path]) -> Iterator[Sample]:
    """Names, there and absent, of photos that the shipped model was not trained on."""
    for number, folder in enumerate(folders):
        unseen = [
            sample for sample in read_folder(folder) if sample.split != "train" and sample.kind in {"name", "absent"}
        ]
        for place, photo in enumerate(by_photo(unseen)):
            for sample in photo:
                # Photos of several folders may bear one number.
                yield replace(sample, image_id=sample.image_id + number * 10**6, split=_split(place))


def _split(place: int) -> str:
    return "train" if place % EVERY else "val"


def crops(folder: Path) -> Iterator[Sample]:
    """Crops of the photos that come with the project, and their masks; those of one photo are in one split."""
    folder.mkdir()
    for photo, (name, data) in enumerate(shipped.photos()):
        image, masks = read_image(data), [mask for mask in shipped.corrections() if mask.photo == name]
        for number in range(CROPS):
            image_id = photo * CROPS + number
            rows, columns = _window(image.shape[:2], random.Random(f"{name} {number}"))
            path = folder / f"{image_id}.png"
            Image.fromarray(image[rows, columns]).save(path)
            for ref, mask in enumerate(masks):
                seen = np.ascontiguousarray(mask.mask()[rows, columns])
                yield Sample(
                    image=path,
                    image_id=image_id,
                    ref_id=ref,
                    split=_split(photo),
                    sentence=mask.prompts[0],
                    height=seen.shape[0],
                    width=seen.shape[1],
                    segmentations=(encode_rle(seen),) if seen.any() else (),
                )


def _window(size: tuple[int, ...], rng: random.Random) -> tuple[slice, slice]:
    """Seven to ten tenths of a photo's rows and of its columns."""
    windows = []
    for length in size:
        extent = round(length * rng.uniform(0.7, 1.0))
        start = rng.randint(0, length - extent)
        windows.append(slice(start, start + extent))
    return windows[0], windows[1]


def show(rows: dict[str, dict[str, float | str]]) -> None:
    table = Table("figure", *rows, title=f"fine-tuning: {machine()}")
    for figure in next(iter(rows.values())):
        table.add_row(figure, *(str(row[figure]) for row in rows.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
