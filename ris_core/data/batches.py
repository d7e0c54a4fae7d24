"""Samples -> training batches: a few expressions of each photo, photos of one orientation together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ris_core.data.augment import View, look, mirror_words
from ris_core.data.folder import Sample
from ris_core.errors import DatasetError
from ris_core.images import read_image

# Fewer cells of a quarter-size target than this, and a person wouldn't see the thing either.
_VISIBLE_CELLS = 2.0


Item: TypeAlias = tuple[View, list[str]]


@dataclass(frozen=True)
class Batch:
    """B photos and N expressions about them.

    pixels: (B, 3, H, W) in [0, 255]. valid: (B, 1, H, W). sentences: N. index: (N,) the photo of each.
    targets: (N, 1, H/4, W/4) share of each cell covered. present: (N,) 1 where the thing is in view.
    """

    pixels: Tensor
    valid: Tensor
    sentences: list[str]
    index: Tensor
    targets: Tensor
    present: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            pixels=self.pixels.to(device),
            valid=self.valid.to(device),
            index=self.index.to(device),
            targets=self.targets.to(device),
            present=self.present.to(device),
        )


def epoch(
    samples: Sequence[Sample],
    *,
    side: int,
    photos: int,
    present: int,
    absent: int,
    seed: int,
    workers: int = 0,
) -> DataLoader[Any]:
    """One pass over all photos, as `Batch`es, in an order that `seed` fixes.

    Args:
        side: the canvas' longer side, a multiple of 96; the shorter is two thirds of it.
        photos: photos a batch.
        present, absent: at most so many expressions a photo with and without a target.
        workers: processes that read photos ahead; 0 reads in this one.
    """
    dataset = _Photos(samples, side, present, absent, seed)
    batches = dataset.batches(photos)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=_collate, num_workers=workers)


def count_batches(samples: Sequence[Sample], photos: int) -> int:
    """How many batches `epoch` gives."""
    return len(_Photos(samples, 96, 1, 1, 0).batches(photos))


class _Photos(Dataset[Item]):
    def __init__(self, samples: Sequence[Sample], side: int, present: int, absent: int, seed: int) -> None:
        self.photos = list(by_photo(samples))
        self.side, self.present, self.absent, self.seed = side, present, absent, seed

    def __len__(self) -> int:
        return len(self.photos)

    def batches(self, size: int) -> list[list[int]]:
        """Indices of photos, batched by orientation, shuffled."""
        order = random.Random(self.seed)
        upright = [photo[0].height > photo[0].width for photo in self.photos]
        batches = []
        for orientation in (True, False):
            indices = [index for index in range(len(self.photos)) if upright[index] is orientation]
            order.shuffle(indices)
            batches += [indices[start : start + size] for start in range(0, len(indices), size)]
        order.shuffle(batches)
        return batches

    def __getitem__(self, index: int) -> tuple[View, list[str]]:
        samples = self.photos[index]
        randomness = random.Random(f"{self.seed} {samples[0].image.name}")
        chosen = [
            *_draw(samples, True, self.present, randomness),
            *_draw(samples, False, self.absent, randomness),
        ]
        image = read_image(samples[0].image)
        if image.shape[:2] != (samples[0].height, samples[0].width):
            raise DatasetError(f"{samples[0].image} isn't of the size that instances.json says.")
        long, short = self.side, self.side * 2 // 3
        upright = samples[0].height > samples[0].width
        view = look(
            image,
            [sample.mask() for sample in chosen],
            (long, short) if upright else (short, long),
            randomness,
        )
        return view, [_say(sample.sentence, view.mirrored, randomness) for sample in chosen]


def _draw(samples: Sequence[Sample], has_target: bool, count: int, randomness: random.Random) -> list[Sample]:
    of_kind = [sample for sample in samples if sample.has_target is has_target]
    return randomness.sample(of_kind, min(count, len(of_kind)))


def _say(sentence: str, mirrored: bool, randomness: random.Random) -> str:
    """The sentence as the view needs it; people leave the article out as often as not."""
    said = mirror_words(sentence) if mirrored else sentence
    if said.startswith("the ") and randomness.random() < 0.5:
        said = randomness.choice(("", "a ", "all of the ")) + said.removeprefix("the ")
    return said


def _collate(items: list[tuple[View, list[str]]]) -> Batch:
    views = [view for view, _ in items]
    targets = torch.from_numpy(np.concatenate([view.targets for view in views])).unsqueeze(1)
    counts = torch.tensor([len(sentences) for _, sentences in items])
    return Batch(
        pixels=torch.from_numpy(np.stack([view.pixels for view in views])).permute(0, 3, 1, 2).float(),
        valid=torch.from_numpy(np.stack([view.valid for view in views])).unsqueeze(1),
        sentences=[sentence for _, sentences in items for sentence in sentences],
        index=torch.arange(len(items)).repeat_interleave(counts),
        targets=targets,
        present=(targets.sum(dim=(1, 2, 3)) >= _VISIBLE_CELLS).float(),
    )


def by_photo(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Samples grouped by photo, photos in order of first appearance."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[str(sample.image)].append(sample)
    yield from groups.values()
