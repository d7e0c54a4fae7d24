"""Teaching a listener: sentences that people wrote about boxes, and made ones whose truth is certain.

People's sentences say which of the labelled things of a photo is meant, and how people speak. What they leave open is
made: layouts and templates teach exact order and size, and that a bare name means every one of its kind.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ris_core.data.derive import phrases
from ris_core.data.derive.choices import Thing, choices
from ris_core.data.derive.words import NUMBERS, mirror_words, noun, synonyms
from ris_core.data.readers.refer_lines import Boxes, ReferredThing
from ris_core.encoders.base import TextEncoder, TextFeatures
from ris_core.errors import TrainingError
from ris_core.files import sha256
from ris_core.inference.naming import names_place
from ris_core.masks import Mask
from ris_core.models.listener import Listener, ListenerOptions
from ris_core.training.pipeline import OnStage

# Masks of made layouts, on which `choices` decides: finer than its margins.
_RASTER = 100
# Sentences that are encoded together.
_TOGETHER = 128


@dataclass(frozen=True)
class ListenerRecipe:
    """made: share of each batch that is made. every: of the second loss. jitter: of a box's sides, standard deviation.

    average: decay of the weights' running mean, which is what is kept.
    """

    epochs: int = 6
    batch: int = 128
    made: float = 0.3
    every: float = 0.3
    jitter: float = 0.02
    rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 200
    average: float = 0.99
    seed: int = 0


class Example(NamedTuple):
    """A sentence about boxes. meant: which one; None if all are. every: 1 if all are, 0 if one is, None if unsaid."""

    sentence: str
    boxes: Boxes
    meant: int | None
    every: float | None


class SentenceFeatures:
    """The frozen encoder's features of sentences, each encoded once; in half precision, about 7 kB a sentence."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, sentences: Sequence[str], on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Encode those that are new, the short ones together; `on_progress` hears how many of how many are."""
        new = sorted({sentence for sentence in sentences if sentence not in self._kept}, key=len)
        for start in range(0, len(new), _TOGETHER):
            batch = new[start : start + _TOGETHER]
            with torch.inference_mode():
                text = self.encoder(batch)
            lengths = (~text.key_padding_mask).sum(dim=1).tolist()
            for number, (sentence, length) in enumerate(zip(batch, lengths, strict=True)):
                # Copies: a view would keep the whole batch.
                self._kept[sentence] = text.words[number, :length].half(), text.sentence[number].half()
            on_progress(min(start + _TOGETHER, len(new)), len(new))

    def __call__(self, sentences: Sequence[str]) -> TextFeatures:
        self.add(sentences)
        kept = [self._kept[sentence] for sentence in sentences]
        words = torch.nn.utils.rnn.pad_sequence([words.float() for words, _ in kept], batch_first=True)
        lengths = torch.tensor([len(words) for words, _ in kept])
        padding = torch.arange(words.shape[1])[None] >= lengths[:, None]
        return TextFeatures(words, padding, torch.stack([sentence.float() for _, sentence in kept]))


def train_listener(
    things: Sequence[ReferredThing],
    features: SentenceFeatures,
    options: ListenerOptions | None = None,
    recipe: ListenerRecipe | None = None,
    on_progress: OnStage = lambda stage, done, total, detail="": None,
) -> Listener:
    """A listener taught by `things`; those of photos with a single one teach nothing and are left out.

    Raises TrainingError if that leaves less than a batch.
    """
    recipe = recipe or ListenerRecipe()
    things = [thing for thing in things if len(thing.boxes) > 1]
    real = recipe.batch - round(recipe.made * recipe.batch)
    if len(things) < real:
        raise TrainingError(f"{len(things)} sentences about photos with several things are too few to learn from.")
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    encoder = features.encoder
    options = replace(options or ListenerOptions(), text_encoder=encoder.name, text_width=encoder.width)
    listener = Listener(options)
    sentences = [sentence for thing in things for sentence in (thing.sentence, mirror_words(thing.sentence))]
    features.add(sentences, partial(on_progress, "Encoding sentences"))
    optimiser = torch.optim.AdamW(listener.parameters(), recipe.rate, weight_decay=recipe.weight_decay)
    mean = {name: weight.detach().clone() for name, weight in listener.named_parameters()}
    steps = recipe.epochs * (len(things) // real)
    batches = _batches(things, real, recipe, rng)
    for step in range(steps):
        rate = min(1.0, (step + 1) / recipe.warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * rate
        loss = listener_loss(listener, next(batches), features, recipe.every)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(listener.parameters(), 1.0)
        optimiser.step()
        for name, weight in listener.named_parameters():
            mean[name].lerp_(weight.detach(), 1 - min(recipe.average, (step + 1) / (step + 10)))
        on_progress("Training", step + 1, steps, f"loss {loss.item():.3f}")
    listener.load_state_dict(mean)
    return listener.eval()


def listener_loss(
    listener: Listener, examples: Sequence[Example], features: SentenceFeatures, every: float
) -> torch.Tensor:
    """Cross-entropy over the candidates where one is meant, and `every` times that of whether all are."""
    choice = listener(*stack_boxes(examples), features([example.sentence for example in examples]))
    meant = [(row, example.meant) for row, example in enumerate(examples) if example.meant is not None]
    rows, targets = (torch.tensor(part) for part in zip(*meant, strict=True))
    said = [(row, example.every) for row, example in enumerate(examples) if example.every is not None]
    sure, truth = (torch.tensor(part) for part in zip(*said, strict=True))
    together = F.binary_cross_entropy_with_logits(choice.every[sure], truth)
    return F.cross_entropy(choice.meant[rows], targets) + every * together


def stack_boxes(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """-> boxes (N, K, 4) and where there is none (N, K), as `Listener.forward` takes them."""
    count = max(len(example.boxes) for example in examples)
    boxes, absent = torch.zeros(len(examples), count, 4), torch.ones(len(examples), count, dtype=torch.bool)
    for row, example in enumerate(examples):
        boxes[row, : len(example.boxes)] = torch.from_numpy(example.boxes)
        absent[row, : len(example.boxes)] = False
    return boxes, absent


def held_out(image_id: int) -> bool:
    """Whether a photo is among the tenth that a listener is measured on: by the SHA-256 of COCO's number."""
    return int(sha256(str(image_id).encode()), 16) % 10 == 0


@torch.inference_mode()
def accuracy(listener: Listener, things: Sequence[ReferredThing], features: SentenceFeatures) -> list[bool]:
    """Of each sentence, whether the box that it means is the one chosen."""
    listener.eval()
    right: list[bool] = []
    for start in range(0, len(things), _TOGETHER):
        part = things[start : start + _TOGETHER]
        examples = [Example(thing.sentence, thing.boxes, thing.meant, None) for thing in part]
        choice = listener(*stack_boxes(examples), features([thing.sentence for thing in part]))
        right += (choice.meant.argmax(dim=1) == torch.tensor([thing.meant for thing in part])).tolist()
    return right


def _batches(
    things: Sequence[ReferredThing], real: int, recipe: ListenerRecipe, rng: random.Random
) -> Iterator[list[Example]]:
    maker = MadeSentences([thing.boxes for thing in things], rng)
    order = list(things)
    while True:
        rng.shuffle(order)
        for start in range(0, len(order) - real + 1, real):
            batch = [_seen(thing, recipe.jitter, rng) for thing in order[start : start + real]]
            yield batch + [maker.draw() for _ in range(recipe.batch - real)]


def _seen(thing: ReferredThing, jitter: float, rng: random.Random) -> Example:
    """A person's sentence, in one of two cases mirrored with its boxes, which are moved a little."""
    sentence, boxes = thing.sentence, thing.boxes
    if rng.random() < 0.5:
        turned = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)
        sentence, boxes = mirror_words(sentence), turned
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, jitter, boxes.shape)
    # One or two words may be a bare name, said where nobody else was labelled.
    every = None if len(sentence.split()) <= 2 and not names_place(sentence) else 0.0
    return Example(sentence, (boxes + noise * sides).clip(0, 1).astype(np.float32), thing.meant, every)


class MadeSentences:
    """Draws sentences of templates that are true of a layout: one by place, size or order; or all of its kind."""

    def __init__(self, layouts: Sequence[Boxes], rng: random.Random) -> None:
        self._layouts, self._rng = layouts, rng
        self._random = np.random.default_rng(rng.getrandbits(32))

    def draw(self) -> Example:
        """One that is true."""
        while True:
            name = self._rng.choice(_NAMES)
            boxes = self._layout()
            if self._rng.random() < 0.35:
                return Example(self._together(name, len(boxes)), boxes, None, 1.0)
            things = [Thing(name, _raster(box), noun(name)) for box in boxes]
            if all(thing.mask.any() for thing in things) and (offered := list(choices(things))):
                choice = self._rng.choice(offered)
                sentence = self._rng.choice(choice.templates).format(self._rng.choice(synonyms(name)))
                return Example(sentence, boxes, next(n for n, thing in enumerate(things) if thing is choice.thing), 0.0)

    def _together(self, name: str, count: int) -> str:
        word = self._rng.choice(synonyms(name))
        if self._rng.random() < 0.5:
            return self._rng.choice(("{}", "the {}", "a {}")).format(word)
        templates = ["{}", *phrases.ALL, *(phrases.count(count) if count in NUMBERS else ())]
        return self._rng.choice(templates).format(noun(word).many)

    def _layout(self) -> Boxes:
        """Of a photo, in a row or column, or anywhere."""
        kind = self._rng.random()
        if kind < 0.4:
            return self._rng.choice(self._layouts)
        count = self._rng.choice((2, 2, 3, 3, 4, 5, 6))
        sizes = self._random.uniform(0.08, 0.5, (1, 2)) * np.exp(self._random.normal(0, 0.35, (count, 1)))
        sizes = (sizes * np.exp(self._random.normal(0, 0.1, (count, 2)))).clip(0.06, 0.95)
        centres = self._random.uniform(0.1, 0.9, (count, 2))
        if kind < 0.7:
            along = np.linspace(0.1, 0.9, count) + self._random.normal(0, 0.05, count)
            across = self._random.uniform(0.3, 0.7) + self._random.normal(0, 0.06, count)
            centres = np.stack([along, across][:: self._rng.choice((1, 1, 1, -1))], axis=1)
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).clip(0, 1)
        return np.asarray(corners[self._random.permutation(count)], dtype=np.float32)


_NAMES = (
    "person", "man", "woman", "guy", "girl", "boy", "kid", "lady", "player", "animal", "thing", "one", "dog", "cat",
    "horse", "cow", "sheep", "bird", "elephant", "zebra", "giraffe", "bear", "teddy bear", "car", "bus", "truck",
    "train", "bicycle", "motorcycle", "airplane", "boat", "chair", "couch", "bed", "dining table", "potted plant",
    "cup", "bowl", "bottle", "vase", "pizza", "donut", "sandwich", "cake", "banana", "orange", "apple", "book",
    "clock", "laptop", "tv", "cell phone", "umbrella", "suitcase", "backpack", "handbag", "tie", "kite",
    "surfboard", "toilet", "box", "house", "window", "door", "sign", "flower", "tree", "plate", "shoe", "shirt",
    "hat", "bag",
)  # fmt: skip


def _raster(box: Boxes) -> Mask:
    mask: Mask = np.zeros((_RASTER, _RASTER), dtype=bool)
    left, top, right, bottom = np.round(box * _RASTER).astype(int)
    mask[top:bottom, left:right] = True
    return mask
