"""A thing of another photo comes with its own names, and whatever it would make untrue goes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ris_core.data import Sample
from ris_core.masks import encode_rle
from ris_core.training.collage import Collage, CollageScene

SIZE = (80, 120)
GREY, LIGHT = 60, 220


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


DOG, CAT, PERSON, TIE = box(10, 70, 0, 60), box(20, 60, 40, 80), box(10, 70, 30, 60), box(30, 40, 40, 46)


class PhotoSamples:
    """The samples of one grey photo, which is written; called with a sentence, its kind and masks, it adds one."""

    def __init__(self, path: Path, colour: int) -> None:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), colour, np.uint8)).save(path)
        self.path, self.samples = path, []

    def __call__(self, sentence: str, kind: str, *masks: np.ndarray) -> PhotoSamples:
        number = len(self.samples) + 1
        drawn = tuple(encode_rle(mask) for mask in masks)
        self.samples.append(Sample(self.path, 1, number, "train", sentence, *SIZE, drawn, kind=kind))
        return self


@pytest.fixture
def host(tmp_path: Path) -> PhotoSamples:
    said = PhotoSamples(tmp_path / "host.png", GREY)
    said("the dog", "name", DOG)("the left dog", "derived", DOG)("two dogs", "plural", DOG)
    return said("the cat", "absent")("the cup", "absent")("the green dog", "contradicted")


@pytest.fixture
def donor(tmp_path: Path) -> PhotoSamples:
    said = PhotoSamples(tmp_path / "donor.png", LIGHT)
    return said("the cat", "name", CAT)("the kitty", "synonym", CAT)("white cat", "attribute", CAT)("the bus", "absent")


def make(host: PhotoSamples, donor: PhotoSamples, seed: int = 0) -> CollageScene | None:
    return Collage([host.samples, donor.samples]).make(host.samples, random.Random(seed))


def test_a_thing_comes_with_its_names_and_hides_what_lies_behind(host: PhotoSamples, donor: PhotoSamples) -> None:
    scene = make(host, donor)
    assert scene
    masks = {sample.sentence: sample.mask() for sample in scene.samples}
    assert list(masks) == ["the dog", "the cup", "the cat", "the kitty"]
    cat = masks["the cat"]
    assert 100 < cat.sum() < 0.36 * cat.size
    assert (masks["the kitty"] == cat).all()
    assert (masks["the dog"] == DOG & ~cat).all()
    assert not masks["the cup"].any()
    assert (scene.image[~cat] == GREY).all()
    assert (scene.image[cat] > GREY).mean() > 0.8
    names = {sample.sentence: sample for sample in scene.samples}
    assert (names["the cat"].kind, names["the kitty"].kind) == ("name", "synonym")
    assert {sample.image for sample in scene.samples} == {host.path}
    # Refs are drawn by their number, which must be another for each.
    assert len({sample.ref_id for sample in scene.samples}) == 4


def test_what_is_hidden_altogether_is_there_no_more(tmp_path: Path, donor: PhotoSamples) -> None:
    host = PhotoSamples(tmp_path / "host.png", GREY)("the ball", "name", box(39, 41, 59, 61))("the cup", "absent")
    hidden = [scene.samples[0].mask().any() for seed in range(20) if (scene := make(host, donor, seed))]
    assert len(hidden) == 20
    assert set(hidden) == {True, False}


@pytest.mark.parametrize(
    ("there", "thing"),
    [
        ("the cat", "the cat"),
        ("both cats", "the cat"),
        ("the car on the left", "the bus"),
        ("the jeans", "the pants"),
        ("the purse", "the bag"),
        ("the accessories", "the belt"),
    ],
)
def test_nothing_goes_where_it_might_be_meant(tmp_path: Path, host: PhotoSamples, there: str, thing: str) -> None:
    donor = PhotoSamples(tmp_path / "donor.png", LIGHT)(thing, "name", CAT)("the kite", "absent")
    assert make(host, donor)
    assert make(host(there, "derived", DOG), donor) is None


def test_all_that_shows_in_the_thing_counts(tmp_path: Path, host: PhotoSamples) -> None:
    donor = PhotoSamples(tmp_path / "donor.png", LIGHT)("the person", "name", PERSON)("the tie", "name", TIE)
    donor("the kite", "name", box(0, 9, 100, 120))("the bus", "absent")
    host("the tie", "absent")("the kite", "absent")
    scenes = [make(host, donor, seed) for seed in range(30)]
    said = {tuple(sample.sentence for sample in scene.samples) for scene in scenes if scene}
    kept = ("the dog", "the cat", "the cup")
    assert said == {
        (*kept, "the kite", "the person"),
        (*kept, "the kite", "the tie"),
        (*kept, "the tie", "the kite"),
    }
    worn = PhotoSamples(tmp_path / "worn.png", GREY)("the tie", "name", TIE)("the cup", "absent")
    brought = [scene.samples[-1].sentence for seed in range(30) if (scene := make(worn, donor, seed))]
    assert set(brought) == {"the kite"}


def test_of_several_things_none_is_taken(tmp_path: Path, host: PhotoSamples) -> None:
    donor = PhotoSamples(tmp_path / "donor.png", LIGHT)("the shoes", "name", CAT, box(0, 5, 0, 5))("the cup", "absent")
    assert make(host, donor) is None


def test_a_thing_stays_among_photos_of_its_dataset(tmp_path: Path, host: PhotoSamples) -> None:
    donor = PhotoSamples(tmp_path / "other" / "donor.png", LIGHT)("the cat", "name", CAT)("the cup", "absent")
    assert make(host, donor) is None


def test_photos_that_do_not_tell_kinds_stay_as_they_are(host: PhotoSamples, donor: PhotoSamples) -> None:
    for changed in (host, donor):
        kinds = [sample.kind for sample in changed.samples]
        changed.samples = [replace(sample, kind="name") for sample in changed.samples]
        assert make(host, donor) is None
        changed.samples = [replace(sample, kind=kind) for sample, kind in zip(changed.samples, kinds, strict=True)]
    assert make(host, donor)


def test_an_empty_mask_is_no_thing(tmp_path: Path, host: PhotoSamples) -> None:
    donor = PhotoSamples(tmp_path / "donor.png", LIGHT)("the cat", "name", box(0, 0, 0, 0))("the cup", "absent")
    assert make(host, donor) is None


def test_the_same_randomness_gives_the_same(host: PhotoSamples, donor: PhotoSamples) -> None:
    one, again, other = (make(host, donor, seed) for seed in (1, 1, 2))
    assert one and again and other
    assert (one.image == again.image).all()
    assert (one.image != other.image).any()
