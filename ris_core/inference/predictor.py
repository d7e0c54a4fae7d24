"""Encode a photo once, prompt it many times. Safe to share between threads: it holds no state of a request."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders.base import TextEncoder, TextFeatures, fingerprint
from ris_core.errors import OutOfMemory, PromptError
from ris_core.files import sha256
from ris_core.inference.calibration import corrected
from ris_core.inference.prediction import Prediction
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.layers import rebuild

Image: TypeAlias = NDArray[np.uint8]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Photos encoded together and prompts decoded together, until memory says otherwise; more gain nothing.
_PHOTOS, _PROMPTS = 8, 32
# On a CPU what is decoded together should fit its caches: so many pixels of canvas, eight prompts at 384x352.
_CPU_PIXELS = 1 << 20
_GRID = 32


@dataclass(frozen=True)
class Frame:
    """Where a photo lies, in pixels.

    canvas: (h, w) of the model's input. inner: (h, w) of the photo on it, from the top left. size: (h, w) of the photo.
    """

    canvas: tuple[int, int]
    inner: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class PreparedImage:
    """A photo that prompts can be asked of. levels: what the model keeps of it, see `models.base.ImageEmbedding`.

    Each prompt costs a decoder's pass alone; but with early fusion nothing is kept but pixels, encoded anew each time.
    """

    levels: ImageEmbedding
    frame: Frame


class RawPrediction(NamedTuple):
    """What the model says of one prompt, before the operating point.

    probability: HxW, P(a pixel belongs to the thing). presence: P(it is there). quality: the IoU expected if so.
    """

    probability: NDArray[np.float32]
    presence: float
    quality: float


class Predictor:
    """A model with its operating point, ready to answer."""

    def __init__(self, model: RISModel, point: OperatingPoint, version: str, precision: Precision = "auto") -> None:
        """`precision`: of the passes through encoder and decoder; "auto" is half on a GPU and float32 elsewhere."""
        self.model = model.place().eval()
        self.point = point
        self.version = version
        self._dtype = _best_dtype(self.model.device) if precision == "auto" else getattr(torch, precision)
        self._encode_text = _CachedTextEncoder(self.model.text_encoder)

    @classmethod
    def load(cls, model: Path | str | None = None, precision: Precision = "auto") -> Predictor:
        """The checkpoint in a folder, the weights that come with a design of that name, or the shipped model.

        Raises CheckpointError if it is missing, damaged, or of another version.
        """
        folder = checkpoint_files.find(model)
        return cls(*checkpoint.load(folder, merged=True), checkpoint_files.version(folder), precision)

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
        frames = [self._frame(image) for image in images]
        items = list(zip(images, frames, strict=True))
        return _grouped(items, lambda item: item[1].canvas, lambda canvas: _PHOTOS, self._encode_images)

    def segment(self, image: PreparedImage, prompts: Sequence[str]) -> list[Prediction]:
        """Answer each prompt, in order. Raises PromptError if one is empty, OutOfMemory if not even one fits."""
        return self.segment_all([(image, prompts)])[0]

    def segment_all(
        self, requests: Sequence[tuple[PreparedImage, Sequence[str]]], guessed: Collection[str] = ()
    ) -> list[list[Prediction]]:
        """`segment` for many photos: prompts are decoded together, whichever photo they are about.

        guessed: prompts whose mask is wanted even where the model takes the thing for absent.
        """
        raw = iter(self.predict_raw(requests))
        return [
            [decide(prompt, next(raw), self.point, prompt in guessed) for prompt in prompts] for _, prompts in requests
        ]

    @torch.inference_mode()
    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """One after the other, what the model says of each prompt; raises as `segment` does."""
        images = [image for image, prompts in requests for _ in prompts]
        sentences = [_sentence(prompt) for _, prompts in requests for prompt in prompts]
        with self.autocast():
            items = list(zip(images, self._encode_text(sentences), strict=True))
        return _grouped(items, lambda item: item[0].frame.canvas, self._prompts_together, self._decode)

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
            [features] = _in_batches([image], 1, read)
        return features

    def _prompts_together(self, canvas: tuple[int, int]) -> int:
        if self.model.device.type != "cpu":
            return _PROMPTS
        return max(1, min(_PROMPTS, _CPU_PIXELS // (canvas[0] * canvas[1])))

    def _frame(self, image: Image) -> Frame:
        height, width = image.shape[:2]
        scale = self.point.side / max(height, width)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        canvas = tuple(-(-side // _GRID) * _GRID for side in inner)
        if self.model.image_encoder.square:
            canvas = (max(canvas),) * 2
        return Frame((canvas[0], canvas[1]), inner, (height, width))

    def _encode_images(self, items: Sequence[tuple[Image, Frame]]) -> list[PreparedImage]:
        canvas = items[0][1].canvas
        pixels, valid = torch.zeros(len(items), 3, *canvas), torch.zeros(len(items), 1, *canvas)
        for number, (image, frame) in enumerate(items):
            rows, columns = frame.inner
            pixels[number, :, :rows, :columns] = torch.from_numpy(_fit(image, frame)).permute(2, 0, 1)
            valid[number, :, :rows, :columns] = 1
        with self.autocast():
            embedding = self.model.encode_image(pixels.to(self.model.device), valid.to(self.model.device))
        return [PreparedImage(_one(embedding, number), frame) for number, (_, frame) in enumerate(items)]

    def _decode(self, items: Sequence[tuple[PreparedImage, TextFeatures]]) -> list[RawPrediction]:
        numbers: dict[int, int] = {}
        index = [numbers.setdefault(id(image), len(numbers)) for image, _ in items]
        images = list({id(image): image for image, _ in items}.values())
        with self.autocast():
            text = TextFeatures.join([text for _, text in items])
            output = self.model(_join(images), text, torch.tensor(index, device=self.model.device))
        scores = torch.stack([output.presence, output.quality], dim=1).float().sigmoid().tolist()
        probabilities = _to_photos(output.mask.float(), [image.frame for image, _ in items])
        return [RawPrediction(probability, *score) for probability, score in zip(probabilities, scores, strict=True)]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that passes run in."""
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, self._dtype)


def decide(prompt: str, raw: RawPrediction, point: OperatingPoint, guessed: bool = False) -> Prediction:
    """What the operating point makes of a raw prediction: a mask, or that the thing isn't there.

    guessed: a mask all the same, if there is one.
    """
    mask = raw.probability >= point.mask
    held_back = raw.presence < point.presence and bool(mask.any())
    present = bool(mask.any()) and (guessed or not held_back)
    score = expected_iou(present, raw.presence, raw.quality, point)
    guess = expected_iou(True, raw.presence, raw.quality, point) if held_back else 0.0
    shown = mask if present else np.zeros_like(mask)
    return Prediction(prompt, shown, present, raw.presence, raw.quality, score, guess=guess)


def expected_iou(present: bool, presence: float, quality: float, point: OperatingPoint) -> float:
    """The IoU to expect of an answer, `presence` and `quality` being the model's, corrected as the point says."""
    if present:
        return corrected(presence * quality, point.answer_scale, point.answer_shift)
    return corrected(1 - presence, point.refusal_scale, point.refusal_shift)


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
        encoded = dict(zip(new, _in_batches(new, _PROMPTS, self._encode), strict=True))
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


def _fit(image: Image, frame: Frame) -> Image:
    shrinks = frame.inner[0] < frame.size[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, frame.inner[::-1], interpolation=interpolation), dtype=np.uint8)


def _one(embedding: ImageEmbedding, number: int) -> ImageEmbedding:
    return tuple(rebuild(level, [part[number : number + 1] for part in level]) for level in embedding)


def _join(images: Sequence[PreparedImage]) -> ImageEmbedding:
    if len(images) == 1:
        return images[0].levels
    levels = zip(*(image.levels for image in images), strict=True)
    return tuple(rebuild(same[0], [torch.cat(parts) for parts in zip(*same, strict=True)]) for same in levels)


def _to_photos(logits: Tensor, frames: Sequence[Frame]) -> list[NDArray[np.float32]]:
    """(N, 1, h, w) logits on the canvas' grid -> N HxW probabilities, each at its photo's own size."""
    on_canvas = F.interpolate(logits, size=frames[0].canvas, mode="bilinear", align_corners=False)
    probabilities = on_canvas[:, 0].sigmoid().cpu().numpy()
    return [_to_photo(probability, frame) for probability, frame in zip(probabilities, frames, strict=True)]


def _to_photo(probability: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    rows, columns = frame.inner
    full = cv2.resize(probability[:rows, :columns], frame.size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, dtype=np.float32)


def _grouped(
    items: Sequence[Item],
    canvas: Callable[[Item], tuple[int, int]],
    size: Callable[[tuple[int, int]], int],
    run: Callable[[Sequence[Item]], list[Result]],
) -> list[Result]:
    """`run` over items of one canvas, at most its `size` of them together -> the results in the items' order."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        groups[canvas(item)].append(number)
    results: dict[int, Result] = {}
    for shared, numbers in groups.items():
        batches = _in_batches([items[number] for number in numbers], size(shared), run)
        results.update(zip(numbers, batches, strict=True))
    return [results[number] for number in range(len(items))]


def _in_batches(items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], list[Result]]) -> Iterator[Result]:
    """`run` over at most `size` items together, and half as many whenever memory runs out."""
    start = 0
    while start < len(items):
        try:
            results = run(items[start : start + size])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise OutOfMemory(
                    "Memory ran out on a single photo or prompt. Use a smaller model or side, or a larger machine."
                ) from None
            size = max(1, min(size, len(items) - start) // 2)
            continue
        yield from results
        start += size


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out, of the GPU or of the machine."""
    # On the CPU torch has no exception of its own for this.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
