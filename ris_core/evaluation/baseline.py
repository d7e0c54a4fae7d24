"""What a model that reads no more than the noun would score: all instances of the class, for each that is meant.

Its masks are people's, so it is an upper bound for such a model; one that understands a choice must beat it.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ris_core.data.folder import Sample, meant_annotations, read_json
from ris_core.evaluation.metrics import bootstrap
from ris_core.masks import iou


class Advantage(NamedTuple):
    """Mean IoU of a model and of the baseline over the same expressions, and their difference's 95 % interval."""

    model: float
    baseline: float
    low: float
    high: float


def choices_of(folder: Path, samples: Sequence[Sample]) -> list[tuple[Sample, float]]:
    """The expressions of a dataset folder that mean some of a class and not all, each with the baseline's IoU.

    Args:
        samples: of that folder.

    Raises DatasetError if one of the folder's files isn't JSON.
    """
    instances = every_instance(read_json(folder / "refs.json"), read_json(folder / "instances.json"))
    return [
        (sample, iou(replace(sample, segmentations=instances[sample.ref_id]).mask(), sample.mask()))
        for sample in samples
        if sample.ref_id in instances
    ]


def advantage(model: Sequence[float], baseline: Sequence[float], photos: Sequence[Hashable]) -> Advantage:
    """Compare IoUs expression by expression; photos are drawn anew, each with all of its expressions.

    Raises ValueError if there are none, or not as many of one as of another.
    """
    pairs = np.array(list(zip(model, baseline, strict=True)), dtype=float).reshape(-1, 2)
    if not len(pairs):
        raise ValueError("There is no expression to compare.")
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for difference, photo in zip(pairs[:, 0] - pairs[:, 1], photos, strict=True):
        groups[photo].append(difference)
    interval = bootstrap([(sum(differences), len(differences)) for differences in groups.values()])
    mine, others = pairs.mean(axis=0).tolist()
    return Advantage(mine, others, *interval)


def every_instance(refs: list[dict[str, Any]], instances: dict[str, Any]) -> dict[int, tuple[Any, ...]]:
    """ref_id -> the segmentations of its class in its photo, for refs that mean only some of them."""
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, annotation in annotations.items():
        if not annotation.get("iscrowd"):
            groups[annotation["image_id"], annotation["category_id"]].append(number)
    every: dict[int, tuple[Any, ...]] = {}
    for ref in refs:
        meant = meant_annotations(ref)
        if not meant:
            continue
        first = annotations[meant[0]]
        numbers = groups[first["image_id"], first["category_id"]]
        if set(meant) < set(numbers):
            every[ref["ref_id"]] = tuple(annotations[number]["segmentation"] for number in numbers)
    return every
