"""What a pass draws: fairly, repeatably, and nothing that its view makes untrue."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ris_core.data import Sample
from ris_core.masks import encode_rle
from ris_core.training.batches import TrainingBatch, count_batches, epoch_batches
from ris_core.training.recipe import Recipe


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Five photos with a named thing, two sentences of a derived one, and an absent one each."""
    samples = []
    for number in range(5):
        height, width = (64, 96) if number else (96, 64)
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (width, height), (number * 40, 80, 120)).save(path)
        mask = np.zeros((height, width), bool)
        mask[10:50, 10:50] = True
        common = {"image": path, "image_id": number, "split": "train", "height": height, "width": width}
        there = {"segmentations": (encode_rle(mask),)}
        samples += [
            Sample(**common, **there, ref_id=10 * number, sentence="the square"),
            Sample(**common, **there, ref_id=10 * number + 1, sentence="the left square", kind="derived"),
            Sample(**common, **there, ref_id=10 * number + 1, sentence="leftmost square", kind="derived"),
            Sample(**common, segmentations=(), ref_id=10 * number + 2, sentence="the cat", kind="absent"),
        ]
    return samples


PAIRS = Recipe(side=96, photos=2, present=1, absent=1)
TARGETS = replace(PAIRS, absent=0)


def passes(samples: list[Sample], count: int, **options: object) -> list[TrainingBatch]:
    recipe = replace(PAIRS, **options)
    return [batch for number in range(count) for batch in epoch_batches(samples, recipe, number)]


def test_every_photo_once_a_pass_in_batches_of_one_orientation(samples: list[Sample]) -> None:
    batches = passes(samples, 1)
    assert len(batches) == count_batches(samples, 2) == 3
    assert sorted(len(batch.valid) for batch in batches) == [1, 2, 2]
    assert all(batch.valid.shape[-2:] in {(64, 96), (96, 64)} for batch in batches)
    assert all(batch.index.tolist() == [n // 2 for n in range(len(batch.sentences))] for batch in batches)


def test_the_same_pass_is_the_same(samples: list[Sample]) -> None:
    first, second = passes(samples, 2), passes(samples, 2)
    for one, other in zip(first, second, strict=True):
        assert one.sentences == other.sentences
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.targets, other.targets)


def test_views_take_turns(samples: list[Sample]) -> None:
    shown = [
        {
            tensor.numpy().tobytes()
            for batch in epoch_batches(samples, replace(TARGETS, photos=1, views=2), number=n)
            for tensor in batch.pixels
        }
        for n in range(4)
    ]
    assert shown[0] == shown[2] != shown[1] == shown[3]


def test_refs_are_drawn_before_sentences(samples: list[Sample]) -> None:
    said = Counter(
        "square" if sentence.endswith("square") and "most" not in sentence and "left" not in sentence else "derived"
        for batch in passes(samples, 60, absent=0)
        for sentence in (said.replace("right", "left") for said in batch.sentences)
    )
    # It has two sentences, and is out of the draw wherever the view crops: less than half, not two thirds.
    assert 0.05 < said["derived"] / said.total() < 0.5


def test_only_names_lose_their_article(samples: list[Sample]) -> None:
    said = {sentence for batch in passes(samples, 40, present=2) for sentence in batch.sentences}
    assert {"square", "a square", "all of the square", "the square"} <= said
    derived = {sentence for sentence in said if "left" in sentence or "right" in sentence}
    assert derived == {"the left square", "the right square", "leftmost square", "rightmost square"}


def test_processes_share_a_batch(samples: list[Sample]) -> None:
    whole = list(epoch_batches(samples, PAIRS, number=0))
    parts = [list(epoch_batches(samples, PAIRS, number=0, part=(rank, 2))) for rank in range(2)]
    # A photo alone in its batch would leave a process without one.
    assert [len(part) for part in parts] == [2, 2] == [count_batches(samples, 2, 2)] * 2
    shared = [batch for batch in whole if len(batch.valid) == 2]
    for batch, first, second in zip(shared, *parts, strict=True):
        assert batch.sentences == first.sentences + second.sentences


def test_a_photo_without_anything_drawn_is_kept(samples: list[Sample]) -> None:
    none = [replace(sample, kind="derived") for sample in samples if sample.has_target]
    batches = passes(none, 8)
    assert any(len(batch.sentences) < len(batch.valid) for batch in batches)
    assert all(len(batch.targets) == len(batch.sentences) == len(batch.present) for batch in batches)


@pytest.fixture
def discs(samples: list[Sample]) -> list[Sample]:
    """The same photos, each with a class of its own, so that any may be pasted onto any other."""
    names = ("bus", "cat", "kite", "cup", "tie")
    return [replace(sample, sentence=sample.sentence.replace("square", names[sample.image_id])) for sample in samples]


def test_pasted_things_are_spoken_of(discs: list[Sample]) -> None:
    plain, pasted = (passes(discs, 20, photos=1, present=9, paste=chance) for chance in (0, 1))
    for one, other in zip(plain, pasted, strict=True):
        assert torch.equal(one.valid, other.valid)
        # All of them are in it: the photo's own thing and the one laid over it, each in one of two words at most.
        assert not torch.equal(one.pixels, other.pixels)
        names = {sentence.split()[-1] for sentence, there in zip(other.sentences, other.present, strict=True) if there}
        assert len(names) <= 2
    spoken = [{sentence.split()[-1] for sentence in batch.sentences} for batch in pasted]
    assert sum(len(names) >= 2 for names in spoken) == len(pasted)
    # What lies behind is hidden: no cell is of both.
    for batch in pasted:
        together = batch.targets.flatten(1)[batch.present > 0]
        if len(together) == 2:
            assert (together.sum(dim=0) <= 1.3).all()


def test_pasting_now_and_then_is_repeatable_and_off_changes_nothing(discs: list[Sample]) -> None:
    usual, never, half, again = (passes(discs, 4, **options) for options in ({}, {"paste": 0.0}, *[{"paste": 0.5}] * 2))
    for one, other in (*zip(usual, never, strict=True), *zip(half, again, strict=True)):
        assert one.sentences == other.sentences
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.targets, other.targets)
    changed = [not torch.equal(one.pixels, other.pixels) for one, other in zip(usual, half, strict=True)]
    assert 0 < sum(changed) < len(changed)


def test_workers_paste_alike(discs: list[Sample]) -> None:
    recipe = replace(PAIRS, paste=1.0)
    alone, helped = (epoch_batches(discs, replace(recipe, workers=workers), number=0) for workers in (0, 1))
    for one, other in zip(alone, helped, strict=True):
        assert one.sentences == other.sentences
        assert torch.equal(one.pixels, other.pixels)


def shown(samples: list[Sample], weights: list[float], count: int) -> Counter[str]:
    """How often each photo's thing is asked for in so many passes, photos told by their number."""
    named = [replace(sample, sentence=f"thing {sample.image_id}") for sample in samples]
    passes = (epoch_batches(named, TARGETS, number=number, weights=weights) for number in range(count))
    return Counter(sentence for batches in passes for batch in batches for sentence in batch.sentences)


def test_weights_say_how_often_a_photo_is_shown(samples: list[Sample]) -> None:
    """Photo 0 is the only upright one: photos of one orientation are weighed against each other."""
    things = [sample for sample in samples if sample.sentence == "the square"]
    counts = shown(things, [1.0, 1.0, 1.0, 1.0, 3.0], 24)
    assert counts["thing 0"] == 24
    assert counts.total() == 5 * 24
    assert counts["thing 4"] == pytest.approx(2 * 24, abs=3)
    assert [counts[f"thing {number}"] for number in (1, 2, 3)] == pytest.approx([16, 16, 16], abs=5)


def test_equal_weights_show_each_photo_once(samples: list[Sample]) -> None:
    things = [sample for sample in samples if sample.sentence == "the square"]
    assert set(shown(things, [0.3] * 5, 6).values()) == {6}


def test_weights_say_which_of_a_photo_is_drawn(samples: list[Sample]) -> None:
    """The derived one weighs a ninth of the plain one: of one photo, one in ten draws; and nothing is drawn twice."""
    one = [replace(sample, kind="name") for sample in samples if sample.image_id == 1]
    weights = [9.0, 1.0, 1.0, 1.0]
    batches = [
        batch
        for number in range(200)
        for batch in epoch_batches(one, replace(TARGETS, photos=1), number=number, weights=weights)
    ]
    said = Counter(
        sentence.split()[-1] if "most" not in sentence else "most" for b in batches for sentence in b.sentences
    )
    derived = sum("left" in s or "right" in s for batch in batches for s in batch.sentences)
    assert said.total() == 200
    assert derived == pytest.approx(20, abs=12)
    both = [
        b
        for number in range(20)
        for b in epoch_batches(one, replace(TARGETS, photos=1, present=2), number=number, weights=weights)
    ]
    assert all(len(batch.sentences) == 2 for batch in both)


def test_a_photo_shown_twice_is_seen_in_two_views(samples: list[Sample]) -> None:
    things = [sample for sample in samples if sample.sentence == "the square" and sample.image_id in (1, 2)]
    (batch,) = epoch_batches(things, replace(TARGETS, views=4), number=0, weights=[1e-6, 1.0])
    assert not torch.equal(*batch.pixels)
    (other,) = epoch_batches(things[1:], replace(TARGETS, views=4), number=1)
    assert torch.equal(batch.pixels[1], other.pixels[0]) or torch.equal(batch.pixels[0], other.pixels[0])


@pytest.mark.parametrize("skip", [0, 2, 3])
def test_a_pass_can_begin_later(skip: int, samples: list[Sample]) -> None:
    whole, rest = (list(epoch_batches(samples, PAIRS, number=3, skip=left_out)) for left_out in (0, skip))
    assert [batch.sentences for batch in rest] == [batch.sentences for batch in whole[skip:]]
