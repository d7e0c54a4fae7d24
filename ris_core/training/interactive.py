"""Training the interactive decoder of a model, all else of it frozen, with clicks that are simulated.

Each object is asked for several times: first by a click, a box or words, then with a click where the answer was most
wrong, as RITM trains (Sofiiuk et al. 2021); every round counts, since each is what somebody will ask.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ris_core.data.folder import Sample, by_photo
from ris_core.evaluation.clicker import Click, next_click, random_click
from ris_core.losses import QUALITY_WEIGHT, mask_loss, quality_loss
from ris_core.masks import Mask, bounding_box
from ris_core.models.base import RISModel
from ris_core.models.interactive import SURE, InteractiveLevel, VisualPrompts
from ris_core.models.layers import valid_cells
from ris_core.models.output import LossWeights, Output
from ris_core.training.augment import fit_view
from ris_core.training.processes import Processes
from ris_core.training.recipe import Recipe
from ris_core.training.sampling import canvas_of, is_upright, oriented_batches, resample

Often: TypeAlias = Callable[[Path], float] | None

ROUNDS = 3
# Canvases for training are small, and show parts of photos as large as they are read for prediction.
ZOOM = (1.0, 2.1)
# An object with fewer cells than this in view is too small to be clicked on.
_VISIBLE = 12.0
# How often an object is asked for first by a box, and how often by words and a click; else by a click.
_BOXES, _WORDS = 0.25, 0.25
# How often all that a name means is asked for, by what the model finds for the name: an answer to be refined.
_NAMED, _NAMES = 0.35, ("name", "synonym", "attribute", "plural")
# How often the earlier answer isn't told with the next click, and how often only as a mask of yes and no.
_FORGOTTEN, _BINARY = 0.25, 0.35
_LOSS = LossWeights(entropy=1.0, dice=1.0)


@dataclass(frozen=True)
class InteractiveBatch:
    """B photos and N objects. pixels: (B, 3, H, W). valid: (B, 1, H, W). index: (N,). targets: (N, 1, H/4, W/4), the
    share of each cell covered. sentences: N, each means its object among others; "" where none does. named: N, whether
    the sentence alone asks first.
    """

    pixels: Tensor
    valid: Tensor
    index: Tensor
    targets: Tensor
    sentences: list[str]
    named: list[bool]


class ObjectPhotos(Dataset[InteractiveBatch]):
    """The photos of a pass, each with a few of its objects."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, number: int, often: Often = None) -> None:
        self.recipe, self.order = recipe, f"{recipe.seed} {number}"
        photos = [photo for photo in by_photo(samples) if any(sample.has_target for sample in photo)]
        self.photos = [photo for upright in (True, False) for photo in self._show(photos, upright, often)]

    def _show(self, photos: Sequence[list[Sample]], upright: bool, often: Often) -> list[list[Sample]]:
        """The photos of one orientation, as many as there are in every pass, those wanted more often several times."""
        chosen = [photo for photo in photos if is_upright(photo) is upright]
        if often is None:
            return chosen
        times = resample([often(photo[0].image) for photo in chosen], random.Random(f"{self.order} {upright}").random())
        return [photo for photo, count in zip(chosen, times, strict=True) for _ in range(count)]

    def batches(self) -> list[list[int]]:
        """Numbers of photos, those of one orientation together, shuffled."""
        upright = [is_upright(photo) for photo in self.photos]
        return oriented_batches(upright, self.recipe.photos, random.Random(self.order))

    def __getitem__(self, number: int) -> InteractiveBatch:
        samples = self.photos[number]
        first, rng = samples[0], random.Random(f"{self.order} {number} {samples[0].image.name}")
        canvas = canvas_of(first, self.recipe.side)
        view = fit_view((first.height, first.width), canvas, rng, ZOOM)
        targets, sentences, named = [], [], []
        for thing, sentence, alone in _draw(samples, rng):
            target = view.target(thing.mask())
            if target.sum() >= _VISIBLE:
                targets.append(target)
                sentences.append(sentence)
                named.append(alone)
            if len(targets) == self.recipe.present:
                break
        return InteractiveBatch(
            torch.from_numpy(view.pixels(first.photo())).permute(2, 0, 1)[None].float(),
            torch.from_numpy(view.valid())[None, None],
            torch.zeros(len(targets), dtype=torch.long),
            torch.from_numpy(np.array(targets, np.float32)).reshape(-1, 1, canvas[0] // 4, canvas[1] // 4),
            sentences,
            named,
        )


def _draw(samples: Sequence[Sample], rng: random.Random) -> Iterator[tuple[Sample, str, bool]]:
    """The objects of a photo in a random order, each as a sample that means it alone, with a sentence that means it.

    Some of them are all that a name means instead, and said to be.
    """
    objects: dict[int, list[Sample]] = {}
    for sample in samples:
        for segmentation in sample.segmentations:
            objects.setdefault(id(segmentation), []).append(sample)
    order = list(objects.items())
    rng.shuffle(order)
    for key, meaning in order:
        chosen = rng.choice(meaning)
        if chosen.kind in _NAMES and rng.random() < _NAMED:
            yield chosen, chosen.sentence, True
            continue
        [one] = [part for part in chosen.segmentations if id(part) == key][:1]
        yield replace(chosen, segmentations=(one,)), chosen.sentence, False


def collate(photos: list[InteractiveBatch]) -> InteractiveBatch:
    """Batches of one photo -> one of all."""
    counts = torch.tensor([len(photo.sentences) for photo in photos])
    return InteractiveBatch(
        torch.cat([photo.pixels for photo in photos]),
        torch.cat([photo.valid for photo in photos]),
        torch.arange(len(photos)).repeat_interleave(counts),
        torch.cat([photo.targets for photo in photos]),
        [sentence for photo in photos for sentence in photo.sentences],
        [named for photo in photos for named in photo.named],
    )


class InteractiveCourse:
    """Photos with their objects, for `loop.train_course`."""

    def __init__(
        self, model: RISModel, samples: Sequence[Sample], recipe: Recipe, processes: Processes, often: Often = None
    ) -> None:
        """Freezes all of `model` but its interactive decoder; one that has none gets one, untrained.

        often: how often a pass shows a photo next to the others, by the photo's path. [alike]
        """
        if model.interactive is None:
            model.add_interactive()
        assert model.interactive is not None
        model.requires_grad_(False)
        self._decoder = model.interactive.requires_grad_(True)
        self._model, self._samples, self._recipe, self._processes = model.place(), samples, recipe, processes
        self._often = often

    def count(self) -> int:
        """As `Course.count`."""
        return len(self._batches(0)[1])

    def batches(self, number: int, skip: int) -> DataLoader[InteractiveBatch]:
        """As `Course.batches`."""
        photos, batches = self._batches(number)
        return DataLoader(photos, batch_sampler=batches[skip:], collate_fn=collate, num_workers=self._recipe.workers)

    def _batches(self, number: int) -> tuple[ObjectPhotos, list[list[int]]]:
        photos = ObjectPhotos(self._samples, self._recipe, number, self._often)
        rank, count = self._processes.rank, self._processes.count
        return photos, [batch[rank::count] for batch in photos.batches() if len(batch) >= count]

    def loss(self, batch: InteractiveBatch) -> Tensor:
        """The mean over the rounds."""
        rng = np.random.default_rng(int(torch.randint(2**31, ()).item()))
        precision = self._recipe.precision
        with torch.autocast(self._model.device.type, getattr(torch, precision), precision != "float32"):
            with torch.no_grad():
                levels = self._model.encode_levels(batch.pixels, batch.valid)
                words = self._words(levels, batch, rng)
            embedding = self._decoder.read_levels(levels, batch.valid)
            cells = valid_cells(batch.valid, batch.targets)[batch.index]
            session = _Session(batch.targets, cells, words, batch.named, rng)
            return torch.stack([self._round(embedding, session, batch, cells) for _ in range(ROUNDS)]).mean()

    def _round(
        self, embedding: Sequence[InteractiveLevel], session: _Session, batch: InteractiveBatch, cells: Tensor
    ) -> Tensor:
        output = self._decoder(embedding, session.prompts(), batch.index)
        mask, quality = output.mask.float(), output.quality.float()
        session.answered(mask.detach())
        present = torch.ones_like(quality)
        judged = quality_loss(Output(mask, quality, quality), batch.targets, cells, present)
        return mask_loss(mask, batch.targets, cells, present, _LOSS) + QUALITY_WEIGHT * judged

    def _words(self, levels: Sequence[Tensor], batch: InteractiveBatch, rng: np.random.Generator) -> Tensor:
        """(N, 1, H/4, W/4): what the model says to the sentences of some of the objects, 0 for the others."""
        sentences = zip(batch.sentences, batch.named, strict=True)
        asked = [n for n, (sentence, named) in enumerate(sentences) if sentence and (named or rng.random() < _WORDS)]
        logits = torch.zeros_like(batch.targets)
        if asked:
            text = self._model.encode_text([batch.sentences[n] for n in asked])
            embedding = self._model.read_levels(levels, batch.valid)
            logits[asked] = self._model(embedding, text, batch.index[asked]).mask.float()
        return logits


class _Session:
    """What was asked of N objects so far, and what is to be asked next."""

    def __init__(
        self, targets: Tensor, cells: Tensor, words: Tensor, named: Sequence[bool], rng: np.random.Generator
    ) -> None:
        self._truths = (targets[:, 0] > 0.5).numpy()
        self._valid = (cells[:, 0] > 0).numpy()
        self._rng, self._mask = rng, words
        self._boxes = torch.full((len(targets), 4), float("nan"))
        self._clicks: list[list[Click]] = [[] for _ in targets]
        for number, truth in enumerate(self._truths):
            worded = bool(words[number].any())
            if named[number] and bool((words[number] > 0).any()):
                continue
            if not worded and rng.random() < _BOXES and truth.any():
                self._boxes[number] = torch.tensor(_box(truth, rng))
            elif rng.random() < 0.5:
                # Where the words went wrong; without words in the middle of the thing.
                self._add(number, next_click(words[number, 0].numpy() > 0, truth, self._valid[number]))
            else:
                self._add(number, random_click(truth, rng))

    def prompts(self) -> VisualPrompts:
        """As the decoder takes them."""
        points, labels = to_points(self._clicks)
        return VisualPrompts(points, labels, self._boxes, self._mask)

    def answered(self, logits: Tensor) -> None:
        """Click where these answers (N, 1, H/4, W/4) are most wrong."""
        kept = logits.clone()
        for number, truth in enumerate(self._truths):
            self._add(number, next_click(logits[number, 0].numpy() > 0, truth, self._valid[number]))
            chance = self._rng.random()
            if chance < _FORGOTTEN:
                kept[number] = 0
            elif chance < _FORGOTTEN + _BINARY:
                kept[number] = SURE * (2 * (logits[number] > 0).float() - 1)
        self._mask = kept

    def _add(self, number: int, click: Click | None) -> None:
        if click is not None:
            self._clicks[number].append(click)


def to_points(clicks: Sequence[Sequence[Click]]) -> tuple[Tensor, Tensor]:
    """Clicks on cells of stride 4 -> `VisualPrompts.points` and `labels`."""
    longest = max(1, *map(len, clicks))
    points, labels = torch.zeros(len(clicks), longest, 2), torch.full((len(clicks), longest), -1)
    for number, own in enumerate(clicks):
        for place, click in enumerate(own):
            points[number, place] = torch.tensor([4 * click.column + 2.0, 4 * click.row + 2.0])
            labels[number, place] = int(click.positive)
    return points, labels


def _box(truth: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """Around the thing, as roughly as people draw: each side off by a twentieth of the box. In pixels of the canvas."""
    left, top, across, down = 4 * np.array(bounding_box(truth), np.float32)
    box, size = np.array([left, top, left + across, top + down]), np.array([across, down] * 2)
    return np.asarray(box + rng.normal(0, 0.05, 4).astype(np.float32) * size, dtype=np.float32)
