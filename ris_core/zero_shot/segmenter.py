"""A published model behind the surface of `Segmenter`: thresholds, suppression, choosing and sizes around a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from functools import cached_property, partial, reduce

import numpy as np
import torch
from torch import Tensor

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import text_encoder
from ris_core.encoders.base import TextFeatures
from ris_core.errors import PromptError
from ris_core.files import sha256
from ris_core.inference.choosing import Chooser
from ris_core.inference.frame import Image, to_photos
from ris_core.inference.naming import kind_phrase, names_place
from ris_core.inference.passes import grouped, in_batches
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.segmenter import PointedPrompt, PreparedImage, Segmenter, clean
from ris_core.inference.visual import earlier_logits, pointed_answer
from ris_core.zero_shot.network import Drawn, Pointed, ZeroShotNetwork
from ris_core.zero_shot.reading import pointed_part, read

# Asked of one photo together, sentences or places; more would keep too many masks at once.
_PROMPTS = 8
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

    @property
    def device(self) -> torch.device:
        """As `Segmenter.device`."""
        return self.network.device

    @torch.inference_mode()
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `Segmenter.embed_all`."""
        return list(in_batches(images, self.network.photos_together, self.network.encode))

    @torch.inference_mode()
    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """As `Segmenter.predict_raw`, those about one photo together."""
        asked = [(image, clean(prompt)) for image, prompts in requests for prompt in prompts]
        return grouped(asked, lambda one: id(one[0]), lambda photo: _PROMPTS, self._say)

    def _say(self, requests: Sequence[tuple[PreparedImage, str]]) -> list[RawPrediction]:
        """What is found of each sentence in one photo, and of the several things that one means those it chooses."""
        image, sentences = requests[0][0], [sentence for _, sentence in requests]
        kinds = [kind_phrase(sentence) if self._chooses(sentence) else "" for sentence in sentences]
        # Asked once, however many sentences are about things of one kind.
        asked = list(dict.fromkeys([*sentences, *filter(None, kinds)]))
        answers = dict(zip(asked, in_batches(asked, _PROMPTS, partial(self._find, image)), strict=True))
        return [
            self._choose(sentence, answers[sentence], answers[kind or sentence])
            for sentence, kind in zip(sentences, kinds, strict=True)
        ]

    def _find(self, image: PreparedImage, sentences: Sequence[str]) -> list[RawPrediction]:
        found = self.network.find(image, sentences, self.point.instance)
        return [read(one, image.frame, self.point.mask) for one in found]

    def _chooses(self, sentence: str) -> bool:
        return self._chooser is not None and names_place(sentence)

    def _choose(self, sentence: str, said: RawPrediction, named: RawPrediction) -> RawPrediction:
        """Of the things of a kind those that the sentence means: a detector tells no left from right."""
        if self._chooser is None or not self._chooses(sentence) or len(named.things) < 2:
            return said
        [text] = [self._chooser.text_encoder([sentence])]
        answer = self._chooser.among(text, named.things, said.probability)
        things = [named.things[number] for number in answer.chosen]
        probability = np.where(reduce(np.logical_or, things), named.probability, np.float32(0))
        return named._replace(probability=probability, things=things, quality=named.quality * answer.expected)

    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """As `Segmenter.vectors`, by the sentence encoder that comes with the package."""
        with torch.inference_mode():
            features: TextFeatures = text_encoder(_WORDS)([clean(prompt) for prompt in prompts])
            return features.sentence

    @torch.inference_mode()
    def deepest_features(self, image: PreparedImage) -> Tensor:
        """As `Segmenter.deepest_features`."""
        [features] = in_batches([image], 1, lambda images: [self.network.features(one).float() for one in images])
        return features

    @torch.inference_mode()
    def _point(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        if asked and not self.network.clickable:
            raise PromptError(f"{self.version} answers words alone, no clicks and boxes. Use words, or another model.")
        return grouped(asked, lambda one: id(one.image), lambda photo: _PROMPTS, self._draw)

    def _draw(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        """Answers about one photo."""
        image, device = asked[0].image, self.network.device
        drawn = self.network.draw(image, [_pointed(one, device) for one in asked])
        return [_answer(one, answer) for one, answer in zip(asked, drawn, strict=True)]


def _answer(asked: PointedPrompt, drawn: Drawn) -> Prediction:
    [probability] = to_photos(drawn.mask.float()[None, None], [asked.image.frame])
    return pointed_answer(asked.prompt, probability, min(1.0, max(0.0, drawn.quality)))


def _pointed(asked: PointedPrompt, device: torch.device) -> Pointed:
    """As a network takes it: in pixels of the canvas."""
    prompt, frame = asked.prompt, asked.image.frame
    rows, columns = frame.inner
    across = torch.tensor([columns, rows], dtype=torch.float32)
    points = torch.tensor([(point.x, point.y) for point in prompt.points], dtype=torch.float32).reshape(-1, 2) * across
    labels = torch.tensor([int(point.positive) for point in prompt.points], dtype=torch.long)
    box = torch.tensor(astuple(prompt.box), dtype=torch.float32) * across.repeat(2) if prompt.box else None
    earlier = earlier_logits(frame, prompt, pointed_part(prompt, asked.said) if asked.said else None)
    return Pointed(
        points.to(device),
        labels.to(device),
        None if box is None else box.to(device),
        None if earlier is None else earlier.to(device),
    )
