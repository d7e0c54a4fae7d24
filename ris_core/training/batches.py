"""Samples -> training batches: a few expressions of each photo, photos of one orientation together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ris_core.data.derive.words import mirror_words
from ris_core.data.folder import Sample, by_photo
from ris_core.encoders.base import Trunk
from ris_core.training.augment import View, fit_view
from ris_core.training.collage import NAMED, Collage, CollageScene
from ris_core.training.feature_cache import FeatureCache
from ris_core.training.recipe import Recipe
from ris_core.training.sampling import (
    canvas_of,
    draw_samples,
    is_upright,
    oriented_batches,
    resample,
    weigh_photo,
    weigh_refs,
)

# The kind of an expression of which nobody said what it means: what a model answers is to be kept.
RECALLED = "recalled"
# True of a part of the photo as of the whole.
_ANYWHERE = (*NAMED, RECALLED)
_TENSORS = ("pixels", "valid", "index", "targets", "present", "recalled")
# Fewer cells of a quarter-size target than this, and a person wouldn't see the thing either.
_VISIBLE_CELLS = 2.0


@dataclass(frozen=True)
class TrainingBatch:
    """B photos and N expressions about them.

    trunks: B, what the frozen stages made of a photo's view, None where that isn't known yet. keys: B, under which it
    is kept. pixels: (M, 3, H, W) in [0, 255], the views that aren't known. valid: (B, 1, H, W). sentences: N.
    index: (N,) the photo of each. targets: (N, 1, H/4, W/4) share of each cell covered. present: (N,) 1 where the
    thing is in view. recalled: (N,) True where another model's answer is to stand for both.
    """

    trunks: list[Trunk | None]
    keys: list[str]
    pixels: Tensor
    valid: Tensor
    sentences: list[str]
    index: Tensor
    targets: Tensor
    present: Tensor
    recalled: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch, its tensors of photos and expressions on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})


def epoch_batches(
    samples: Sequence[Sample],
    recipe: Recipe,
    number: int,
    part: tuple[int, int] = (0, 1),
    cache: FeatureCache | None = None,
    skip: int = 0,
    weights: Sequence[float] | None = None,
) -> DataLoader[Any]:
    """Pass `number` over all photos, as `TrainingBatch`es, in an order that the recipe's seed fixes.

    Args:
        part: (rank, processes): of each batch this process' share of the photos.
        cache: where the trunks of views are kept.
        skip: batches at the beginning that are left out.
        weights: how often each sample is drawn, next to the others, above 0; a pass then has as many photos, but some
            several times. [each photo once, its expressions equally often]
    """
    dataset = _PassPhotos(samples, recipe, number, cache, weights)
    rank, processes = part
    batches = [batch[rank::processes] for batch in dataset.batches() if len(batch) >= processes]
    return DataLoader(dataset, batch_sampler=batches[skip:], collate_fn=_collate, num_workers=recipe.workers)


def count_batches(samples: Sequence[Sample], photos: int, processes: int = 1) -> int:
    """How many batches a pass has; one of fewer photos than there are processes is left out."""
    return len(epoch_batches(samples, Recipe(photos=photos), 0, (0, processes)))


class _PassPhotos(Dataset[TrainingBatch]):
    """The photos of a pass, each as often as it is shown in it."""

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: Recipe,
        number: int,
        cache: FeatureCache | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.photos = list(by_photo(samples))
        self.recipe, self.cache, self.number = recipe, cache, number
        self.collage = Collage(self.photos) if recipe.paste else None
        self.order = f"{recipe.seed} {number}"
        self.refs = None if weights is None else weigh_refs(samples, weights)
        self.shown = [shown for upright in (True, False) for shown in self._show(upright)]

    def _show(self, upright: bool) -> list[tuple[int, int]]:
        """(photo, how often it was shown already), for the photos of one orientation: as many as these are."""
        photos = [index for index, photo in enumerate(self.photos) if is_upright(photo) is upright]
        if self.refs is None:
            return [(index, 0) for index in photos]
        weights = [weigh_photo(self.refs[str(self.photos[index][0].image)], self.recipe) for index in photos]
        times = resample(weights, random.Random(f"shown {self.order} {upright}").random())
        return [(index, again) for index, count in zip(photos, times, strict=True) for again in range(count)]

    def __len__(self) -> int:
        return len(self.shown)

    def batches(self) -> list[list[int]]:
        """Numbers of what is shown, batched by orientation, shuffled."""
        upright = [is_upright(self.photos[index]) for index, _ in self.shown]
        return oriented_batches(upright, self.recipe.photos, random.Random(self.order))

    def __getitem__(self, number: int) -> TrainingBatch:
        index, again = self.shown[number]
        samples = self.photos[index]
        first, rng = samples[0], random.Random(f"{self.order} {again} {samples[0].image.name}")
        view, weights = self._view(first, again), self.refs[str(first.image)] if self.refs else {}
        scene = self._scene(samples)
        shown = scene.samples if scene else samples
        true = [sample for sample in shown if view.whole or sample.kind in _ANYWHERE]
        chosen = [
            *draw_samples(true, True, self.recipe.present, weights, rng),
            *draw_samples(true, False, self.recipe.absent, weights, rng),
        ]
        key = self.cache.key(first.image, view) if self.cache else ""
        trunk = self.cache.read(key) if self.cache else None
        height, width = view.canvas
        masks = np.array([view.target(sample.mask()) for sample in chosen], dtype=np.float32)
        targets = torch.from_numpy(masks).reshape(-1, 1, height // 4, width // 4)
        return TrainingBatch(
            [trunk],
            [key],
            torch.empty(0, 3, height, width) if trunk else _pixels(scene.image if scene else first.photo(), view)[None],
            torch.from_numpy(view.valid())[None, None],
            [_say(sample, view.mirrored, rng) for sample in chosen],
            torch.zeros(len(chosen), dtype=torch.long),
            targets,
            (targets.sum(dim=(1, 2, 3)) >= _VISIBLE_CELLS).float(),
            torch.tensor([sample.kind == RECALLED for sample in chosen], dtype=torch.bool),
        )

    def _scene(self, samples: list[Sample]) -> CollageScene | None:
        """The photo with a thing over it, where chance has it so."""
        rng = random.Random(f"paste {self.order} {samples[0].image.name}")
        if self.collage is None or rng.random() >= self.recipe.paste:
            return None
        return self.collage.make(samples, rng)

    def _view(self, sample: Sample, again: int) -> View:
        # Views that come again are the same for every seed, so that all runs can share what is kept of them.
        turn = f"view {(self.number + again) % self.recipe.views}" if self.recipe.views else f"{self.order} {again}"
        canvas = canvas_of(sample, self.recipe.side)
        return fit_view((sample.height, sample.width), canvas, random.Random(f"{turn} {sample.image.name}"))


def _pixels(image: NDArray[np.uint8], view: View) -> Tensor:
    return torch.from_numpy(view.pixels(image)).permute(2, 0, 1).float()


def _say(sample: Sample, mirrored: bool, rng: random.Random) -> str:
    """The sentence as the view needs it; people leave the article of a plain name out as often as not."""
    said = mirror_words(sample.sentence) if mirrored else sample.sentence
    if sample.kind in NAMED and said.startswith("the ") and rng.random() < 0.5:
        said = rng.choice(("", "a ", "all of the ")) + said.removeprefix("the ")
    return said


def _collate(photos: list[TrainingBatch]) -> TrainingBatch:
    """Batches of one photo -> one of all."""
    counts = torch.tensor([len(photo.sentences) for photo in photos])
    tensors = {name: torch.cat([getattr(photo, name) for photo in photos]) for name in _TENSORS}
    return TrainingBatch(
        trunks=[trunk for photo in photos for trunk in photo.trunks],
        keys=[key for photo in photos for key in photo.keys],
        sentences=[sentence for photo in photos for sentence in photo.sentences],
        **tensors | {"index": torch.arange(len(photos)).repeat_interleave(counts)},
    )
