"""What a view shows and what its targets say move together."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from ris_core.data.derive.words import mirror_words
from ris_core.training.augment import fit_view


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
    view = fit_view((300, 400), (256, 384), random.Random(seed))
    pixels, target = view.pixels(image)[..., 0], view.target(mask)
    seen = cv2.resize(pixels.astype(np.float32), (96, 64), interpolation=cv2.INTER_AREA)
    cut = (pixels.max() / 2 + pixels[view.valid() > 0].min() / 2) if target.any() else 255
    bright = seen > cut
    covered = target > 0.5
    union = (bright | covered).sum()
    assert union == 0 or (bright & covered).sum() / union > 0.9


def test_without_randomness_the_photo_fills_the_canvas() -> None:
    view = fit_view((200, 300), (256, 384), None)
    assert view.valid().mean() > 0.98
    assert not view.mirrored
    assert view.target(np.ones((200, 300), bool))[2:-2, 2:-2].min() > 0.99
    image = np.full((200, 300, 3), 7, np.uint8)
    assert (view.pixels(image)[view.valid() > 0] == 7).mean() > 0.98


def test_whole_says_whether_anything_is_cut_off() -> None:
    views = [fit_view((300, 400), (256, 384), random.Random(seed)) for seed in range(40)]
    inside = [view.target(np.ones((300, 400), bool)).sum() * 16 for view in views]
    area = [abs(np.linalg.det(view.matrix[:, :2])) * 300 * 400 for view in views]
    shown = [there / full for there, full in zip(inside, area, strict=True)]
    assert all(part > 0.97 for part, view in zip(shown, views, strict=True) if view.whole)
    assert not any(view.whole for part, view in zip(shown, views, strict=True) if part < 0.95)
    assert 3 < sum(view.whole for view in views) < 37
    assert fit_view((300, 400), (256, 384), None).whole


def test_same_seed_same_view() -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    first, second, other = (fit_view((90, 120), (64, 96), random.Random(seed)) for seed in (5, 5, 6))
    assert (first.pixels(image) == second.pixels(image)).all()
    assert first.key() == second.key() != other.key()
    assert first.target(np.ones((90, 120), bool)).shape == (16, 24)
