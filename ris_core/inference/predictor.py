"""Encode a photo once, prompt it many times. Safe to share between threads: it holds no state of a request."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ris_core import checkpoint
from ris_core.checkpoint import OperatingPoint
from ris_core.encoders import TextEncoder, TextFeatures
from ris_core.encoders.base import fingerprint
from ris_core.errors import OutOfMemory, PromptError
from ris_core.inference.calibration import corrected
from ris_core.masks import Mask
from ris_core.models import ImageEmbedding, RISModel
from ris_core.models.layers import rebuild

Image: TypeAlias = NDArray[np.uint8]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Photos encoded together and prompts decoded together, until memory says otherwise; more gain nothing.
_PHOTOS, _PROMPTS = 8, 32
# On a CPU what is decoded together should fit its caches: so many pixels of canvas, eight prompts at 384x352.
_CPU_PIXELS = 1 << 20
_GRID = 32


@dataclass(frozen=True)
class Frame:
    """Where a photo lies. canvas: (h, w) of the model's input. inner: (h, w) of the photo on it, from the top left.
    size: (h, w) of the photo itself. All in pixels.
    """

    canvas: tuple[int, int]
    inner: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class PreparedImage:
    """A photo that prompts can be asked of. levels: what the model keeps of it, see `models.base.ImageEmbedding`."""

    levels: ImageEmbedding
    frame: Frame


class EncodedImage(PreparedImage):
    """Encoded: each prompt costs a decoder's pass alone."""


class UnencodedImage(PreparedImage):
    """Pixels for a model with early fusion, which encodes them anew for each prompt: nothing can be kept."""


class Map(NamedTuple):
    """probability: HxW, P(a pixel belongs to the thing). presence: P(it is there). quality: the IoU expected if so."""

    probability: NDArray[np.float32]
    presence: float
    quality: float


@dataclass(frozen=True)
class Prediction:
    """One prompt's answer.

    mask: HxW bool at the photo's size, empty unless `present`. presence, quality: as in `Map`, in [0, 1].
    score: the IoU to expect of this answer, [0, 1]; saying that a thing isn't there scores 1 where that is so.
    """

    prompt: str
    mask: Mask
    present: bool
    presence: float
    quality: float
    score: float


class Predictor:
    """A model with its operating point, ready to answer."""

    def __init__(self, model: RISModel, point: OperatingPoint, version: str, precision: Precision = "auto") -> None:
        """`precision`: of the passes through encoder and decoder; "auto" is half on a GPU and float32 elsewhere."""
        self.model = model.place().eval()
        self.point = point
        self.version = version
        self._type = _best(self.model.device) if precision == "auto" else getattr(torch, precision)
        self._sentences = _Sentences(self.model.text_encoder)

    @classmethod
    def load(cls, model: Path | str | None = None, precision: Precision = "auto") -> Predictor:
        """The checkpoint in a folder, the weights that come with a design of that name, or the shipped model.

        Raises:
            CheckpointError: it is missing, damaged, or of another version.
        """
        folder = checkpoint.find(model)
        return cls(*checkpoint.load(folder, merged=True), checkpoint.version(folder), precision)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever shapes an embedding besides the photo: every weight, adapters too, side, precision."""
        weights = fingerprint(self.model), fingerprint(self.model.image_encoder)
        return _digest(*weights, str(self.point.side), str(self._type))

    def key(self, image: Image) -> str:
        """Under which the embedding of HxWx3 uint8 RGB can be kept."""
        return _digest(self.fingerprint, str(image.shape), np.ascontiguousarray(image).data)

    def embed(self, image: Image) -> PreparedImage:
        """HxWx3 uint8 RGB -> what any number of prompts can be asked of."""
        return self.embed_all([image])[0]

    @torch.inference_mode()
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """`embed` for many: those that share a canvas go through the encoder together.

        Raises:
            OutOfMemory: not even one of them fits.
        """
        frames = [self._frame(image) for image in images]
        items = list(zip(images, frames, strict=True))
        return _grouped(items, lambda item: item[1].canvas, lambda canvas: _PHOTOS, self._encode)

    def segment(self, image: PreparedImage, prompts: Sequence[str]) -> list[Prediction]:
        """Answer each prompt, in order.

        Raises:
            PromptError: a prompt is empty.
            OutOfMemory: not even one of them fits.
        """
        return self.segment_all([(image, prompts)])[0]

    def segment_all(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[list[Prediction]]:
        """`segment` for many photos: prompts are decoded together, whichever photo they are about."""
        maps = iter(self.maps(requests))
        return [[decide(prompt, next(maps), self.point) for prompt in prompts] for _, prompts in requests]

    @torch.inference_mode()
    def maps(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[Map]:
        """One after the other, each prompt's answer before the operating point."""
        asked = [(image, _said(prompt)) for image, prompts in requests for prompt in prompts]
        with self.autocast():
            words = self._sentences.encode([sentence for _, sentence in asked])
        items = [(image, each) for (image, _), each in zip(asked, words, strict=True)]
        return _grouped(items, lambda item: item[0].frame.canvas, self._prompts, self._answer)

    @torch.inference_mode()
    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """The sentence vectors of N prompts, (N, D)."""
        return torch.cat([words.sentence for words in self._sentences.encode([_said(prompt) for prompt in prompts])])

    def _prompts(self, canvas: tuple[int, int]) -> int:
        """How many prompts to decode together."""
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

    def _encode(self, items: Sequence[tuple[Image, Frame]]) -> list[PreparedImage]:
        canvas = items[0][1].canvas
        pixels, valid = torch.zeros(len(items), 3, *canvas), torch.zeros(len(items), 1, *canvas)
        for number, (image, frame) in enumerate(items):
            rows, columns = frame.inner
            pixels[number, :, :rows, :columns] = torch.from_numpy(_fit(image, frame)).permute(2, 0, 1)
            valid[number, :, :rows, :columns] = 1
        with self.autocast():
            photos = self.model.encode_image(pixels.to(self.model.device), valid.to(self.model.device))
        kind = UnencodedImage if self.model.early_fusion else EncodedImage
        return [kind(_photo(photos, number), frame) for number, (_, frame) in enumerate(items)]

    def _answer(self, items: Sequence[tuple[PreparedImage, TextFeatures]]) -> list[Map]:
        numbers: dict[int, int] = {}
        index = [numbers.setdefault(id(image), len(numbers)) for image, _ in items]
        images = list({id(image): image for image, _ in items}.values())
        with self.autocast():
            text = TextFeatures.join([words for _, words in items])
            output = self.model(_join(images), text, torch.tensor(index, device=self.model.device))
        scores = torch.stack([output.presence, output.quality], dim=1).float().sigmoid().tolist()
        probabilities = _to_photos(output.mask.float(), [image.frame for image, _ in items])
        return [Map(each, *score) for each, score in zip(probabilities, scores, strict=True)]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that passes run in."""
        if self._type is torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, self._type)


def decide(prompt: str, found: Map, point: OperatingPoint) -> Prediction:
    """What the operating point makes of a map: a mask, or that the thing isn't there."""
    mask = found.probability >= point.mask
    present = found.presence >= point.presence and bool(mask.any())
    score = expect(present, found.presence, found.quality, point)
    return Prediction(prompt, mask if present else np.zeros_like(mask), present, found.presence, found.quality, score)


def expect(present: bool, presence: float, quality: float, point: OperatingPoint) -> float:
    """The IoU to expect of an answer, `presence` and `quality` being the model's, corrected as the point says."""
    if present:
        return corrected(presence * quality, point.answer_scale, point.answer_shift)
    return corrected(1 - presence, point.refusal_scale, point.refusal_shift)


class _Sentences:
    """Sentences already encoded: people repeat themselves, a project's prompts above all."""

    def __init__(self, encoder: TextEncoder, size: int = 1024) -> None:
        self._encoder, self._size = encoder, size
        self._known: OrderedDict[str, TextFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One for each, without padding; those that are new go through the encoder together."""
        with self._lock:
            found = {each: self._known[each] for each in sentences if each in self._known}
        new = [each for each in dict.fromkeys(sentences) if each not in found]
        found |= zip(new, _in_batches(new, _PROMPTS, self._encode), strict=True)
        with self._lock:
            for each in found:
                self._known[each] = found[each]
                self._known.move_to_end(each)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return [found[each] for each in sentences]

    def _encode(self, sentences: Sequence[str]) -> list[TextFeatures]:
        features = self._encoder(sentences)
        return [features[number : number + 1].trim() for number in range(len(sentences))]


def _best(device: torch.device) -> torch.dtype:
    # Not bfloat16: its eight bits move the edges of masks, and values here are small enough for float16.
    return torch.float16 if device.type == "cuda" else torch.float32


def _digest(*parts: str | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def _said(prompt: str) -> str:
    if not prompt.strip():
        raise PromptError("The prompt is empty. Say what to find, for example: the cat.")
    return " ".join(prompt.split())


def _fit(image: Image, frame: Frame) -> Image:
    shrinks = frame.inner[0] < frame.size[0]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, frame.inner[::-1], interpolation=kind), dtype=np.uint8)


def _photo(photos: ImageEmbedding, number: int) -> ImageEmbedding:
    return tuple(rebuild(level, [part[number : number + 1] for part in level]) for level in photos)


def _join(images: Sequence[PreparedImage]) -> ImageEmbedding:
    if len(images) == 1:
        return images[0].levels
    levels = zip(*(image.levels for image in images), strict=True)
    return tuple(rebuild(each[0], [torch.cat(parts) for parts in zip(*each, strict=True)]) for each in levels)


def _to_photos(logits: Tensor, frames: Sequence[Frame]) -> list[NDArray[np.float32]]:
    """(N, 1, h, w) logits on the canvas' grid -> N HxW probabilities, each at its photo's own size."""
    on_canvas = F.interpolate(logits, size=frames[0].canvas, mode="bilinear", align_corners=False)
    maps = on_canvas[:, 0].sigmoid().cpu().numpy()
    return [_to_photo(each, frame) for each, frame in zip(maps, frames, strict=True)]


def _to_photo(probability: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    rows, columns = frame.inner
    full = cv2.resize(probability[:rows, :columns], frame.size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, dtype=np.float32)


def _grouped(
    items: Sequence[Item],
    canvas: Callable[[Item], tuple[int, int]],
    size: Callable[[tuple[int, int]], int],
    run: Callable[[Sequence[Item]], list[Answer]],
) -> list[Answer]:
    """`run` over items of one canvas, at most its `size` of them together -> the answers in the items' order."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        groups[canvas(item)].append(number)
    answers: dict[int, Answer] = {}
    for shared, numbers in groups.items():
        found = _in_batches([items[number] for number in numbers], size(shared), run)
        answers.update(zip(numbers, found, strict=True))
    return [answers[number] for number in range(len(items))]


def _in_batches(items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], list[Answer]]) -> Iterator[Answer]:
    """`run` over at most `size` items together, and half as many whenever memory runs out."""
    start = 0
    while start < len(items):
        try:
            answers = run(items[start : start + size])
        except RuntimeError as error:
            if not is_memory(error):
                raise
            if size == 1:
                raise OutOfMemory(
                    "Memory ran out on a single photo or prompt. Use a smaller model or side, or a larger machine."
                ) from None
            size = max(1, min(size, len(items) - start) // 2)
            continue
        yield from answers
        start += size


def is_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out, of the GPU or of the machine."""
    # On the CPU torch has no exception of its own for this.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
