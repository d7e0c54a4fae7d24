"""Encode a photo once, prompt it many times: with sentences, clicks, boxes. Safe to share between threads: it holds no
state of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders.base import TextFeatures, fingerprint
from ris_core.encoders.transfer import send
from ris_core.files import sha256
from ris_core.inference import readout
from ris_core.inference.canvas import Fitter, on_canvas
from ris_core.inference.casting import cast
from ris_core.inference.choosing import Chooser, likelier
from ris_core.inference.frame import Frame, Image
from ris_core.inference.naming import kind_phrase, names_place
from ris_core.inference.passes import grouped, in_batches
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.readout import Heard
from ris_core.inference.segmenter import PointedPrompt, PreparedImage, Question, Segmenter, clean
from ris_core.inference.sentences import CachedTextEncoder, on_cpu
from ris_core.inference.visual import MOST, VisualRequest, VisualSegmenter
from ris_core.models.base import ImageEmbedding, RISModel, best_device
from ris_core.models.interactive import InteractiveDecoder, VisualPrompts
from ris_core.models.layers import join_photos, split_photos

Precision = Literal["auto", "float32", "bfloat16", "float16"]

# Photos encoded together and prompts decoded together, until memory says otherwise; more gain nothing.
_PHOTOS, _PROMPTS = 8, 32
# On a CPU what is decoded together should fit its caches: so many pixels of canvas, eight prompts at 384x352.
_CPU_PIXELS = 1 << 20
# Probabilities that weren't fetched.
_UNREAD = np.empty((0, 0), np.float32)


class Predictor(Segmenter):
    """One of our models with its operating point, ready to answer.

    Attributes:
        masks_on_device: whether masks get their photos' sizes where the model lies, so that no probabilities have to be
            fetched; else on the CPU, where OpenCV is faster than torch.
    """

    wavers = True

    def __init__(
        self,
        model: RISModel,
        point: OperatingPoint,
        version: str,
        precision: Precision = "auto",
        chooser: Chooser | None = None,
    ) -> None:
        """`precision`: of the weights, which are copied unless it is float32; "auto" is half on a GPU, else float32.

        chooser: tells apart several things that a sentence may mean; without one, all are answered.
        """
        super().__init__(point, version)
        device = best_device()
        self._dtype = _best_dtype(device) if precision == "auto" else getattr(torch, precision)
        self.model = model.place(device).eval() if self._dtype is torch.float32 else cast(model, self._dtype, device)
        self._encode_text = CachedTextEncoder(self.model.text_encoder)
        self._chooser = chooser
        # A model that has changed its own text encoder, or has another, leaves the listener its own.
        other = chooser.text_encoder if chooser else model.text_encoder
        self._encode_choice = self._encode_text if other is model.text_encoder else CachedTextEncoder(other)
        self.masks_on_device = device.type != "cpu"
        self._fit = Fitter(device)

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

    @property
    def device(self) -> torch.device:
        """As `Segmenter.device`."""
        return self.model.device

    @torch.inference_mode()
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `Segmenter.embed_all`, those of one canvas encoded together."""
        frames = [self.frame(image) for image in images]
        items = list(zip(self._fit(images, frames), frames, strict=True))
        return grouped(items, lambda item: item[1].canvas, lambda canvas: _PHOTOS, self._encode_images)

    def _point(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        """As `Segmenter._point`, those of one canvas decoded together."""
        requests = [
            VisualRequest(image.interactive, image.frame, prompt, said.probability if said else None)
            for image, prompt, said in asked
        ]
        return VisualSegmenter(self.model, self._prompts_together, self.masks_on_device).segment(requests)

    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """As `Segmenter.predict_raw`, those of one canvas decoded together."""
        return self._answer([Question(image, prompt) for image, prompts in requests for prompt in prompts])

    def _ask(self, asked: Sequence[Question]) -> list[RawPrediction]:
        """As `Segmenter._ask`: a mask is a small part of what its probabilities are to fetch from a GPU."""
        return self._answer(asked) if self.masks_on_device else super()._ask(asked)

    @torch.inference_mode()
    def _answer(self, asked: Sequence[Question]) -> list[RawPrediction]:
        """What the model says of each sentence or of its kind, less what the listener takes away."""
        asked = [one._replace(sentence=clean(one.sentence)) for one in asked]
        kinds = [kind_phrase(one.sentence) if self._chooser else "" for one in asked]
        numbers = count(len(asked))
        at_kind = [next(numbers) if kind else None for kind in kinds]
        sentences = [(one.image, one.sentence) for one in asked]
        sentences += [(one.image, kind) for one, kind in zip(asked, kinds, strict=True) if kind]
        heard = self._hear(sentences)
        raw = self._scored(heard, [sentence for _, sentence in sentences])
        texts = self._choice_texts([one.sentence for one in asked])
        raw = self._read(heard, raw, *_wanted(asked, at_kind, raw, texts))
        pairs = [(raw[number], None if kind is None else raw[kind]) for number, kind in enumerate(at_kind)]
        return [
            self._chooser.choose(one.sentence, texts.get(one.sentence), *pair, self.point.mask)
            if self._chooser
            else pair[0]
            for one, pair in zip(asked, pairs, strict=True)
        ]

    def _choice_texts(self, sentences: Sequence[str]) -> dict[str, TextFeatures]:
        """What the listener reads of those sentences that it is asked about."""
        choosing = list(dict.fromkeys(filter(names_place, sentences))) if self._chooser else []
        return dict(zip(choosing, on_cpu(self._encode_choice(choosing)), strict=True))

    def _scored(self, heard: Sequence[Heard], sentences: Sequence[str]) -> list[RawPrediction]:
        """What is said of each sentence but for its pixels."""
        if not heard:
            return []
        distances = self._distances(sentences, self.point.names)
        return [
            RawPrediction(_UNREAD, presence, quality, distance)
            for presence, quality, distance in readout.scores(heard, distances)
        ]

    def _read(
        self, heard: Sequence[Heard], raw: list[RawPrediction], whole: set[int], masked: set[int]
    ) -> list[RawPrediction]:
        """With the probabilities of those numbers, and the masks of those."""
        if not self.masks_on_device:
            whole, masked = whole | masked, set()
        read = dict(enumerate(raw))
        for number, probability in zip(whole, readout.probabilities([heard[number] for number in whole]), strict=True):
            read[number] = raw[number]._replace(probability=probability)
        masks = readout.masks([heard[number] for number in masked], self.point.mask)
        for number, mask in zip(masked, masks, strict=True):
            read[number] = raw[number]._replace(mask=mask)
        return list(read.values())

    def _hear(self, asked: Sequence[tuple[PreparedImage, str]]) -> list[Heard]:
        """What the decoder makes of each sentence, whichever of several things is meant."""
        texts = self._encode_text([sentence for _, sentence in asked])
        items = [(image, text) for (image, _), text in zip(asked, texts, strict=True)]
        return grouped(items, lambda item: item[0].frame.canvas, self._prompts_together, self._decode)

    @torch.inference_mode()
    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """As `Segmenter.vectors`, by the model's own text encoder."""
        return torch.cat([text.sentence for text in self._encode_text([clean(prompt) for prompt in prompts])])

    @torch.inference_mode()
    def deepest_features(self, image: PreparedImage) -> Tensor:
        """As `Segmenter.deepest_features`: see `RISModel.deepest`. Early fusion encodes the photo here."""

        def read(images: Sequence[PreparedImage]) -> list[Tensor]:
            return [self.model.deepest(prepared.levels)[0].float() for prepared in images]

        [features] = in_batches([image], 1, read)
        return features

    def frame(self, image: Image) -> Frame:
        """Where HxWx3 lies on the model's canvas."""
        return Frame.of(image, self.point.side, self.model.image_encoder.square)

    def _prompts_together(self, canvas: tuple[int, int]) -> int:
        if self.model.device.type != "cpu":
            return _PROMPTS
        return max(1, min(_PROMPTS, _CPU_PIXELS // (canvas[0] * canvas[1])))

    def _encode_images(self, items: Sequence[tuple[Callable[[], Image], Frame]]) -> list[PreparedImage]:
        frames = [frame for _, frame in items]
        pixels, valid = on_canvas([fitted() for fitted, _ in items], frames, self.model.device)
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

    def _decode(self, items: Sequence[tuple[PreparedImage, TextFeatures]]) -> list[Heard]:
        numbers: dict[int, int] = {}
        index = [numbers.setdefault(id(image), len(numbers)) for image, _ in items]
        images = [image.levels for image in {id(image): image for image, _ in items}.values()]
        text = TextFeatures.join([text for _, text in items])
        photo = send(torch.tensor(index), self.model.device)
        output = self.model(join_photos(images), text, photo)
        kept = {id(image): image.interactive for image, _ in items}.values()
        mask = self._refine(output.mask, list(kept), photo)
        scores = torch.stack([output.presence, output.quality], dim=1).float().sigmoid()
        frames = [image.frame for image, _ in items]
        return [Heard(*parts) for parts in zip(mask, scores, frames, strict=True)]

    def _refine(self, logits: Tensor, kept: Sequence[ImageEmbedding], index: Tensor) -> Tensor:
        """What words found, (N, 1, h, w), and in part what the interactive decoder makes of that."""
        decoder, share = self.model.interactive, self.point.refinement
        if decoder is None or not share:
            return logits.float()
        prompts = VisualPrompts.of_masks(logits.float().clamp(-MOST, MOST))
        refined: Tensor = decoder(join_photos(list(kept)), prompts, index).mask.float()
        return torch.lerp(logits.float(), refined, share)


def _wanted(
    asked: Sequence[Question], at_kind: Sequence[int | None], raw: Sequence[RawPrediction], placed: Collection[str]
) -> tuple[set[int], set[int]]:
    """The numbers of the answers whose probabilities are read, and of those whose masks alone are.

    Most prompts are names: of what is said of one and of its kind, one holds, and no pixel of the other is fetched.
    """
    whole, masked = set[int](), set[int]()
    for number, (one, kind) in enumerate(zip(asked, at_kind, strict=True)):
        if one.sentence in placed:
            whole |= {number} if kind is None else {number, kind}
        else:
            shown = kind if kind is not None and likelier(raw[number], raw[kind]) is raw[kind] else number
            (whole if one.whole else masked).add(shown)
    return whole, masked


def _shipped_interactive(model: RISModel) -> InteractiveDecoder | None:
    """That of the shipped weights, for a version from before there was one, if it reads the same encoder."""
    folder = checkpoint_files.shipped()
    config = checkpoint_files.read_config(folder)
    if not config.get("interactive") or config["image_encoder"] != model.image_encoder.name:
        return None
    return checkpoint.load(folder, merged=True)[0].interactive


def _best_dtype(device: torch.device) -> torch.dtype:
    # Not bfloat16: its eight bits move the edges of masks, and values here are small enough for float16.
    return torch.float16 if device.type == "cuda" else torch.float32
