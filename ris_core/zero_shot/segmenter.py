"""A published model behind the surface of `Segmenter`: thresholds, suppression, choosing and sizes around a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.errors import PromptError
from ris_core.files import sha256
from ris_core.inference.choosing import Chooser
from ris_core.inference.frame import Frame, Image, to_photos
from ris_core.inference.naming import kind_phrase, names_place
from ris_core.inference.passes import in_batches
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.segmenter import PointedPrompt, PreparedImage, Segmenter, clean
from ris_core.inference.visual import earlier_logits, pointed_answer
from ris_core.zero_shot.network import Found, Pointed, ZeroShotNetwork
from ris_core.zero_shot.suppression import distinct

# Sentences asked of one photo together.
_PROMPTS = 16
# Words of prompts are compared by this encoder, which comes with the package: networks have vectors of their own kinds.
_WORDS = "minilm"


class ZeroShotSegmenter(Segmenter):
    """A network with its operating point, ready to answer."""

    def __init__(
        self,
        network: ZeroShotNetwork,
        point: OperatingPoint,
        version: str,
        chooser: Chooser | None = None,
    ) -> None:
        """chooser: tells apart several things that a sentence may mean; without one, all are answered."""
        super().__init__(point, version)
        self.network = network.eval().requires_grad_(False)
        self._chooser = chooser

    @cached_property
    def fingerprint(self) -> str:
        """As `Segmenter.fingerprint`; the version knows the digests of all weights, too many to be read again."""
        return sha256(f"{self.version} {self.network.dtype}".encode())

    @torch.inference_mode()
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `Segmenter.embed_all`."""
        return list(in_batches(images, self.network.photos_together, self.network.encode))

    @torch.inference_mode()
    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """As `Segmenter.predict_raw`, photo by photo."""
        return [raw for image, prompts in requests for raw in self._say(image, [clean(prompt) for prompt in prompts])]

    def _say(self, image: PreparedImage, sentences: Sequence[str]) -> list[RawPrediction]:
        """What is found of each sentence, and of the several things that one means the one it chooses."""
        kinds = [kind_phrase(sentence) if self._chooses(sentence) else "" for sentence in sentences]
        # Asked once, however many sentences are about things of one kind.
        asked = list(dict.fromkeys([*sentences, *filter(None, kinds)]))
        found = in_batches(asked, _PROMPTS, lambda chunk: self.network.find(image, chunk, self.point.instance))
        answers = {
            sentence: _read(one, image.frame, self.point.mask) for sentence, one in zip(asked, found, strict=True)
        }
        return [
            self._choose(sentence, answers[sentence], answers[kind or sentence])
            for sentence, kind in zip(sentences, kinds, strict=True)
        ]

    def _chooses(self, sentence: str) -> bool:
        return self._chooser is not None and names_place(sentence)

    def _choose(self, sentence: str, said: RawPrediction, named: RawPrediction) -> RawPrediction:
        """Of the things of a kind those that the sentence means: a detector tells no left from right."""
        if self._chooser is None or not self._chooses(sentence) or len(named.things) < 2:
            return said
        [text] = [self._chooser.text_encoder([sentence])]
        answer = self._chooser.among(text, named.things, said.probability)
        things = [named.things[number] for number in answer.chosen]
        probability = np.where(np.any(things, axis=0), named.probability, np.float32(0))
        return named._replace(probability=probability, things=things, quality=named.quality * answer.expected)

    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """As `Segmenter.vectors`, by the sentence encoder that comes with the package."""
        with torch.inference_mode():
            features: TextFeatures = text_encoder(_WORDS)([clean(prompt) for prompt in prompts])
            return features.sentence

    @torch.inference_mode()
    def deepest_features(self, image: PreparedImage) -> Tensor:
        """As `Segmenter.deepest_features`."""
        return self.network.features(image).float()

    @torch.inference_mode()
    def _point(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        if asked and not self.network.clickable:
            raise PromptError(f"{self.version} answers words alone, no clicks and boxes. Use words, or another model.")
        by_image: dict[int, list[int]] = defaultdict(list)
        for number, one in enumerate(asked):
            by_image[id(one.image)].append(number)
        drawn: dict[int, Prediction] = {}
        for numbers in by_image.values():
            answers = in_batches([asked[number] for number in numbers], _PROMPTS, self._draw)
            drawn |= dict(zip(numbers, answers, strict=True))
        return [drawn[number] for number in range(len(asked))]

    def _draw(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        """Answers about one photo."""
        image, device = asked[0].image, self.network.device
        answers = self.network.draw(image, [_pointed(one, device) for one in asked])
        probabilities = to_photos(
            torch.stack([answer.mask.float() for answer in answers])[:, None], [image.frame] * len(asked)
        )
        return [
            pointed_answer(one.prompt, probability, min(1.0, max(0.0, answer.quality)))
            for one, answer, probability in zip(asked, answers, probabilities, strict=True)
        ]


def _read(found: Found, frame: Frame, threshold: float) -> RawPrediction:
    """What was found at the photo's size; where it consists of things, each of its pixels belongs to one of them."""
    height, width = frame.size
    probability = np.zeros((height, width), np.float32)
    if not len(found.masks):
        return RawPrediction(probability, found.presence, 0.0)
    kept = (
        distinct(found.masks.float().sigmoid() >= threshold, found.scores) if found.apart else range(len(found.masks))
    )
    owner = np.full((height, width), -1, np.int32)
    for number in kept:
        [own] = to_photos(found.masks[number].float()[None, None], [frame])
        owner[(own >= threshold) & (own > probability)] = number
        np.maximum(probability, own, out=probability)
    quality = float((found.scores * found.qualities).max())
    things = [thing for number in kept if (thing := owner == number).any()] if found.apart else []
    return RawPrediction(probability, found.presence, min(1.0, quality), things=things)


def _pointed(asked: PointedPrompt, device: torch.device) -> Pointed:
    """As a network takes it: in pixels of the canvas."""
    prompt, frame = asked.prompt, asked.image.frame
    rows, columns = frame.inner
    points = torch.tensor([[point.x * columns, point.y * rows] for point in prompt.points]).reshape(-1, 2)
    labels = torch.tensor([int(point.positive) for point in prompt.points])
    box = None
    if around := prompt.box:
        sides = [around.left * columns, around.top * rows, around.right * columns, around.bottom * rows]
        box = torch.tensor(sides, device=device)
    earlier = earlier_logits(frame, prompt, asked.said.probability if asked.said else None)
    return Pointed(points.to(device), labels.to(device), box, None if earlier is None else earlier.to(device))
