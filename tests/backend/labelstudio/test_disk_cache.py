"""The disk cache under several writers and readers, at its limit, and on a disk that refuses."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from backend.labelstudio.disk_cache import DiskCache


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "new" / "folder", 100)
    assert cache.get("a") is None
    cache.put("a", b"one")
    assert (cache.get("a"), cache.get("b")) == (b"one", None)
    cache.put("a", b"two")
    assert cache.get("a") == b"two"


def test_names_are_full_hashes_of_any_key(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    keys = ["../../etc/passwd", "a" * 5000, "a\0b", "", "ü", "/absolute"]
    for key in keys:
        cache.put(key, key.encode()[:9])
    assert [cache.get(key) for key in keys] == [key.encode()[:9] for key in keys]
    assert all(len(path.name) == 64 for path in tmp_path.iterdir())


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 30)
    for age, key in enumerate("cba"):
        cache.put(key, bytes(10))
        path = next(path for path in tmp_path.iterdir() if time.time() - path.stat().st_mtime < 50)
        os.utime(path, (0, time.time() - 100 + age))
    assert cache.get("c") == bytes(10)
    cache.put("d", bytes(10))
    assert {key for key in "abcd" if cache.get(key)} == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 30


def test_what_is_over_the_limit_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10)
    cache.put("small", bytes(10))
    cache.put("large", bytes(11))
    assert cache.get("large") is None
    assert cache.get("small") == bytes(10)


def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".old.x", tmp_path / ".young.x"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    DiskCache(tmp_path, 100).put("a", b"one")
    assert not old.exists()
    assert young.exists()


def test_a_refusing_disk_costs_only_the_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        DiskCache(tmp_path / "file", 100).put("a", b"one")
    assert "fetched anew" in caplog.text


SIZE = 500_000


def write(folder: Path, letter: str) -> None:
    cache = DiskCache(folder, 3 * SIZE)
    for key in [0, 1, 2, 3] * 20:
        cache.put(str(key), letter.encode() * SIZE)


def test_two_writers_and_a_reader_never_see_half_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(tmp_path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    cache, seen = DiskCache(tmp_path, 3 * SIZE), set()
    while any(writer.is_alive() for writer in writers):
        for key in range(4):
            if (data := cache.get(str(key))) is not None:
                seen.add(data)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen
    assert seen <= {b"a" * SIZE, b"b" * SIZE}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * SIZE
