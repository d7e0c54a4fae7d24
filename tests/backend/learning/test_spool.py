"""The file in which events wait for Valkey: shared, bounded, and read back whole whoever is killed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.learning import events
from backend.learning.events import Entry, Spool


@pytest.fixture
def waiting(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool" / "events.jsonl")


def drained(waiting: Spool) -> list[Entry]:
    entries: list[Entry] = []
    assert waiting.drain(entries.append) == len(entries)
    return entries


def test_what_is_added_is_handed_over_once_in_its_order(waiting: Spool) -> None:
    for number in range(5):
        waiting.add({"number": number})
    assert [entry["number"] for entry in drained(waiting)] == [0, 1, 2, 3, 4]
    assert drained(waiting) == []


def test_it_is_bounded(waiting: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(events, "SPOOL_BYTES", 1000)
    for number in range(100):
        waiting.add({"number": number})
    kept = drained(waiting)
    assert 3 < len(kept) < 100
    assert kept == [{"number": number} for number in range(len(kept))]
    assert "is full: events are lost" in caplog.text


def test_threads_share_it(waiting: Spool) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: waiting.add({"number": number}), range(200)))
    assert sorted(entry["number"] for entry in drained(waiting)) == list(range(200))


def test_what_is_not_taken_is_handed_over_again_before_what_came_since(waiting: Spool) -> None:
    def fail(entry: Entry) -> None:
        raise ConnectionError

    waiting.add({"number": 1})
    with pytest.raises(ConnectionError):
        waiting.drain(fail)
    waiting.add({"number": 2})
    assert drained(waiting) == [{"number": 1}]
    assert drained(waiting) == [{"number": 2}]
