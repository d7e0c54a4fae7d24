"""The prompt typed last: in Valkey or in a file, for an hour, and never at the cost of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from backend.prompts.last_prompt import SECONDS, FileLastPrompt, LastPrompt, SharedLastPrompt
from backend.queue.queue import connect


@pytest.fixture(params=["file", "valkey"])
def memory(request: pytest.FixtureRequest, tmp_path: Path, redis: Redis) -> LastPrompt:
    return FileLastPrompt(tmp_path) if request.param == "file" else SharedLastPrompt(redis)


def test_each_project_has_the_prompt_typed_last(memory: LastPrompt) -> None:
    assert memory.recall(7) is None
    memory.remember(7, "the cat")
    memory.remember(8, "das schöne Auto")
    memory.remember(7, "the dog; not the cat")
    assert (memory.recall(7), memory.recall(8), memory.recall(9)) == ("the dog; not the cat", "das schöne Auto", None)


def test_after_an_hour_it_is_forgotten(tmp_path: Path, redis: Redis) -> None:
    now = 1000.0
    memory = FileLastPrompt(tmp_path, lambda: now)
    memory.remember(7, "the cat")
    now += SECONDS - 1
    assert memory.recall(7) == "the cat"
    now += 2
    assert memory.recall(7) is None
    SharedLastPrompt(redis).remember(7, "the cat")
    assert 0 < redis.ttl("ris:typed:7") <= SECONDS


def test_without_valkey_nothing_is_remembered(caplog: pytest.LogCaptureFixture) -> None:
    memory = SharedLastPrompt(connect("redis://:secret-word@127.0.0.1:1/0"))
    memory.remember(7, "the cat")
    assert memory.recall(7) is None
    assert caplog.text.count("project 7") == 2
    assert "secret-word" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b'{"prompt": "x", "typed": "x"}', b"\xff"])
def test_a_damaged_file_counts_as_forgotten(tmp_path: Path, content: bytes) -> None:
    memory = FileLastPrompt(tmp_path)
    memory.remember(7, "the cat")
    (tmp_path / "projects" / "7.typed.json").write_bytes(content)
    assert memory.recall(7) is None
    memory.remember(7, "the dog")
    assert memory.recall(7) == "the dog"


def test_a_folder_that_takes_nothing_counts_as_forgetful(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "projects").write_text("a file where a folder should be")
    memory = FileLastPrompt(tmp_path)
    memory.remember(7, "the cat")
    assert memory.recall(7) is None
    assert "isn't kept" in caplog.text
