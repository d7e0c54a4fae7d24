"""`make bench-written DATA=coco`: sentences that people wrote, without knowing what the model was taught to read.

WRITTEN (default benchmarks/written.json) is a list of {"file_name", "sentence", "ann_ids"}: a photo of the COCO folder
DATA (`images/`, `instances.json`), what somebody said of it, and the annotations that were meant. Nobody who wrote one
had seen an expression of `ris convert`, and none is trained on. MODEL names a checkpoint's folder or a design (default:
the shipped model). Masks are compared at the photos' own size and at the operating point; a refused thing has IoU 0.

The baseline is the union of all that is labelled of the class, drawn by people: what a model would score that reads no
more than the noun. The interval is over photos. HALF=0 or 1 takes the photos of one half, told apart by the SHA-256
of their file name: what is fitted on one is measured on the other. Results are appended to
benchmarks/results/written.json.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from record import record

from ris_core.data.folder import Sample, read_json
from ris_core.data.splits import fold_of
from ris_core.errors import DatasetError
from ris_core.evaluation.baseline import advantage
from ris_core.evaluation.evaluate import evaluate
from ris_core.files import sha256
from ris_core.inference.predictor import Predictor
from ris_core.masks import iou

SENTENCES = Path(__file__).parent / "written.json"


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    file, half = Path(os.environ.get("WRITTEN") or SENTENCES), os.environ.get("HALF", "")
    pairs = read(file, Path(os.environ["DATA"]))
    if half:
        pairs = [pair for pair in pairs if fold_of(pair[0].image.name, 2) == int(half)]
    predictor = Predictor.load(os.environ.get("MODEL"))
    digest = sha256(file)
    print(f"{len(pairs)} sentences, SHA-256 {digest}")
    record("written", measure(predictor, pairs), model=predictor.version, sentences=digest, half=half)


def measure(predictor: Predictor, pairs: Sequence[tuple[Sample, Sample]]) -> dict[str, float]:
    """Figures of a model on sentences, each with what the baseline marks for it."""
    baseline = {id(sample): iou(every.mask(), sample.mask()) for sample, every in pairs}
    report = evaluate(predictor, [sample for sample, _ in pairs])
    ious, photos = [score.iou for score in report.scores], [sample.image.name for sample in report.samples]
    against = advantage(ious, [baseline[id(sample)] for sample in report.samples], photos)
    kept = ("expressions", "mIoU", "oIoU", "Prec@0.5", "ECE")
    figures = {name: report.figures[name] for name in kept} | {
        "answered": sum(not score.refused for score in report.scores) / len(report.scores),
        "expected IoU": sum(score.expected for score in report.scores) / len(report.scores),
        "every instance of the class": against.baseline,
        "above it, at least": against.low,
        "above it, at most": against.high,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def read(file: Path, folder: Path) -> list[tuple[Sample, Sample]]:
    """Each sentence with what it means, and with all of its class. Raises DatasetError if one means nothing there."""
    instances = read_json(folder / "instances.json")
    images = {image["file_name"]: image for image in instances["images"]}
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    of_class: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for annotation in annotations.values():
        if not annotation.get("iscrowd"):
            of_class[annotation["image_id"], annotation["category_id"]].append(annotation["segmentation"])
    pairs = []
    for number, entry in enumerate(read_json(file)):
        image = images.get(entry["file_name"])
        meant = [annotations.get(name) for name in entry["ann_ids"]]
        if image is None or not meant or any(one is None or one["image_id"] != image["id"] for one in meant):
            raise DatasetError(f"{file}: {entry} doesn't mean anything of a photo of {folder}.")
        keys = dict.fromkeys((one["image_id"], one["category_id"]) for one in meant)
        every = [segmentation for key in keys for segmentation in of_class[key]]
        said = (folder / "images", image, number, entry["sentence"])
        pairs.append((_sample(*said, [one["segmentation"] for one in meant]), _sample(*said, every)))
    return pairs


def _sample(photos: Path, image: Mapping[str, Any], number: int, sentence: str, segmentations: Sequence[Any]) -> Sample:
    where = photos / image["file_name"], image["id"], number, "val"
    return Sample(*where, sentence, image["height"], image["width"], tuple(segmentations), kind="written")


if __name__ == "__main__":
    main()
