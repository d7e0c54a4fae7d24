"""Datasets alone and together: what is read, where sizes differ, and no leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from published import ref, write_grefcoco, write_refer

from ris_core.data.datasets import Datasets, differences, names_of, read_samples
from ris_core.errors import DatasetError


def test_sizes_that_differ_are_said(tmp_path: Path) -> None:
    write_refer(tmp_path, [ref(1, 1, "val", "a")])
    dataset = Path(f"refcoco/unc:{tmp_path}")
    (sample,) = samples = read_samples(dataset)
    assert sample.sentence == "a"
    assert differences(dataset, samples) == ["refcoco/unc has 1 expressions in val here, 10,834 as published."]
    assert differences(tmp_path, samples) == []


def test_names_are_told_from_what_is_said_besides(tmp_path: Path) -> None:
    write_refer(
        tmp_path, [ref(number, 1, "val", sentence) for number, sentence in enumerate(["the cat", "the cat", "dog"])]
    )
    samples = read_samples(Path(f"refcoco/unc:{tmp_path}"))
    described = replace(samples[0], sentence="the left cat", kind="derived")
    assert names_of([*samples, described]) == ("cat", "dog", "the cat")
    many = [replace(samples[0], sentence=f"name {number % 300}") for number in range(301)]
    assert "name 0" in names_of(many)
    assert len(names_of(many)) == 256


def test_nothing_to_read(tmp_path: Path) -> None:
    write_refer(tmp_path, [ref(1, 1, "train", "a")])
    dataset = Path(f"refcoco/unc:{tmp_path}")
    with pytest.raises(DatasetError, match="has no expression in split 'testB'"):
        read_samples(dataset, "testB")
    with pytest.raises(DatasetError, match="No dataset has a split val"):
        Datasets.read([dataset])


def test_several_datasets_dont_leak_and_one_stays_as_it_is(tmp_path: Path) -> None:
    overlapping = [ref(1, 1, "train", "a"), ref(2, 2, "val", "b"), ref(3, 6, "train", "c", photo=8)]
    one = Path(f"refcocog/google:{write_refer(tmp_path / 'a', overlapping, 'refcocog', 'google')}")
    two = Path(f"grefcoco/unc:{write_grefcoco(tmp_path / 'b', [ref(1, [1, 3], 'train', 'd')])}")
    alone, both = Datasets.read([one]), Datasets.read([one, two])
    assert [sample.sentence for sample in alone.training] == ["a", "c"]
    assert [sample.sentence for sample in both.training] == ["c"]
    assert [sample.sentence for sample in both.validation] == ["b"]
    assert (alone.left_out, both.left_out) == (0, 2)
