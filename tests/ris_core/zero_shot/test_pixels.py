"""Preprocessing beside the library's own, where that runs without torchvision."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from zero_shot.photos import photo

from ris_core.encoders.pixels import CLIP, IMAGENET
from ris_core.zero_shot.pixels import (
    blurred_square,
    bounded_size,
    fitted_frame,
    normalised,
    padded,
    resized,
    stretched_frame,
)

SIZES = [(60, 90), (90, 60), (64, 64), (7, 200), (333, 101), (2, 5)]
# Rounding: the library scales to [0, 1] before it normalises.
CLOSE = {"atol": 5e-6, "rtol": 0}


@pytest.mark.parametrize("size", SIZES)
def test_as_sam_takes_it(size: tuple[int, int]) -> None:
    image = photo(*size)
    theirs = SamImageProcessorPil(size={"longest_edge": 128}, pad_size={"height": 128, "width": 128})(image)
    frame = fitted_frame(image, 128)
    assert frame.inner == tuple(theirs["reshaped_input_sizes"][0]) and frame.size == size
    ours = padded(normalised(resized(image, frame.inner), IMAGENET), frame.canvas)
    torch.testing.assert_close(ours, torch.as_tensor(theirs["pixel_values"][0]), **CLOSE)


@pytest.mark.parametrize("size", SIZES)
def test_as_grounding_dino_takes_it(size: tuple[int, int]) -> None:
    image = photo(*size)
    bounds = {"shortest_edge": 80, "longest_edge": 133}
    theirs = torch.as_tensor(GroundingDinoImageProcessorPil(size=bounds)(image)["pixel_values"][0])
    ours = normalised(resized(image, bounded_size(size, 80, 133)), IMAGENET)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_sizes_within_bounds_as_the_library_has_them() -> None:
    from transformers.image_transforms import get_size_with_aspect_ratio

    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 3000, (500, 2)).tolist():
        expected = get_size_with_aspect_ratio((height, width), 800, 1333)
        ours = bounded_size((height, width), 800, 1333)
        assert ours == expected if min(expected) else min(ours) == 1, (height, width)
    assert bounded_size((1, 5000), 800, 1333, least=32) == (32, 1333)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [96, 40])
def test_as_owlv2_takes_it(size: tuple[int, int], side: int) -> None:
    image = photo(*size)
    theirs = Owlv2ImageProcessorPil(size={"height": side, "width": side})(image)["pixel_values"][0]
    ours = normalised(blurred_square(image, side), CLIP)
    torch.testing.assert_close(ours, torch.as_tensor(theirs, dtype=torch.float32), **CLOSE)


def test_a_stretched_photo_is_what_torchvision_would_make_of_it_but_for_rounding() -> None:
    # The processor of SAM 2 needs torchvision, whose antialiased resizing is this.
    image = photo(150, 90)
    frame = stretched_frame(image, 64)
    assert (frame.canvas, frame.inner, frame.size) == ((64, 64), (64, 64), (150, 90))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    theirs = F.interpolate(pixels, frame.inner, mode="bilinear", antialias=True, align_corners=False)[0]
    ours = torch.from_numpy(resized(image, frame.inner)).permute(2, 0, 1).float()
    assert (ours - theirs).abs().max() <= 1


def test_of_a_very_wide_photo_something_is_left() -> None:
    assert fitted_frame(photo(1, 4000), 128).inner == (1, 128)


def test_a_single_pixel_fills_a_square() -> None:
    np.testing.assert_allclose(blurred_square(np.full((1, 1, 3), 77, np.uint8), 32), 77, rtol=1e-6)
