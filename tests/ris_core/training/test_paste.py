"""A thing laid over another photo: its pixels and where they are."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ris_core.training.paste import LARGEST, Cutting, Pasted, cut, paste

HOST = np.full((80, 120, 3), 50, np.uint8)


def square(side: int = 20, colour: int = 250) -> Cutting:
    return Cutting(np.full((side, side, 3), colour, np.uint8), np.ones((side, side), dtype=bool))


def lay(thing: Cutting, seed: int = 0) -> Pasted:
    pasted = paste(HOST, thing, random.Random(seed))
    assert pasted
    return pasted


def test_cut_takes_the_bounding_box_and_leaves_the_photo() -> None:
    image = np.arange(10 * 12 * 3, dtype=np.uint16).astype(np.uint8).reshape(10, 12, 3)
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:5, 3], mask[4, 3:9] = True, True
    thing = cut(image, mask)
    assert thing.mask.shape == (3, 6)
    assert thing.mask.sum() == mask.sum() == 8
    assert (thing.image == image[2:5, 3:9]).all()
    thing.image[:] = 0
    assert image[2:5, 3:9].any()


def test_an_empty_mask_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="the mask is empty"):
        cut(HOST, np.zeros((80, 120), dtype=bool))


@pytest.mark.parametrize("seed", range(20))
def test_the_mask_is_where_the_thing_is(seed: int) -> None:
    image, mask = lay(square(), seed=seed)
    changed = (image != 50).any(axis=2)
    assert not (changed & ~mask).any()
    # The rim is half host, half thing; all within is changed.
    assert changed.sum() >= 0.7 * mask.sum()
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert 10 <= len(rows) == len(columns) <= 30


def test_within_the_thing_pixels_are_its_own_and_edges_are_soft() -> None:
    image, mask = lay(square(30))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    line = image[rows[len(rows) // 2], columns[0] - 1 : columns[-1] + 2, 0]
    assert line[0] == line[-1] == 50
    assert 50 < line[1] < line[2] <= 250
    assert (line[4:-4] == 250).all()


def test_nothing_that_is_passed_in_changes() -> None:
    host, thing = HOST.copy(), square()
    paste(host, thing, random.Random(1))
    assert (host == 50).all()
    assert (thing.image == 250).all()
    assert thing.mask.all()


def test_the_same_randomness_gives_the_same() -> None:
    first, again, other = (lay(square(), seed=seed) for seed in (3, 3, 4))
    assert (first.image == again.image).all()
    assert (first.mask == again.mask).all()
    assert (first.mask != other.mask).any()


@pytest.mark.parametrize("shape", [(500, 40), (40, 500), (300, 300)], ids=str)
def test_a_large_thing_is_shrunk_until_it_leaves_the_host_in_view(shape: tuple[int, int]) -> None:
    thing = Cutting(np.full((*shape, 3), 250, np.uint8), np.ones(shape, dtype=bool))
    pasted = paste(HOST, thing, random.Random(0))
    if pasted is None:
        assert LARGEST * min(80 * 40 / 500, 120 * 40 / 500) < 8
        return
    assert np.count_nonzero(pasted.mask.any(axis=1)) <= LARGEST * 80 + 1
    assert np.count_nonzero(pasted.mask.any(axis=0)) <= LARGEST * 120 + 1


def test_what_nobody_could_tell_is_not_pasted() -> None:
    assert paste(HOST, square(4), random.Random(0)) is None
    wide = np.full((800, 1200, 3), 50, np.uint8)
    assert paste(wide, square(40), random.Random(0)) is None
    assert paste(wide, square(140), random.Random(0))


def test_the_background_of_the_cutting_stays_behind() -> None:
    image = np.full((24, 24, 3), 250, np.uint8)
    mask = np.zeros((24, 24), dtype=bool)
    mask[4:20, 4:20] = True
    image[~mask] = 0
    pasted, there = lay(Cutting(image, mask), seed=2)
    assert pasted.min() >= 50
    assert (pasted[~there] == 50).all()
