"""What a view shows and what its targets say move together."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from ris_core.data.augment import look, mirror_words


@pytest.mark.parametrize(
    ("said", "mirrored"),
    [
        ("the leftmost cup", "the rightmost cup"),
        ("Left of the right man", "Right of the left man"),
        ("the bright leftovers", "the bright leftovers"),
        ("second from the right", "second from the left"),
    ],
)
def test_mirrored_words(said: str, mirrored: str) -> None:
    assert mirror_words(said) == mirrored
    assert mirror_words(mirrored) == said


def disc(height: int, width: int, x: int, y: int, radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((height, width), np.uint8), (x, y), radius, 1, -1).astype(bool)


@pytest.mark.parametrize("seed", range(12))
def test_targets_follow_the_pixels(seed: int) -> None:
    mask = disc(300, 400, 130, 120, 60)
    image = np.where(mask[..., None], 255, 40).astype(np.uint8).repeat(3, axis=2)
    view = look(image, [mask], (256, 384), random.Random(seed))
    seen = cv2.resize(view.pixels[..., 0].astype(np.float32), (96, 64), interpolation=cv2.INTER_AREA)
    cut = (view.pixels[..., 0].max() / 2 + view.pixels[..., 0][view.valid > 0].min() / 2) if view.targets.any() else 255
    bright = seen > cut
    covered = view.targets[0] > 0.5
    union = (bright | covered).sum()
    assert union == 0 or (bright & covered).sum() / union > 0.9


def test_without_randomness_the_photo_fills_the_canvas() -> None:
    image = np.full((200, 300, 3), 7, np.uint8)
    view = look(image, [np.ones((200, 300), bool)], (256, 384), None)
    assert view.valid.mean() > 0.98
    assert not view.mirrored
    assert view.targets[0][2:-2, 2:-2].min() > 0.99


def test_same_seed_same_view() -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    first, second = (look(image, [], (64, 96), random.Random(5)) for _ in range(2))
    assert (first.pixels == second.pixels).all()
    assert first.targets.shape == (0, 16, 24)
