"""What answers prompts about photos, whosever model it is: encode a photo once, prompt it many times.

`predictor` is that of our own models, `zero_shot` those of the field. Safe to share between threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ris_core.checkpoint_files import OperatingPoint
from ris_core.errors import PromptError
from ris_core.inference.calibration import belief, corrected
from ris_core.inference.frame import Frame, Image
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.prompt import Prompt
from ris_core.models.base import ImageEmbedding


@dataclass(frozen=True)
class PreparedImage:
    """A photo that prompts can be asked of. levels: what the model keeps of it, see `models.base.ImageEmbedding`.

    interactive: what is kept for clicks alone, if anything is. Each prompt costs a decoder's pass alone; but with early
    fusion nothing is kept for sentences but pixels, encoded anew each time.
    """

    levels: ImageEmbedding
    frame: Frame
    interactive: ImageEmbedding = ()

    @property
    def nbytes(self) -> int:
        """Of all tensors that it holds, each counted once."""
        return sum({(tensor.data_ptr(), tensor.nbytes): tensor.nbytes for tensor in _tensors(self)}.values())


class Question(NamedTuple):
    """A sentence about a photo. whole: whether its probabilities are wanted, and not a mask alone."""

    image: PreparedImage
    sentence: str
    whole: bool = True


class PointedPrompt(NamedTuple):
    """A prompt that points at something in a photo. said: what the model says to its sentence, if it has one."""

    image: PreparedImage
    prompt: Prompt
    said: RawPrediction | None


class Segmenter(ABC):
    """A model with its operating point, ready to answer.

    Attributes:
        version: the name under which its answers are known.
        wavers: whether answers can be had under dropout, see `uncertainty.disagreements`.
    """

    point: OperatingPoint
    version: str
    wavers: bool = False

    def __init__(self, point: OperatingPoint, version: str) -> None:
        self.point, self.version = point, version
        self._names: tuple[Sequence[str], Tensor] | None = None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with whatever shapes an embedding besides the photo: weights, canvas, precision."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model lies."""

    @abstractmethod
    def embed_all(self, images: Sequence[Image]) -> list[PreparedImage]:
        """Each HxWx3 uint8 RGB -> what any number of prompts can be asked of.

        Raises OutOfMemory if not even one of them fits.
        """

    @abstractmethod
    def predict_raw(self, requests: Sequence[tuple[PreparedImage, Sequence[str]]]) -> list[RawPrediction]:
        """One after the other, what the model says of each prompt; raises as `segment` does."""

    @abstractmethod
    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """The sentence vectors of N prompts, (N, D)."""

    @abstractmethod
    def deepest_features(self, image: PreparedImage) -> Tensor:
        """(C, H, W), the deepest features of a photo's canvas, 0 where there is no photo. Raises OutOfMemory."""

    @abstractmethod
    def _point(self, asked: Sequence[PointedPrompt]) -> list[Prediction]:
        """Answers to prompts that point; raises as `segment` does."""

    def _ask(self, asked: Sequence[Question]) -> list[RawPrediction]:
        """As `predict_raw`, which it is here; others may leave out probabilities that aren't wanted."""
        return self.predict_raw([(image, [sentence]) for image, sentence, _ in asked])

    def embed(self, image: Image) -> PreparedImage:
        """`embed_all` for one."""
        return self.embed_all([image])[0]

    def segment(self, image: PreparedImage, prompts: Sequence[str | Prompt]) -> list[Prediction]:
        """Answer each prompt, in order; one that points at something always with a mask.

        Raises PromptError if one is empty, or points though the model can't be pointed at; OutOfMemory if not even one
        fits.
        """
        return self.segment_all([(image, prompts)])[0]

    def segment_all(
        self, requests: Sequence[tuple[PreparedImage, Sequence[str | Prompt]]], guessed: Collection[str] = ()
    ) -> list[list[Prediction]]:
        """`segment` for many photos: prompts are answered together, whichever photo they are about.

        guessed: sentences whose mask is wanted even where the model takes the thing for absent.
        """
        asked = [
            (image, Prompt(prompt) if isinstance(prompt, str) else prompt)
            for image, prompts in requests
            for prompt in prompts
        ]
        worded = [(image, prompt) for image, prompt in asked if prompt.mask is None and not prompt.wordless]
        raw = iter(self._ask([Question(image, prompt.sentence, prompt.visual) for image, prompt in worded]))
        said = {id(prompt): next(raw) for _, prompt in worded}
        pointed = [PointedPrompt(image, prompt, said.get(id(prompt))) for image, prompt in asked if prompt.visual]
        shown = iter(self._point(pointed))
        answers = iter(
            next(shown)
            if prompt.visual
            else decide(prompt.sentence, said[id(prompt)], self.point, prompt.sentence in guessed)
            for _, prompt in asked
        )
        return [[next(answers) for _ in prompts] for _, prompts in requests]

    def distances(self, prompts: Sequence[str], names: Sequence[str]) -> list[float]:
        """How far each prompt lies from the nearest of `names`: 1 - cosine of sentence vectors, [0, 2]; 0 without any.

        The vectors of the names are kept as long as the same ones are given.
        """
        distances: list[float] = self._distances(prompts, names).tolist()
        return distances

    def _distances(self, prompts: Sequence[str], names: Sequence[str]) -> Tensor:
        """`distances` (N,), on the device where vectors are."""
        if not names or not prompts:
            return torch.zeros(len(prompts))
        if self._names is None or self._names[0] != names:
            self._names = names, F.normalize(self.vectors(names).float(), dim=1)
        nearest = (F.normalize(self.vectors(prompts).float(), dim=1) @ self._names[1].T).amax(dim=1)
        return (1 - nearest).clamp_min(0)


def _tensors(value: object) -> Iterator[Tensor]:
    """Those in an embedding, however a model nests them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])


def decide(prompt: str, raw: RawPrediction, point: OperatingPoint, guessed: bool = False) -> Prediction:
    """What the operating point makes of a raw prediction: a mask, or that the thing isn't there.

    guessed: a mask all the same, if there is one.
    """
    mask = raw.probability >= point.mask if raw.mask is None else raw.mask
    held_back = raw.presence < point.presence and bool(mask.any())
    present = bool(mask.any()) and (guessed or not held_back)
    score = expected_iou(present, raw.presence, raw.quality, point, raw.distance)
    guess = expected_iou(True, raw.presence, raw.quality, point) if held_back else 0.0
    shown = mask if present else np.zeros_like(mask)
    things = raw.things if present else ()
    return Prediction(prompt, shown, present, raw.presence, raw.quality, score, guess=guess, things=things)


def expected_iou(present: bool, presence: float, quality: float, point: OperatingPoint, distance: float = 0.0) -> float:
    """The IoU to expect of an answer, as the point corrects what the model says; numbers as in `RawPrediction`."""
    if present:
        return corrected(presence**point.answer_presence * quality, point.answer_scale, point.answer_shift)
    return corrected(1 - presence, point.refusal_scale, point.refusal_shift) * belief(distance, point.doubt)


def clean(prompt: str) -> str:
    """The sentence without needless blanks. Raises PromptError if nothing is left."""
    if not prompt.strip():
        raise PromptError("The prompt is empty. Say what to find, for example: the cat.")
    return " ".join(prompt.split())
