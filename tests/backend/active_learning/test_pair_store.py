"""Pairs kept in files: the latest counts, damage costs a file, old versions go."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.active_learning.pair_store import KEPT, PairStore
from backend.active_learning.strategies import Pair

VERSION = "lda-1a2b3c4d.3fa2c1"


def pair(task: int, prompt: str = "the cat", confidence: float = 0.5, disagreement: float = 0.25) -> Pair:
    return Pair(task, prompt, confidence, disagreement, np.array([1, -0.5, 0], dtype=np.float32))


def fields(pairs: list[Pair]) -> list[tuple[int, str, float]]:
    return [(pair.task, pair.prompt, pair.confidence) for pair in pairs]


def test_what_is_kept_is_read_by_rising_task(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.keep(3, VERSION, [pair(9), pair(7, "der Hund „Rex“", 0.125, math.nan)])
    store.keep(3, VERSION, [pair(8)])
    pairs = PairStore(tmp_path).read(3, VERSION)
    assert fields(pairs) == [(7, "der Hund „Rex“", 0.125), (8, "the cat", 0.5), (9, "the cat", 0.5)]
    assert math.isnan(pairs[0].disagreement)
    assert (pairs[1].disagreement, pairs[1].embedding.dtype) == (0.25, np.float32)
    assert pairs[1].embedding.tolist() == [1, -0.5, 0]


def test_whether_a_mask_was_shown_is_kept_and_true_of_files_from_before(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.keep(7, VERSION, [replace(pair(1), shown=False), pair(2)])
    assert [one.shown for one in store.read(7, VERSION)] == [False, True]
    [file] = (tmp_path / "pairs" / "7" / VERSION).iterdir()
    with np.load(file) as content:
        arrays = {name: content[name] for name in content.files}
    np.savez(file, **arrays | {"numbers": arrays["numbers"][:, :2]})
    assert [one.shown for one in store.read(7, VERSION)] == [True, True]


def test_other_projects_and_versions_are_apart(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.keep(3, VERSION, [pair(9)])
    assert store.read(4, VERSION) == store.read(3, "lda-1a2b3c4d.000000") == []


def test_what_is_written_later_counts_for_all_of_a_task(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.keep(3, VERSION, [pair(1), pair(1, "the dog"), pair(2)])
    first = next((tmp_path / "pairs/3" / VERSION).iterdir())
    os.utime(first, (time.time() - 9, time.time() - 9))
    store.keep(3, VERSION, [pair(1, "the cup", 0.75)])
    assert fields(store.read(3, VERSION)) == [(1, "the cup", 0.75), (2, "the cat", 0.5)]


def test_a_chunk_that_is_done_again_takes_its_own_place(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    for _ in range(3):
        store.keep(3, VERSION, [pair(1), pair(2)])
    assert len(list((tmp_path / "pairs/3" / VERSION).iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"], ids=["empty", "zip", "array"])
def test_a_damaged_file_costs_its_own_tasks(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = PairStore(tmp_path)
    store.keep(3, VERSION, [pair(1)])
    damaged = next((tmp_path / "pairs/3" / VERSION).iterdir())
    store.keep(3, VERSION, [pair(2)])
    damaged.write_bytes(content)
    assert fields(store.read(3, VERSION)) == [(2, "the cat", 0.5)]
    assert "left out" in caplog.text


@pytest.mark.parametrize(("version", "kept"), [(VERSION, 1), ("haris-1a2b3c4d.3fa2c1", 0), ("vipa-1a2b3c4d.3fa2c1", 0)])
def test_of_embeddings_that_were_made_another_way_only_those_of_lda_are_read(
    tmp_path: Path, version: str, kept: int
) -> None:
    store = PairStore(tmp_path)
    store.keep(3, version, [pair(1)])
    [file] = (tmp_path / "pairs/3" / version).iterdir()
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, embedding=arrays.pop("deepest"), **arrays)
    store.keep(3, version, [pair(2)])
    assert fields(store.read(3, version)) == [(1, "the cat", 0.5), (2, "the cat", 0.5)][1 - kept :]


def test_the_last_versions_stay(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    for number in range(KEPT + 2):
        store.keep(3, f"lda-{number}", [pair(1)])
        folder = tmp_path / "pairs/3" / f"lda-{number}"
        os.utime(folder, (number, number))
    assert sorted(path.name for path in (tmp_path / "pairs/3").iterdir()) == ["lda-2", "lda-3", "lda-4"]


def test_a_disk_that_takes_nothing_costs_no_prediction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pairs").write_text("in the way")
    PairStore(tmp_path).keep(3, VERSION, [pair(1)])
    assert "isn't kept" in caplog.text


def test_writers_and_a_reader_at_once(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(store.keep, 3, VERSION, [pair(task)]) for task in range(40)]
        while not all(job.done() for job in jobs):
            assert all(kept.prompt == "the cat" for kept in store.read(3, VERSION))
    assert len(store.read(3, VERSION)) == 40
