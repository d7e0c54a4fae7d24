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
from ris_core.data.batches import Batch, Draw, count_batches, epoch
from ris_core.masks import encode_rle


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Five photos with a named thing, two sentences of a derived one, and an absent one each."""
    found = []
    for number in range(5):
        height, width = (64, 96) if number else (96, 64)
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (width, height), (number * 40, 80, 120)).save(path)
        mask = np.zeros((height, width), bool)
        mask[10:50, 10:50] = True
        common = {"image": path, "image_id": number, "split": "train", "height": height, "width": width}
        there = {"segmentations": (encode_rle(mask),)}
        found += [
            Sample(**common, **there, ref_id=10 * number, sentence="the square"),
            Sample(**common, **there, ref_id=10 * number + 1, sentence="the left square", kind="derived"),
            Sample(**common, **there, ref_id=10 * number + 1, sentence="leftmost square", kind="derived"),
            Sample(**common, segmentations=(), ref_id=10 * number + 2, sentence="the cat", kind="absent"),
        ]
    return found


def passes(samples: list[Sample], count: int, **options: object) -> list[Batch]:
    draw = Draw(**({"side": 96, "photos": 2, "present": 1, "absent": 1} | options))
    return [batch for number in range(count) for batch in epoch(samples, draw, number=number)]


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
            for batch in epoch(samples, Draw(96, 1, 1, 0, 2), number=n)
            for tensor in batch.pixels
        }
        for n in range(4)
    ]
    assert shown[0] == shown[2] != shown[1] == shown[3]


def test_refs_are_drawn_before_sentences(samples: list[Sample]) -> None:
    said = Counter(
        "square" if sentence.endswith("square") and "most" not in sentence and "left" not in sentence else "derived"
        for batch in passes(samples, 60, absent=0)
        for sentence in (each.replace("right", "left") for each in batch.sentences)
    )
    # It has two sentences, and is out of the draw wherever the view crops: less than half, not two thirds.
    assert 0.05 < said["derived"] / said.total() < 0.5


def test_only_names_lose_their_article(samples: list[Sample]) -> None:
    said = {sentence for batch in passes(samples, 40, present=2) for sentence in batch.sentences}
    assert {"square", "a square", "all of the square", "the square"} <= said
    derived = {sentence for sentence in said if "left" in sentence or "right" in sentence}
    assert derived == {"the left square", "the right square", "leftmost square", "rightmost square"}


def test_processes_share_a_batch(samples: list[Sample]) -> None:
    draw = Draw(96, 2, 1, 1)
    whole = list(epoch(samples, draw, number=0))
    parts = [list(epoch(samples, draw, number=0, part=(rank, 2))) for rank in range(2)]
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
