"""Samples -> training batches: a few expressions of each photo, photos of one orientation together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ris_core.data.derive.words import mirror_words
from ris_core.data.folder import Sample, by_photo
from ris_core.encoders.base import Trunk
from ris_core.training.augment import View, look
from ris_core.training.collage import NAMED, Collage, CollageScene
from ris_core.training.feature_cache import FeatureCache
from ris_core.training.recipe import Draw

# The kind of an expression of which nobody said what it means: what a model answers is to be kept.
RECALLED = "recalled"
# True of a part of the photo as of the whole.
_ANYWHERE = (*NAMED, RECALLED)
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
        names = ("pixels", "valid", "index", "targets", "present", "recalled")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class Item:
    """One photo's part of a batch; pixels: empty where the trunk is known."""

    trunk: Trunk | None
    key: str
    pixels: Tensor
    valid: Tensor
    sentences: list[str]
    targets: Tensor
    recalled: list[bool]


def epoch(
    samples: Sequence[Sample],
    draw: Draw,
    *,
    number: int,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    cache: FeatureCache | None = None,
    workers: int = 0,
    skip: int = 0,
    weights: Sequence[float] | None = None,
) -> DataLoader[Any]:
    """Pass `number` over all photos, as `Batch`es, in an order that the seed fixes.

    Args:
        part: (rank, processes): of each batch this process' share of the photos.
        cache: where the trunks of views are kept.
        workers: processes that read photos ahead; 0 reads in this one.
        skip: batches at the beginning that are left out.
        weights: how often each sample is drawn, next to the others, above 0; a pass then has as many photos, but some
            several times. [each photo once, its expressions equally often]
    """
    dataset = _Photos(samples, draw, seed, number, cache, weights)
    rank, processes = part
    batches = [batch[rank::processes] for batch in dataset.batches() if len(batch) >= processes]
    return DataLoader(dataset, batch_sampler=batches[skip:], collate_fn=_collate, num_workers=workers)


def count_batches(samples: Sequence[Sample], photos: int, processes: int = 1) -> int:
    """How many batches a pass has; one of fewer photos than there are processes is left out."""
    batches = _Photos(samples, Draw(96, photos, 1, 1), 0, 0, None, None).batches()
    return sum(len(batch) >= processes for batch in batches)


_Ref: TypeAlias = tuple[bool, int]
"""Whether it has a target, and its number: what is drawn of a photo's expressions."""


class _Photos(Dataset[Item]):
    """The photos of a pass, each as often as it is shown in it."""

    def __init__(
        self,
        samples: Sequence[Sample],
        draw: Draw,
        seed: int,
        number: int,
        cache: FeatureCache | None,
        weights: Sequence[float] | None,
    ) -> None:
        self.photos = list(by_photo(samples))
        self.draw, self.cache, self.number = draw, cache, number
        self.collage = Collage(self.photos) if draw.paste else None
        self.order = f"{seed} {number}"
        self.refs = None if weights is None else _weigh(samples, weights)
        self.shown = [shown for upright in (True, False) for shown in self._show(upright)]

    def _show(self, upright: bool) -> list[tuple[int, int]]:
        """(photo, how often it was shown already), for the photos of one orientation: as many as these are."""
        photos = [index for index, photo in enumerate(self.photos) if _is_upright(photo) is upright]
        if self.refs is None:
            return [(index, 0) for index in photos]
        weights = [_of_photo(self.refs[str(self.photos[index][0].image)], self.draw) for index in photos]
        times = spread(weights, random.Random(f"shown {self.order} {upright}").random())
        return [(index, again) for index, count in zip(photos, times, strict=True) for again in range(count)]

    def __len__(self) -> int:
        return len(self.shown)

    def batches(self) -> list[list[int]]:
        """Numbers of what is shown, batched by orientation, shuffled."""
        order, size = random.Random(self.order), self.draw.photos
        upright = [_is_upright(self.photos[index]) for index, _ in self.shown]
        batches = []
        for orientation in (True, False):
            numbers = [number for number in range(len(self.shown)) if upright[number] is orientation]
            order.shuffle(numbers)
            batches += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        order.shuffle(batches)
        return batches

    def __getitem__(self, number: int) -> Item:
        index, again = self.shown[number]
        samples = self.photos[index]
        first, randomness = samples[0], random.Random(f"{self.order} {again} {samples[0].image.name}")
        view, weights = self._view(first, again), self.refs[str(first.image)] if self.refs else {}
        scene = self._scene(samples)
        true = [each for each in (scene.samples if scene else samples) if view.whole or each.kind in _ANYWHERE]
        chosen = [
            *_draw(true, True, self.draw.present, weights, randomness),
            *_draw(true, False, self.draw.absent, weights, randomness),
        ]
        key = self.cache.key(first.image, view) if self.cache else ""
        trunk = self.cache.read(key) if self.cache else None
        height, width = view.canvas
        targets = [view.target(sample.mask()) for sample in chosen]
        return Item(
            trunk,
            key,
            torch.empty(0) if trunk else _pixels(scene.image if scene else first.photo(), view),
            torch.from_numpy(view.valid())[None],
            [_say(sample, view.mirrored, randomness) for sample in chosen],
            torch.from_numpy(np.array(targets, dtype=np.float32)).reshape(-1, 1, height // 4, width // 4),
            [sample.kind == RECALLED for sample in chosen],
        )

    def _scene(self, samples: list[Sample]) -> CollageScene | None:
        """The photo with a thing over it, where chance has it so."""
        randomness = random.Random(f"paste {self.order} {samples[0].image.name}")
        if self.collage is None or randomness.random() >= self.draw.paste:
            return None
        return self.collage.make(samples, randomness)

    def _view(self, sample: Sample, again: int) -> View:
        # Views that come again are the same for every seed, so that all runs can share what is kept of them.
        turn = f"view {(self.number + again) % self.draw.views}" if self.draw.views else f"{self.order} {again}"
        long, short = self.draw.side, self.draw.side * 2 // 3
        canvas = (long, short) if sample.height > sample.width else (short, long)
        return look((sample.height, sample.width), canvas, random.Random(f"{turn} {sample.image.name}"))


def _pixels(image: NDArray[np.uint8], view: View) -> Tensor:
    return torch.from_numpy(view.pixels(image)).permute(2, 0, 1).float()


def _weigh(samples: Sequence[Sample], weights: Sequence[float]) -> dict[str, dict[_Ref, float]]:
    """Of each photo the weight of its refs: the largest of their sentences'."""
    found: dict[str, dict[_Ref, float]] = defaultdict(dict)
    for sample, weight in zip(samples, weights, strict=True):
        refs, ref = found[str(sample.image)], _ref(sample)
        refs[ref] = max(refs.get(ref, 0.0), weight)
    return dict(found)


def _of_photo(refs: Mapping[_Ref, float], draw: Draw) -> float:
    """A photo's weight, so that each of its targets is drawn as often as its own weight says."""
    for has_target, most in ((True, draw.present), (False, draw.absent)):
        weights = [weight for (there, _), weight in refs.items() if there is has_target]
        if weights and most:
            return sum(weights) / min(len(weights), most)
    return 0.0


def spread(weights: Sequence[float], start: float) -> list[int]:
    """How often each is drawn, as often together as there are weights (systematic resampling, Kitagawa 1996).

    In the mean over `start`, evenly in [0, 1), each is drawn in proportion to its weight, and always to within one.
    """
    total, ends = sum(weights) or 1.0, np.cumsum(weights) * len(weights)
    # Numbers below an end: of the points start, start + 1 and so on.
    before = np.clip(np.ceil(ends / total - start), 0, len(weights)).astype(int)
    before[-1:] = len(weights)
    return [int(count) for count in np.diff(before, prepend=0)]


def _draw(
    samples: Sequence[Sample],
    has_target: bool,
    count: int,
    weights: Mapping[_Ref, float],
    randomness: random.Random,
) -> list[Sample]:
    """Refs first, then one sentence of each: a thing that many sentences describe isn't shown more often for it."""
    refs: dict[_Ref, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.has_target is has_target:
            refs[_ref(sample)].append(sample)
    # The first to come of so many that come at these rates: drawn by weight, none twice.
    drawn = sorted(refs, key=lambda ref: randomness.expovariate(weights.get(ref, 1.0)))[:count]
    return [randomness.choice(refs[ref]) for ref in drawn]


def _ref(sample: Sample) -> _Ref:
    return sample.has_target, sample.ref_id


def _is_upright(photo: Sequence[Sample]) -> bool:
    return photo[0].height > photo[0].width


def _say(sample: Sample, mirrored: bool, randomness: random.Random) -> str:
    """The sentence as the view needs it; people leave the article of a plain name out as often as not."""
    said = mirror_words(sample.sentence) if mirrored else sample.sentence
    if sample.kind in NAMED and said.startswith("the ") and randomness.random() < 0.5:
        said = randomness.choice(("", "a ", "all of the ")) + said.removeprefix("the ")
    return said


def _collate(items: list[Item]) -> TrainingBatch:
    targets = torch.cat([item.targets for item in items])
    counts = torch.tensor([len(item.sentences) for item in items])
    unknown = [item.pixels for item in items if item.trunk is None]
    return TrainingBatch(
        trunks=[item.trunk for item in items],
        keys=[item.key for item in items],
        pixels=torch.stack(unknown) if unknown else torch.empty(0),
        valid=torch.stack([item.valid for item in items]),
        sentences=[sentence for item in items for sentence in item.sentences],
        index=torch.arange(len(items)).repeat_interleave(counts),
        targets=targets,
        present=(targets.sum(dim=(1, 2, 3)) >= _VISIBLE_CELLS).float(),
        recalled=torch.tensor([each for item in items for each in item.recalled], dtype=torch.bool),
    )
