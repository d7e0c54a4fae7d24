"""Records: what is written is read, and hosts that share them come to what one host alone would."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from version_folders import assert_whole, make_checkpoint

from backend.errors import BackendError
from backend.registry import Pointer, Registry
from backend.store import versions as shared
from backend.store.bucket import FolderBucket, StoreDamaged
from backend.store.record import Entry, Record, parse_record, project_of, record_name
from backend.store.versions import SharedRegistry
from ris_core import checkpoint_files

TEXT = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name not in (".", "..") and not set(name) & set("/\\\0"))
ENTRIES = st.builds(Entry, NAMES, st.dictionaries(NAMES, TEXT, max_size=3))
POINTERS = st.builds(
    Pointer, TEXT, st.none() | TEXT, st.lists(TEXT, max_size=3).map(tuple), st.lists(TEXT, max_size=3).map(tuple)
)
RECORDS = st.builds(
    Record, st.integers(0, 2**60), st.none() | POINTERS, st.dictionaries(NAMES, ENTRIES, max_size=3), TEXT
)


@given(RECORDS)
def test_what_is_written_is_read(record: Record) -> None:
    read = parse_record(record.as_bytes(), "x")
    assert read == record
    assert read.change == record.change
    assert list(read.versions) == list(record.versions)


@given(st.binary(max_size=60))
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(StoreDamaged, match="x isn't what"):
        parse_record(data, "x")


@given(st.integers(1, 2**31))
def test_a_records_name_tells_its_project(project: int) -> None:
    assert project_of(record_name(project)) == project


@pytest.mark.parametrize("name", ["records/x.json", "records/7", "records/07.json", "records/7.json/x", "7.json", ""])
def test_other_objects_are_nobodys_record(name: str) -> None:
    assert project_of(name) is None


# What is done by which host: add a checkpoint, promote it, go back, prune.
MOVES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["add", "promote", "rollback", "prune"]), st.sampled_from("wxyz")),
    max_size=14,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {letter: make_checkpoint(root / letter, letter) for letter in ("shipped", *"wxyz")}


def done(registry: Registry, move: str, checkpoint: Path) -> object:
    """What comes of a move: a version's name, those that are pruned, or the kind of error."""
    try:
        if move == "add":
            return registry.add(7, checkpoint, {}).name
        if move == "promote":
            return registry.promote(7, checkpoint_files.version(checkpoint)).name
        if move == "rollback":
            return registry.rollback(7).name
        return [version.name for version in registry.prune(7, 1)]
    except BackendError as error:
        return type(error)


@settings(max_examples=12, deadline=None)
@given(MOVES)
def test_two_hosts_come_to_what_one_would(checkpoints: dict[str, Path], moves: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "FRESH_SECONDS", 0.0)
        root = Path(folder)
        (root / "share").mkdir()
        bucket = FolderBucket(root / "share")
        hosts = {name: SharedRegistry(root / name, checkpoints["shipped"], bucket) for name in "ab"}
        alone = Registry(root / "alone", checkpoints["shipped"])
        for host, move, letter in moves:
            assert done(hosts[host], move, checkpoints[letter]) == done(alone, move, checkpoints[letter])
            expected = alone.read(7)
            for registry in hosts.values():
                read = registry.read(7)
                assert (read.production, read.served, read.earlier) == (
                    expected.production,
                    expected.served,
                    expected.earlier,
                )
                assert [version.name for version in read.versions] == [version.name for version in expected.versions]
                assert (registry.previous(7) and registry.previous(7).name) == (  # type: ignore[union-attr]
                    alone.previous(7) and alone.previous(7).name  # type: ignore[union-attr]
                )
                assert read.start.name == expected.start.name
                assert_whole(read.current.folder, read.production)
