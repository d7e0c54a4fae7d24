"""Encode a photo once, prompt it many times: with sentences, clicks, boxes. Safe to share between threads: it holds no
state of a request.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn import functional as F

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders.base import TextEncoder, TextFeatures, fingerprint
from ris_core.errors import PromptError
from ris_core.files import sha256
from ris_core.inference.calibration import belief, corrected
from ris_core.inference.choosing import Chooser
from ris_core.inference.frame import Frame, Image, fit, to_photos
from ris_core.inference.naming import kind_phrase
from ris_core.inference.passes import grouped, in_batches
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.prompt import Prompt
from ris_core.inference.visual import VisualRequest, VisualSegmenter
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.interactive import InteractiveDecoder
from ris_core.models.layers import join_photos, split_photos

Precision = Literal["auto", "float32", "bfloat16", "float16"]

# Photos encoded together and prompts decoded together, until memory says otherwise; more gain nothing.
_PHOTOS, _PROMPTS = 8, 32
# On a CPU what is decoded together should fit its caches: so many pixels of canvas, eight prompts at 384x352.
_CPU_PIXELS = 1 << 20


@dataclass(frozen=True)
class PreparedImage:
    """A photo that prompts can be asked of. levels: what the model keeps of it, see `models.base.ImageEmbedding`.

    interactive: what its interactive decoder keeps, if it has one. Each prompt costs a decoder's pass alone; but with
    early fusion nothing is kept for sentences but pixels, encoded anew each time.
    """

    levels: ImageEmbedding
    frame: Frame
    interactive: ImageEmbedding = ()


class Predictor:
    """A model with its operating point, ready to answer."""

    def __init__(
        self,
        model: RISModel,
        point: OperatingPoint,
        version: str,
        precision: Precision = "auto",
        chooser: Chooser | None = None,
    ) -> None:
        """`precision`: of the passes through encoder and decoder; "auto" is half on a GPU and float32 elsewhere.

        chooser: tells apart several things that a sentence may mean; without one, all are answered.
        """
        self.model = model.place().eval()
        self.point = point
        self.version = version
        self._dtype = _best_dtype(self.model.device) if precision == "auto" else getattr(torch, precision)
        self._encode_text = _CachedTextEncoder(self.model.text_encoder)
        self._chooser = chooser
        # A model that has changed its own text encoder, or has another, leaves the listener its own.
        other = chooser.text_encoder if chooser else self.model.text_encoder
        shared = other is self.model.text_encoder
        self._encode_choice = self._encode_text if shared else _CachedTextEncoder(other)
        self._visual = VisualSegmenter(self.model, self.autocast)
        self._names: tuple[Sequence[str], Tensor] | None = None

    @classmethod
    def load(cls, model: Path | str | None = None, precision: Precision = "auto") -> Predictor:
        """The checkpoint in a folder, the weights that come with a design of that name, or the shipped model.

        Raises CheckpointError if it is missing, damaged, or of another version.
        """
        folder = checkpoint_files.find(model)
        loaded, point = checkpoint.load(folder, merged=True)
        if loaded.interactive is None:
            loaded.interactive = _shipped_interactive(loaded)
        return cls(loaded, point, checkpoint_files.version(folder), precision, Chooser.shipped())

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever shapes an embedding besides the photo: every weight, adapters too, side, precision."""
        weights = fingerprint(self.model), fingerprint(self.model.image_encoder)
        return sha256("".join([*weights, str(self.point.side), str(self._dtype)]).encode())

    def embed(self, image: Image) -> PreparedImage:
        """HxWx3 uint8 RGB -> what any number of prompts can be asked of."""
        return self.embed_all([image])[0]

    @torch.inference_mode()
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """`embed` for many, those of one canvas encoded together. Raises OutOfMemory if not even one of them fits."""
        frames = [self.frame(image) for image in images]
        items = list(zip(images, frames, strict=True))
        return grouped(items, lambda item: item[1].canvas, lambda canvas: _PHOTOS, self._encode_images)

    def segment(self, image: PreparedImage, prompts: Sequence[str | Prompt]) -> list[Prediction]:
        """Answer each prompt, in order; one that points at something always with a mask.

        Raises PromptError if one is empty, or points though the model was never trained to be pointed at; OutOfMemory
        if not even one fits.
        """
        return self.segment_all([(image, prompts)])[0]

    def segment_all(
        self, requests: Sequence[tuple[PreparedImage, Sequence[str | Prompt]]], guessed: Collection[str] = ()
    ) -> list[list[Prediction]]:
        """`segment` for many photos: prompts are decoded together, whichever photo they are about.

        guessed: sentences whose mask is wanted even where the model takes the thing for absent.
        """
        asked = [
            (image, Prompt(prompt) if isinstance(prompt, str) else prompt)
            for image, prompts in requests
            for prompt in prompts
        ]
        worded = [(image, prompt) for image, prompt in asked if prompt.mask is None and not prompt.wordless]
        raw = iter(self.predict_raw([(image, [prompt.sentence]) for image, prompt in worded]))
        said = {id(prompt): next(raw) for _, prompt in worded}
        shown = iter(self._point([(image, prompt, said.get(id(prompt))) for image, prompt in asked if prompt.visual]))
        answers = iter(
            next(shown)
            if prompt.visual
            else decide(prompt.sentence, said[id(prompt)], self.point, prompt.sentence in guessed)
            for _, prompt in asked
        )
        return [[next(answers) for _ in prompts] for _, prompts in requests]

    def _point(self, asked: Sequence[tuple[PreparedImage, Prompt, RawPrediction | None]]) -> list[Prediction]:
        """Answers to prompts that point, what the model says to their sentences being known."""
        requests = [
            VisualRequest(image.interactive, image.frame, prompt, said.probability if said else None)
            for image, prompt, said in asked
        ]
        return grouped(requests, lambda request: request.frame.canvas, self._prompts_together, self._visual.segment)

    @torch.inference_mode()
    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """One after the other, what the model says of each prompt; raises as `segment` does."""
        asked = [(image, _sentence(prompt)) for image, prompts in requests for prompt in prompts]
        if self._chooser is None:
            return self._say(asked)
        kinds = [kind_phrase(sentence) for _, sentence in asked]
        others = [(image, kind) for (image, _), kind in zip(asked, kinds, strict=True) if kind]
        answers = self._say([*asked, *others])
        named = iter(answers[len(asked) :])
        texts = self._encode_choice([sentence for _, sentence in asked])
        return [
            self._chooser.choose(sentence, text, said, next(named) if kind else None, self.point.mask)
            for (_, sentence), text, said, kind in zip(asked, texts, answers[: len(asked)], kinds, strict=True)
        ]

    def _say(self, asked: Sequence[tuple[PreparedImage, str]]) -> list[RawPrediction]:
        """What the model says of each sentence, whichever of several things is meant."""
        with self.autocast():
            texts = self._encode_text([sentence for _, sentence in asked])
        items = [(image, text) for (image, _), text in zip(asked, texts, strict=True)]
        raw = grouped(items, lambda item: item[0].frame.canvas, self._prompts_together, self._decode)
        distances = self.distances([sentence for _, sentence in asked], self.point.names)
        return [one._replace(distance=distance) for one, distance in zip(raw, distances, strict=True)]

    def distances(self, prompts: Sequence[str], names: Sequence[str]) -> list[float]:
        """How far each prompt lies from the nearest of `names`: 1 - cosine of sentence vectors, [0, 2]; 0 without any.

        The vectors of the names are kept as long as the same ones are given.
        """
        if not names or not prompts:
            return [0.0] * len(prompts)
        if self._names is None or self._names[0] != names:
            self._names = names, F.normalize(self.vectors(names).float(), dim=1)
        nearest = (F.normalize(self.vectors(prompts).float(), dim=1) @ self._names[1].T).amax(dim=1)
        distances: list[float] = (1 - nearest).clamp_min(0).tolist()
        return distances

    @torch.inference_mode()
    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """The sentence vectors of N prompts, (N, D)."""
        return torch.cat([text.sentence for text in self._encode_text([_sentence(prompt) for prompt in prompts])])

    @torch.inference_mode()
    def deepest_features(self, image: PreparedImage) -> Tensor:
        """(C, H, W), the deepest features of a photo, 0 where there is none: see `RISModel.deepest`.

        Raises OutOfMemory if early fusion, which encodes the photo here, finds too little.
        """

        def read(images: Sequence[PreparedImage]) -> list[Tensor]:
            return [self.model.deepest(prepared.levels)[0].float() for prepared in images]

        with self.autocast():
            [features] = in_batches([image], 1, read)
        return features

    def frame(self, image: Image) -> Frame:
        """Where HxWx3 lies on the model's canvas."""
        return Frame.of(image, self.point.side, self.model.image_encoder.square)

    def _prompts_together(self, canvas: tuple[int, int]) -> int:
        if self.model.device.type != "cpu":
            return _PROMPTS
        return max(1, min(_PROMPTS, _CPU_PIXELS // (canvas[0] * canvas[1])))

    def _encode_images(self, items: Sequence[tuple[Image, Frame]]) -> list[PreparedImage]:
        canvas = items[0][1].canvas
        pixels, valid = torch.zeros(len(items), 3, *canvas), torch.zeros(len(items), 1, *canvas)
        for number, (image, frame) in enumerate(items):
            rows, columns = frame.inner
            pixels[number, :, :rows, :columns] = torch.from_numpy(fit(image, frame)).permute(2, 0, 1)
            valid[number, :, :rows, :columns] = 1
        pixels, valid = pixels.to(self.model.device), valid.to(self.model.device)
        with self.autocast():
            embedding, interactive = self._embed(pixels, valid)
        embeddings = zip(split_photos(embedding, len(items)), split_photos(interactive, len(items)), strict=True)
        return [
            PreparedImage(words, frame, places) for (words, places), (_, frame) in zip(embeddings, items, strict=True)
        ]

    def _embed(self, pixels: Tensor, valid: Tensor) -> tuple[ImageEmbedding, ImageEmbedding]:
        """What sentences, and what clicks are asked of; the encoder runs once."""
        model, decoder = self.model, self.model.interactive
        if decoder is None:
            return model.encode_image(pixels, valid), ()
        levels = model.encode_levels(pixels, valid)
        words = model.encode_image(pixels, valid) if model.early_fusion else model.read_levels(levels, valid)
        return words, decoder.read_levels(levels, valid)

    def _decode(self, items: Sequence[tuple[PreparedImage, TextFeatures]]) -> list[RawPrediction]:
        numbers: dict[int, int] = {}
        index = [numbers.setdefault(id(image), len(numbers)) for image, _ in items]
        images = [image.levels for image in {id(image): image for image, _ in items}.values()]
        with self.autocast():
            text = TextFeatures.join([text for _, text in items])
            output = self.model(join_photos(images), text, torch.tensor(index, device=self.model.device))
        scores = torch.stack([output.presence, output.quality], dim=1).float().sigmoid().tolist()
        probabilities = to_photos(output.mask.float(), [image.frame for image, _ in items])
        return [RawPrediction(probability, *score) for probability, score in zip(probabilities, scores, strict=True)]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that passes run in."""
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, self._dtype)


def _shipped_interactive(model: RISModel) -> InteractiveDecoder | None:
    """That of the shipped weights, for a version from before there was one, if it reads the same encoder."""
    folder = checkpoint_files.shipped()
    config = checkpoint_files.read_config(folder)
    if not config.get("interactive") or config["image_encoder"] != model.image_encoder.name:
        return None
    return checkpoint.load(folder, merged=True)[0].interactive


def decide(prompt: str, raw: RawPrediction, point: OperatingPoint, guessed: bool = False) -> Prediction:
    """What the operating point makes of a raw prediction: a mask, or that the thing isn't there.

    guessed: a mask all the same, if there is one.
    """
    mask = raw.probability >= point.mask
    held_back = raw.presence < point.presence and bool(mask.any())
    present = bool(mask.any()) and (guessed or not held_back)
    score = expected_iou(present, raw.presence, raw.quality, point, raw.distance)
    guess = expected_iou(True, raw.presence, raw.quality, point) if held_back else 0.0
    shown = mask if present else np.zeros_like(mask)
    return Prediction(prompt, shown, present, raw.presence, raw.quality, score, guess=guess)


def expected_iou(present: bool, presence: float, quality: float, point: OperatingPoint, distance: float = 0.0) -> float:
    """The IoU to expect of an answer, as the point corrects what the model says; numbers as in `RawPrediction`."""
    if present:
        return corrected(presence**point.answer_presence * quality, point.answer_scale, point.answer_shift)
    return corrected(1 - presence, point.refusal_scale, point.refusal_shift) * belief(distance, point.doubt)


class _CachedTextEncoder:
    """Keeps the `size` sentences used last: people repeat themselves, a project's prompts above all.

    Safe for threads: `_lock` is held over the cache, not while sentences are encoded.
    """

    def __init__(self, encoder: TextEncoder, size: int = 1024) -> None:
        self._encoder = encoder
        self._cache: LRUCache[str, TextFeatures] = LRUCache(size)
        self._lock = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One for each, without padding; those that are new go through the encoder together."""
        with self._lock:
            features = {sentence: self._cache[sentence] for sentence in sentences if sentence in self._cache}
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in features]
        encoded = dict(zip(new, in_batches(new, _PROMPTS, self._encode), strict=True))
        with self._lock:
            self._cache.update(encoded)
        features |= encoded
        return [features[sentence] for sentence in sentences]

    def _encode(self, sentences: Sequence[str]) -> list[TextFeatures]:
        features = self._encoder(sentences)
        return [features[number : number + 1].trim() for number in range(len(sentences))]


def _best_dtype(device: torch.device) -> torch.dtype:
    # Not bfloat16: its eight bits move the edges of masks, and values here are small enough for float16.
    return torch.float16 if device.type == "cuda" else torch.float32


def _sentence(prompt: str) -> str:
    if not prompt.strip():
        raise PromptError("The prompt is empty. Say what to find, for example: the cat.")
    return " ".join(prompt.split())
