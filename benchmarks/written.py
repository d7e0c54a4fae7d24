"""`make bench-written DATA=coco`: sentences that people wrote, without knowing what the model was taught to read.

WRITTEN (default benchmarks/written.json) is a list of {"file_name", "sentence", "ann_ids"}: a photo of the COCO folder
DATA (`images/`, `instances.json`), what somebody said of it, and the annotations that were meant. Nobody who wrote one
had seen an expression of `ris convert`, and none is trained on. MODEL names a checkpoint's folder or a design (default:
the shipped model). Masks are compared at the photos' own size and at the operating point; a refused thing has IoU 0.

The baseline is the union of all that is labelled of the class, drawn by people: what a model would score that reads no
more than the noun. The interval is over photos. With the dataset folders that the
model was calibrated on in FOLDERS, its operating point is fixed anew, twice: on their validation photos without one
half, told apart by the SHA-256 of the file name, and that half is measured, so that nothing is fitted and measured on
one photo. Results are appended to benchmarks/results/written.json.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from record import record

from ris_core.data.datasets import Datasets
from ris_core.data.folder import Sample, read_json
from ris_core.data.splits import fold_of
from ris_core.errors import DatasetError
from ris_core.evaluation.baseline import advantage
from ris_core.evaluation.evaluate import Report, calibrate, evaluate
from ris_core.evaluation.metrics import Score
from ris_core.files import sha256
from ris_core.inference.predictor import Predictor
from ris_core.masks import iou

SENTENCES = Path(__file__).parent / "written.json"


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    file, folders = Path(os.environ.get("WRITTEN") or SENTENCES), os.environ.get("FOLDERS", "").split()
    pairs, digest = read(file, Path(os.environ["DATA"])), sha256(file)
    print(f"{len(pairs)} sentences, SHA-256 {digest}")
    predictor, samples = Predictor.load(os.environ.get("MODEL")), [sample for sample, _ in pairs]
    report = answer_by_halves(predictor, samples, folders) if folders else evaluate(predictor, samples)
    how = "on other photos" if folders else "as it is"
    record("written", figures(report, pairs), model=predictor.version, sentences=digest, calibrated=how)


def answer_by_halves(predictor: Predictor, samples: Sequence[Sample], folders: Sequence[str]) -> Report:
    """Both halves of the photos, each at the operating point that the other fixes."""
    datasets, answered, scores = Datasets.read([Path(folder) for folder in folders]), list[Sample](), list[Score]()
    for half in (0, 1):
        others = [sample for sample in datasets.validation if fold_of(sample.image.name, 2) != half]
        predictor.point = calibrate(predictor, others, names=datasets.names)
        report = evaluate(predictor, [sample for sample in samples if fold_of(sample.image.name, 2) == half])
        answered, scores = answered + report.samples, scores + report.scores
    return Report(answered, scores)


def figures(report: Report, pairs: Sequence[tuple[Sample, Sample]]) -> dict[str, float]:
    """Figures of a model's answers to sentences, each of which comes with what the baseline marks for it."""
    baseline = {id(sample): iou(every.mask(), sample.mask()) for sample, every in pairs}
    ious, photos = [score.iou for score in report.scores], [sample.image.name for sample in report.samples]
    against = advantage(ious, [baseline[id(sample)] for sample in report.samples], photos)
    kept = ("expressions", "mIoU", "oIoU", "Prec@0.5", "ECE")
    values = {name: report.figures[name] for name in kept} | {
        "answered": sum(not score.refused for score in report.scores) / len(report.scores),
        "expected IoU": sum(score.expected for score in report.scores) / len(report.scores),
        "every instance of the class": against.baseline,
        "above it, at least": against.low,
        "above it, at most": against.high,
    }
    return {name: round(value, 4) for name, value in values.items()}


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
