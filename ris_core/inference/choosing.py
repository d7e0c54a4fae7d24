"""Which of several things a sentence means: candidates from what the model sees, places from the listener.

A modular network in the manner of MAttNet (Yu et al. 2018): what a thing is and looks like comes from the model's own
probabilities, where it lies among the others from `models.listener`. Ours: candidates are pieces of the model's map
instead of a detector's boxes, and what is answered is whatever promises the highest IoU: one of them, or all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ris_core.checkpoint_files import CONFIG, shipped
from ris_core.encoders import text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.inference.naming import names_place
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.prompt import box_of
from ris_core.masks import Mask
from ris_core.models.listener import Listener, load

Probability = NDArray[np.float32]

# Pieces are found on a grid of this many pixels along the photo's longer side: finer, noise makes pieces.
_GRID = 128
# In cells: how far logits are smoothed. In logits: how deep the valley between two pieces is at least.
_SMOOTH, _VALLEY = 2.5, 1.0
# In which a watershed's water falls.
_LEVELS = 24
_NEIGHBOURS = np.ones((3, 3), np.uint8)
# Of the largest piece, and of the photo: smaller ones are noise.
_LEAST_OF_LARGEST, _LEAST = 0.05, 0.0008
# How much a logit of the sentence's own map counts beside one of the listener.
_APPEARANCE = 0.25
_MOST = 12


class Chooser:
    """A listener, asked about what a model says.

    Attributes:
        text_encoder: whose words it knows, which may not be the model's.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.text_encoder = text_encoder(listener.options.text_encoder)

    @classmethod
    def shipped(cls) -> Chooser | None:
        """By the listener that comes with the shipped weights, if one does. Raises CheckpointError if it is damaged."""
        folder = shipped() / "listener"
        return cls(load(folder)) if (folder / CONFIG).is_file() else None

    @torch.inference_mode()
    def choose(
        self,
        sentence: str,
        text: TextFeatures | None,
        said: RawPrediction,
        named: RawPrediction | None,
        threshold: float,
    ) -> RawPrediction:
        """What the model says of a sentence, without the things that are of the kind but aren't meant.

        Args:
            text: of the sentence, on the CPU; may be None where it names no place.
            said: what the model says of it.
            named: what it says of the kind alone, see `naming.kind_phrase`; None where the sentence says no more.
            threshold: probability from which a pixel belongs to a mask.
        """
        shown = likelier(said, named)
        # What is said of looks alone is the model's to see; and most prompts are names.
        if text is None or not names_place(sentence):
            return shown
        everything = (named or said).probability
        candidates = pieces(everything, threshold)
        if len(candidates) < 2:
            return shown
        answer = self.among(text, candidates, said.probability)
        if len(answer.chosen) == len(candidates):
            return shown
        kept = np.any([candidates[number] for number in answer.chosen], axis=0) | (everything < threshold)
        probability = np.where(kept, everything, np.float32(0))
        return shown._replace(probability=probability, quality=shown.quality * answer.expected)

    @torch.inference_mode()
    def among(self, text: TextFeatures, candidates: Sequence[Mask], said: Probability) -> Answer:
        """Which of two or more candidates, HxW each, a sentence means; `said`: HxW, what its own map shows."""
        # On the CPU: moving a handful of boxes would take longer.
        text = TextFeatures(text.words.float().cpu(), text.key_padding_mask.cpu(), text.sentence.float().cpu())
        boxes = torch.tensor([[astuple(box_of(mask)) for mask in candidates]])
        choice = self._listener(boxes, torch.zeros(1, len(candidates), dtype=torch.bool), text)
        places = choice.meant[0].numpy()
        logits = places + _APPEARANCE * np.array([appearance(said, mask) for mask in candidates])
        one = np.exp(logits - np.logaddexp.reduce(logits))
        every = float(choice.every.sigmoid())
        return expect(one, every, np.array([np.count_nonzero(mask) for mask in candidates], dtype=float))


def likelier(said: RawPrediction, named: RawPrediction | None) -> RawPrediction:
    """What is said of a sentence, or of its kind: a word that was never taught, for a thing that was under another."""
    return named if named and named.presence > said.presence else said


@dataclass(frozen=True, eq=False)
class Answer:
    """What is meant. chosen: of the candidates. expected: the share of it that is likely right, in [0, 1]."""

    chosen: tuple[int, ...]
    expected: float


def pieces(probability: Probability, threshold: float) -> list[Mask]:
    """HxW -> the things that a map shows, HxW each, largest first; touching ones come apart at valleys.

    Watershed from the maxima that stand out by `_VALLEY` (h-domes, Vincent 1993).
    """
    height, width = probability.shape
    scale = min(1.0, _GRID / max(height, width))
    small = cv2.resize(
        probability, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    ).astype(np.float32)
    inside = small >= threshold
    if not inside.any():
        return []
    logits = np.asarray(cv2.GaussianBlur(_logit(small), (0, 0), _SMOOTH), dtype=np.float32)
    labels = _watershed(logits, inside)
    full = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    full[probability < threshold] = 0
    areas = np.bincount(full.flat, minlength=2)[1:]
    least = max(_LEAST_OF_LARGEST * areas.max(), _LEAST * full.size)
    order = [int(number) for number in np.argsort(-areas, kind="stable") if areas[number] >= least]
    return [full == number + 1 for number in order[:_MOST]]


def _watershed(logits: Probability, inside: Mask) -> NDArray[np.uint8]:
    """hxw -> the number of the maximum that each cell inside, or beside one, belongs to, from 1; 0 elsewhere."""
    dome = logits - _reconstructed(logits - _VALLEY, logits)
    labels = cv2.connectedComponents(((dome > 0.98 * _VALLEY) & inside).astype(np.uint8))[1].astype(np.uint8)
    for level in np.linspace(logits[inside].max(), logits[inside].min(), _LEVELS):
        open_cells = inside & (logits >= level)
        while True:
            grown = np.where(open_cells & (labels == 0), cv2.dilate(labels, _NEIGHBOURS), labels)
            if np.array_equal(grown, labels):
                break
            labels = grown
    # At the photo's own size a piece may reach a little further than its cells do.
    return np.asarray(np.where(labels == 0, cv2.dilate(labels, _NEIGHBOURS), labels), dtype=np.uint8)


def _reconstructed(marker: Probability, ceiling: Probability) -> Probability:
    """Morphological reconstruction: the marker grown as far as the ceiling lets it."""
    while True:
        grown = np.minimum(cv2.dilate(marker, _NEIGHBOURS), ceiling)
        if np.array_equal(grown, marker):
            return np.asarray(grown, dtype=np.float32)
        marker = grown


def appearance(probability: Probability, candidate: Mask) -> float:
    """How much a map says that a candidate is what it shows: the mean of its logits there."""
    return float(_logit(probability[candidate]).mean())


def expect(one: NDArray[np.float64], every: float, areas: NDArray[np.float64]) -> Answer:
    """The subset of K candidates with the highest expected IoU.

    Args:
        one: (K,) P(a candidate is meant, and alone), given that not all are; sums to 1.
        every: P(all are meant).
        areas: (K,) in any unit.
    """
    order = np.argsort(-one, kind="stable")
    best = Answer((), -1.0)
    for count in range(1, len(order) + 1):
        chosen = order[:count]
        area = areas[chosen].sum()
        expected = every * area / areas.sum() + (1 - every) * (one[chosen] * areas[chosen]).sum() / area
        if expected > best.expected + 1e-9:
            best = Answer(tuple(int(number) for number in chosen), float(expected))
    return best


def _logit(probability: NDArray[np.floating]) -> Probability:
    clipped = probability.clip(1 / 512, 1 - 1 / 512)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float32)
