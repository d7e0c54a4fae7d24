"""Near duplicates: the pairs against brute force, the hash against real photos and changed copies of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from backend.datasets.dataset import DatasetImage
from backend.datasets.image_store import ImageStore, perceptual_hash
from backend.datasets.near_duplicates import (
    MAX_DISTANCE,
    NearDuplicate,
    find_near_duplicates,
    near_duplicates,
    near_pairs,
)
from backend.projects import samples
from ris_core.errors import ImageError

SPLITS = ("train", "val", "test")
Change = Callable[[Image.Image], Image.Image]


@st.composite
def crowded(draw: st.DrawFn) -> list[int]:
    """Hashes around a few centres, so that pairs lie at, below and just above any distance; some twice."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    flips = st.tuples(st.sampled_from(centres), st.sets(st.integers(0, 63), max_size=7))
    return [centre ^ sum(1 << bit for bit in bits) for centre, bits in draw(st.lists(flips, max_size=40))]


def brute_force(hashes: list[int], most: int) -> set[tuple[int, int, int]]:
    pairs = ((one, other, bin(hashes[one] ^ hashes[other]).count("1")) for one, other in every_pair(hashes))
    return {pair for pair in pairs if pair[2] <= most}


def every_pair(rows: list[int]) -> Iterator[tuple[int, int]]:
    return combinations(range(len(rows)), 2)


@given(crowded(), st.integers(0, 16))
def test_bands_miss_no_pair_and_tell_none_twice(hashes: list[int], most: int) -> None:
    pairs = [tuple(row) for chunk in near_pairs(np.array(hashes, np.uint64), most) for row in chunk.tolist()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_force(hashes, most)


def test_long_runs_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [value ^ (value << 40) for value in range(300)]
    whole = brute_force(hashes, MAX_DISTANCE)
    monkeypatch.setattr("backend.datasets.near_duplicates._CHUNK", 1000)
    pairs = [tuple(row) for chunk in near_pairs(np.array(hashes, np.uint64)) for row in chunk.tolist()]
    assert len(pairs) == len(whole)
    assert set(pairs) == whole


@given(crowded(), st.data())
def test_all_are_counted_and_the_first_are_listed(hashes: list[int], data: st.DataObject) -> None:
    splits = data.draw(st.lists(st.sampled_from(SPLITS), min_size=len(hashes), max_size=len(hashes)))
    tasks = data.draw(st.permutations(range(1, len(hashes) + 1)))
    expected = {
        NearDuplicate((tasks[low], tasks[high]), (splits[low], splits[high]), distance)
        for one, other, distance in brute_force(hashes, MAX_DISTANCE)
        for low, high in [sorted((one, other), key=lambda index: tasks[index])]
    }
    leaks = sum(pair.leaks for pair in expected)
    found = near_duplicates(tasks, splits, hashes, listed=10_000)
    assert (found.pairs, found.leaks) == (len(expected), leaks)
    in_order = sorted(expected, key=lambda pair: (not pair.leaks, pair.distance, pair.tasks))
    assert list(found.listed) == in_order
    few = near_duplicates(tasks, splits, hashes, listed=5)
    assert (few.pairs, few.leaks) == (len(expected), leaks)
    ranks = [(not pair.leaks, pair.distance) for pair in few.listed]
    assert ranks == [(not pair.leaks, pair.distance) for pair in in_order[:5]]
    assert set(few.listed) <= expected


def test_many_blank_pictures_are_counted_without_listing_them_all() -> None:
    count = 60_000
    found = near_duplicates(range(count), ["train"] * (count - 1) + ["test"], [0] * count)
    assert found.pairs == count * (count - 1) // 2
    assert found.leaks == count - 1
    assert len(found.listed) == 200
    assert all(pair.leaks for pair in found.listed)


def test_of_no_picture_and_of_one_there_is_no_pair() -> None:
    assert near_duplicates([], [], []).as_json() == {"pairs": 0, "leaks": 0, "max_distance": 8, "listed": []}
    assert near_duplicates([1], ["val"], [5]).pairs == 0


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cropped(picture: Image.Image, share: float) -> Image.Image:
    left, top = (round(side * (1 - share) / 2) for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


CHANGES: dict[str, Change] = {
    "saved anew": lambda picture: jpeg(picture, 40),
    "half size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cropped": lambda picture: cropped(picture, 0.98),
    "brightened": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "grey": lambda picture: picture.convert("L"),
    "all of it": lambda picture: jpeg(
        ImageEnhance.Brightness(cropped(picture, 0.98)).enhance(1.1).resize((400, 300)), 60
    ),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = {name: folder / name for name, _ in samples.photos()}
    for name, data in samples.photos():
        paths[name].write_bytes(data)
    return paths


def picture(number: int, path: Path, split: str) -> DatasetImage:
    return DatasetImage(number, path.name, path, 1, 1, "", split, (), ())


@pytest.mark.parametrize("change", CHANGES)
def test_copies_of_photos_are_told_and_different_photos_are_not(
    photos: dict[str, Path], tmp_path: Path, change: str
) -> None:
    images, expected = [], set()
    for number, path in enumerate(photos.values()):
        copy = tmp_path / f"{path.stem}.png"
        with Image.open(path) as photo:
            CHANGES[change](photo.convert("RGB")).save(copy)
        images += [picture(2 * number, path, "train"), picture(2 * number + 1, copy, "val")]
        expected.add((2 * number, 2 * number + 1))
    found = find_near_duplicates(images)
    assert {pair.tasks for pair in found.listed} == expected
    assert found.leaks == found.pairs == len(photos)


def test_the_store_computes_a_hash_once(photos: dict[str, Path], tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    kept = store.add(photos["chelsea.png"].read_bytes())
    value = store.perceptual_hash(kept.digest)
    assert value == perceptual_hash(photos["chelsea.png"])
    # What is kept is believed, by another store too.
    kept.path.with_suffix(".phash").write_text(f"{value ^ 1:016x}")
    kept.path.unlink()
    assert ImageStore(tmp_path).perceptual_hash(kept.digest) == value ^ 1
    with pytest.raises(ImageError, match="doesn't exist"):
        store.perceptual_hash("0" * 64)


def test_a_turned_picture_is_hashed_as_it_is_shown(photos: dict[str, Path], tmp_path: Path) -> None:
    with Image.open(photos["chelsea.png"]) as photo:
        turned, exif, buffer = photo.rotate(90, expand=True), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    turned.save(buffer, "JPEG", quality=95, exif=exif)
    store = ImageStore(tmp_path)
    kept = store.add(buffer.getvalue())
    assert (store.perceptual_hash(kept.digest) ^ perceptual_hash(photos["chelsea.png"])).bit_count() <= MAX_DISTANCE


@settings(max_examples=20)
@given(st.integers(0, 2**64 - 1))
def test_a_hash_of_any_bits_is_kept_whole(tmp_path_factory: pytest.TempPathFactory, value: int) -> None:
    store = ImageStore(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.datasets.image_store.perceptual_hash", lambda path, most: value)
        assert store.perceptual_hash("ab" * 32) == value
    assert store.perceptual_hash("ab" * 32) == value


def test_pictures_of_one_photo_in_one_split_come_after_those_that_leak(photos: dict[str, Path]) -> None:
    path = photos["coffee.png"]
    first = picture(1, path, "train")
    found = find_near_duplicates([first, replace(first, number=2), replace(first, number=3, split="test")])
    assert [(pair.tasks, pair.leaks) for pair in found.listed] == [((1, 3), True), ((2, 3), True), ((1, 2), False)]
