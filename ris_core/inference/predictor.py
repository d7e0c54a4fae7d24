"""Encode a photo once, prompt it many times: with sentences, clicks, boxes. Safe to share between threads: it holds no
state of a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders.base import TextFeatures, fingerprint
from ris_core.encoders.transfer import send
from ris_core.files import sha256
from ris_core.inference.canvas import on_canvas
from ris_core.inference.casting import cast
from ris_core.inference.choosing import Chooser
from ris_core.inference.frame import Frame, Image, fit, to_photos
from ris_core.inference.naming import kind_phrase, names_place
from ris_core.inference.passes import grouped, in_batches
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.segmenter import PointedPrompt, PreparedImage, Segmenter, clean
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


class Predictor(Segmenter):
    """One of our models with its operating point, ready to answer."""

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
        self._visual = VisualSegmenter(self.model)

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

    @torch.inference_mode()
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `Segmenter.embed_all`, those of one canvas encoded together."""
        frames = [self.frame(image) for image in images]
        items = list(zip(images, frames, strict=True))
        return grouped(items, lambda item: item[1].canvas, lambda canvas: _PHOTOS, self._encode_images)

    def _point(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        """As `Segmenter._point`, those of one canvas decoded together."""
        requests = [
            VisualRequest(image.interactive, image.frame, prompt, said.probability if said else None)
            for image, prompt, said in asked
        ]
        return grouped(requests, lambda request: request.frame.canvas, self._prompts_together, self._visual.segment)

    @torch.inference_mode()
    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """As `Segmenter.predict_raw`, those of one canvas decoded together."""
        asked = [(image, clean(prompt)) for image, prompts in requests for prompt in prompts]
        if self._chooser is None:
            return self._say(asked)
        kinds = [kind_phrase(sentence) for _, sentence in asked]
        others = [(image, kind) for (image, _), kind in zip(asked, kinds, strict=True) if kind]
        answers = self._say([*asked, *others])
        named = iter(answers[len(asked) :])
        texts = self._choice_texts([sentence for _, sentence in asked])
        return [
            self._chooser.choose(sentence, texts.get(sentence), said, next(named) if kind else None, self.point.mask)
            for (_, sentence), said, kind in zip(asked, answers[: len(asked)], kinds, strict=True)
        ]

    def _choice_texts(self, sentences: Sequence[str]) -> dict[str, TextFeatures]:
        """What the listener reads of those sentences that it is asked about."""
        choosing = list(dict.fromkeys(filter(names_place, sentences)))
        return dict(zip(choosing, on_cpu(self._encode_choice(choosing)), strict=True))

    def _say(self, asked: Sequence[tuple[PreparedImage, str]]) -> list[RawPrediction]:
        """What the model says of each sentence, whichever of several things is meant."""
        texts = self._encode_text([sentence for _, sentence in asked])
        items = [(image, text) for (image, _), text in zip(asked, texts, strict=True)]
        raw = grouped(items, lambda item: item[0].frame.canvas, self._prompts_together, self._decode)
        distances = self.distances([sentence for _, sentence in asked], self.point.names)
        return [one._replace(distance=distance) for one, distance in zip(raw, distances, strict=True)]

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

    def _encode_images(self, items: Sequence[tuple[Image, Frame]]) -> list[PreparedImage]:
        frames = [frame for _, frame in items]
        pixels, valid = on_canvas([fit(image, frame) for image, frame in items], frames, self.model.device)
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
        text = TextFeatures.join([text for _, text in items])
        photo = send(torch.tensor(index), self.model.device)
        output = self.model(join_photos(images), text, photo)
        kept = {id(image): image.interactive for image, _ in items}.values()
        mask = self._refine(output.mask, list(kept), photo)
        scores = torch.stack([output.presence, output.quality], dim=1).float().sigmoid().tolist()
        probabilities = to_photos(mask, [image.frame for image, _ in items])
        return [RawPrediction(probability, *score) for probability, score in zip(probabilities, scores, strict=True)]

    def _refine(self, logits: Tensor, kept: Sequence[ImageEmbedding], index: Tensor) -> Tensor:
        """What words found, (N, 1, h, w), and in part what the interactive decoder makes of that."""
        decoder, share = self.model.interactive, self.point.refinement
        if decoder is None or not share:
            return logits.float()
        prompts = VisualPrompts.of_masks(logits.float().clamp(-MOST, MOST))
        refined: Tensor = decoder(join_photos(list(kept)), prompts, index).mask.float()
        return torch.lerp(logits.float(), refined, share)


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
