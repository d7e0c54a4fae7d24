"""Trunks come back as they went, under a name that covers all that shaped them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from models.encoders import Small
from PIL import Image

from ris_core.encoders import image_encoder
from ris_core.encoders.adapters import tune
from ris_core.encoders.base import ImageEncoder, Trunk
from ris_core.training.augment import View, fit_view
from ris_core.training.feature_cache import FeatureCache, join_trunks, prune
from ris_core.tuning import Tuning


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((60, 40), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def view(seed: int = 0) -> View:
    return fit_view((40, 60), (64, 96), random.Random(seed))


def assert_alike(one: Trunk, other: Trunk) -> None:
    for ours, theirs in zip(one.levels, other.levels, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert torch.allclose(one.state, other.state, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_a_trunk_comes_back(stages: int, photo: Path, tmp_path: Path) -> None:
    encoder: ImageEncoder = image_encoder("efficientnet-lite0")
    if stages:
        encoder = tune(encoder, Tuning("adapters", stages))
    cache, pixels = FeatureCache(tmp_path / "cache", encoder), torch.rand(2, 3, 64, 96) * 255
    with torch.no_grad():
        trunks = [encoder.trunk(photo_pixels[None]) for photo_pixels in pixels]
        for number, trunk in enumerate(trunks):
            cache.write(cache.key(photo, view(number)), trunk)
        back = [cache.read(cache.key(photo, view(number))) for number in range(2)]
        for made, read in zip(trunks, back, strict=True):
            assert read is not None
            assert_alike(made, read)
        for ours, theirs in zip(encoder(pixels), encoder.tail(join_trunks(back)), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2)


def test_the_key_covers_photo_view_frozen_weights_and_precision(photo: Path, tmp_path: Path) -> None:
    encoder = Small()
    cache = FeatureCache(tmp_path, encoder)
    keys = [cache.key(photo, view(seed)) for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    other = tmp_path / "other.png"
    Image.new("RGB", (60, 40)).save(other)
    keys.append(cache.key(other, view()))
    for weight in (encoder.patches.weight, encoder.stages[2][0].weight):
        with torch.no_grad():
            weight.view(-1)[0] += 1e-3
        keys.append(FeatureCache(tmp_path, encoder).key(photo, view()))
    # A stage that isn't frozen shapes no trunk.
    encoder.stages[2].requires_grad_(True)
    before = FeatureCache(tmp_path, encoder).key(photo, view())
    with torch.no_grad():
        encoder.stages[2][0].weight.view(-1)[0] += 1e-3
    assert FeatureCache(tmp_path, encoder).key(photo, view()) == before
    keys.append(FeatureCache(tmp_path, encoder, precision="bfloat16").key(photo, view()))
    assert len(set(keys)) == 6


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_as_good_as_none(damage: bytes | None, photo: Path, tmp_path: Path) -> None:
    encoder = Small()
    cache = FeatureCache(tmp_path / "cache", encoder)
    key = cache.key(photo, view())
    assert cache.read(key) is None
    cache.write(key, encoder.trunk(torch.rand(1, 3, 64, 96)))
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert cache.read(key) is None


def fill(cache: FeatureCache, photo: Path, seeds: range) -> None:
    for seed in seeds:
        cache.write(cache.key(photo, view(seed)), Small().trunk(torch.rand(1, 3, 64, 96)))


def are_kept(cache: FeatureCache, photo: Path, seeds: range) -> list[bool]:
    return [cache.read(cache.key(photo, view(seed))) is not None for seed in seeds]


def test_a_full_cache_is_not_added_to(photo: Path, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "cache", Small()
    fill(FeatureCache(folder, encoder), photo, range(1))
    size = prune(folder, 10**9)
    cache = FeatureCache(folder, encoder, 4 * size)
    trunk = encoder.trunk(torch.rand(1, 3, 64, 96))
    fill(cache, photo, range(1, 6))
    assert are_kept(cache, photo, range(6)) == [True] * 4 + [False] * 2
    # What isn't kept is as what is.
    assert_same(cache.write(cache.key(photo, view(9)), trunk), FeatureCache(folder, encoder).write("key", trunk))


def assert_same(one: Trunk, other: Trunk) -> None:
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.levels, other.levels, strict=True))


def test_what_was_read_longest_ago_makes_room(photo: Path, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "cache", Small()
    cache = FeatureCache(folder, encoder)
    fill(cache, photo, range(4))
    for age, path in enumerate(sorted(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, ns=(age, age))
    assert are_kept(cache, photo, range(1)) == [True]
    size = prune(folder, 10**9)
    # Half of the room is made at once.
    cache = FeatureCache(folder, encoder, size)
    assert are_kept(cache, photo, range(4)) == [True, False, False, True]
    assert prune(folder, 0) == 0
    assert prune(tmp_path / "none", 0) == 0
