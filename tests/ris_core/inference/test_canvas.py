"""Photos on their way to a model, on the CPU and as to a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ris_core.checkpoint_files import OperatingPoint
from ris_core.inference.canvas import Fitter, from_bytes, on_canvas
from ris_core.inference.frame import Frame, fit
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


def photos(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


def test_photos_travel_as_bytes_and_arrive_as_they_are() -> None:
    images = photos((48, 64), (40, 64), (64, 30))
    frames = [Frame((64, 64), image.shape[:2], image.shape[:2]) for image in images]
    for one, other in zip(on_canvas(images, frames, CPU), from_bytes(images, frames, CPU), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
def test_photos_are_fitted_in_their_order(device: torch.device) -> None:
    images = photos((48, 64), (400, 640), (64, 30), (2, 900))
    frames = [Frame.of(image, 96, False) for image in images]
    for image, frame, fitted in zip(images, frames, Fitter(device)(images, frames), strict=True):
        assert np.array_equal(fitted(), fit(image, frame))
        # Asked again where memory ran out.
        assert np.array_equal(fitted(), fit(image, frame))


def test_photos_of_one_canvas_are_encoded_together_wherever_they_stand(
    untrained: LDA, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, seen = Predictor(untrained, OperatingPoint(side=96), "test", "float32"), []
    encode = untrained.encode_image

    def noted(pixels: torch.Tensor, valid: torch.Tensor) -> object:
        seen.append(tuple(pixels.shape))
        return encode(pixels, valid)

    monkeypatch.setattr(untrained, "encode_image", noted)
    predictor.embed_all(photos(*[(40, 90), (90, 40)] * 9))
    # Eight at most.
    assert sorted(seen) == [(1, 3, 64, 96), (1, 3, 96, 64), (8, 3, 64, 96), (8, 3, 96, 64)]
