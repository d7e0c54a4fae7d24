"""Overlays tint what is inside and leave the rest of the photo alone."""

from __future__ import annotations

import numpy as np

from ris_core.overlay import PALETTE, draw


def test_inside_is_tinted_and_outside_untouched() -> None:
    image = np.full((300, 400, 3), 100, np.uint8)
    mask = np.zeros((300, 400), dtype=bool)
    mask[200:280, 300:380] = True
    drawn = draw(image, [("the cup", mask)])
    assert (image == 100).all()
    assert (drawn[190:195, 290:295] == 100).all()
    assert drawn[240, 340].tolist() == [(100 + channel) // 2 for channel in PALETTE[0]]
    assert (drawn[:40, :120] != 100).any()


def test_nothing_found_leaves_the_photo() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    assert (draw(image, []) == image).all()
