"""A stand-in for the model whose every answer is given, and samples to ask it about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample
from ris_core.inference.prediction import RawPrediction
from ris_core.masks import encode_rle


class KnownPredictor:
    """A predictor whose answers are given: by sentence a map of any size, laid over the photo's, and two numbers.

    far: how far sentences lie from any name.
    """

    version = "known"

    def __init__(
        self,
        point: OperatingPoint,
        answers: dict[str, tuple[np.ndarray, float, float]],
        far: dict[str, float] | None = None,
    ) -> None:
        self.point, self.answers, self.far = point, answers, far or {}
        self.seen: list[tuple[int, ...]] = []

    def embed_all(self, images: list[np.ndarray]) -> list[np.ndarray]:
        self.seen += [image.shape for image in images]
        return images

    def predict_raw(self, requests: list[tuple[np.ndarray, list[str]]]) -> list[RawPrediction]:
        return [self._raw(image, sentence) for image, sentences in requests for sentence in sentences]

    def _raw(self, image: np.ndarray, sentence: str) -> RawPrediction:
        drawn, presence, quality = self.answers[sentence]
        repeats = [side // own for side, own in zip(image.shape, drawn.shape, strict=False)]
        [distance] = self.distances([sentence], self.point.names)
        return RawPrediction(np.kron(drawn, np.ones(repeats)).astype(np.float32), presence, quality, distance)

    def distances(self, prompts: list[str], names: Sequence[str]) -> list[float]:
        return [self.far.get(prompt, 0.0) if names else 0.0 for prompt in prompts]


def sample(folder: Path, sentence: str, target: np.ndarray | None, size: tuple[int, int] = (10, 20)) -> Sample:
    """About a grey photo of that height and width, which is written to `folder`."""
    path = folder / f"{size[0]}x{size[1]}.png"
    if not path.exists():
        Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(path)
    segmentations = () if target is None else (encode_rle(target),)
    return Sample(path, 1, 1, "val", sentence, *size, segmentations)


def columns(*filled: int, of: int = 4) -> np.ndarray:
    """One row: 1 in the columns named, 0 in the others."""
    row = np.zeros((1, of))
    row[0, list(filled)] = 1
    return row


def left(width: int, size: tuple[int, int] = (10, 20)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[:, :width] = True
    return mask
