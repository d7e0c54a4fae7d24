"""`make bench-choice DATA=folder COCO=coco`: of the things that a detector finds, which one does a sentence mean?

A detector knows no left from right: GroundingDINO's users take the surest box. Here our listener chooses instead, by
the boxes alone and the sentence. So that the choice is measured and nothing else, the detector is one that makes no
mistake: people's masks of the class, the largest the surest. Asked are the expressions of the dataset folder DATA that
mean some of a class and not all (splits in SPLITS, default "val test"), and the sentences that people wrote, see
written.py, about photos of COCO. With a zero-shot segmenter in MODEL, its own things are chosen from, with the listener
and without. Results are appended to benchmarks/results/choice.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import written
from record import record

from ris_core import segmenters
from ris_core.data import Sample, read_folder
from ris_core.data.folder import read_json
from ris_core.evaluation.baseline import advantage, every_instance
from ris_core.evaluation.evaluate import evaluate
from ris_core.inference.choosing import Chooser
from ris_core.masks import Mask, iou, segmentation_to_mask
from ris_core.zero_shot.segmenter import ZeroShotSegmenter

# What was meant, and the things of its class in the photo.
Choice = tuple[Sample, list[Mask]]


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    name = os.environ.get("MODEL")
    asked = {"derived": derived(Path(os.environ["DATA"])), "written": said(Path(os.environ["COCO"]))}
    for what, choices in asked.items():
        samples = [sample for sample, _ in choices]
        pairs = by_model(name, samples) if name else by_people(choices)
        figures = advantage(*zip(*pairs, strict=True), [sample.image.name for sample in samples])._asdict()
        named = {"listener": figures["model"], "top box": figures["baseline"], **figures}
        record("choice", named, expressions=what, count=len(samples), model=name or "people's masks")


def derived(folder: Path) -> list[Choice]:
    """The expressions that mean some of a class and not all."""
    splits = os.environ.get("SPLITS", "val test").split()
    instances = every_instance(read_json(folder / "refs.json"), read_json(folder / "instances.json"))
    samples = [sample for sample in read_folder(folder) if sample.split in splits and sample.ref_id in instances]
    return [(sample, _masks(sample, instances[sample.ref_id])) for sample in samples]


def said(folder: Path) -> list[Choice]:
    """The sentences that people wrote, of those photos that have several of what is meant."""
    pairs = written.read(written.SENTENCES, folder)
    return [(sample, _masks(sample, every.segmentations)) for sample, every in pairs if len(every.segmentations) > 1]


def by_people(choices: Sequence[Choice]) -> Iterator[tuple[float, float]]:
    """IoU of what the listener chooses, and of the largest thing."""
    chooser = Chooser.shipped()
    assert chooser is not None
    for sample, masks in choices:
        [text] = [chooser.text_encoder([sample.sentence])]
        answer = chooser.among(text, masks, np.any(masks, axis=0).astype(np.float32))
        chosen, target = np.any([masks[number] for number in answer.chosen], axis=0), sample.mask()
        yield iou(chosen, target), iou(max(masks, key=np.count_nonzero), target)


def by_model(name: str, samples: Sequence[Sample]) -> Iterator[tuple[float, float]]:
    """IoU of a segmenter's answers with the listener, and of the surest thing that it found."""
    segmenter = segmenters.load(name)
    assert isinstance(segmenter, ZeroShotSegmenter)
    alone = ZeroShotSegmenter(segmenter.network, segmenter.point, segmenter.version)
    chosen = evaluate(segmenter, samples)
    for sample, score in zip(chosen.samples, chosen.scores, strict=True):
        [raw] = alone.predict_raw([(alone.embed(sample.photo()), [sample.sentence])])
        surest = raw.things[0] if raw.things else raw.probability >= alone.point.mask
        yield score.iou, iou(np.asarray(surest), sample.mask())


def _masks(sample: Sample, segmentations: Sequence[object]) -> list[Mask]:
    return [segmentation_to_mask(one, sample.height, sample.width) for one in segmentations]


if __name__ == "__main__":
    main()
