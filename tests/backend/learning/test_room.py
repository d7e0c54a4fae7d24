"""Memory that runs out in a training: what is tried next, and that a killed one doesn't try it all again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.learning.room import Room, in_room
from ris_core.errors import OutOfMemory
from ris_core.models import base
from ris_core.models.base import best_device


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


class Training:
    """Writes into its folder, and needs more memory than there is; attempts: photos and device of each."""

    def __init__(self, run: Path, gpu: int, cpu: int) -> None:
        self.run, self.room, self.attempts = run, {"cuda": gpu, "cpu": cpu}, list[tuple[int, str]]()

    def __call__(self, photos: int) -> str:
        device = best_device().type
        self.attempts.append((photos, device))
        assert not (self.run / "state.pt").exists()
        (self.run / "state.pt").write_text(str(photos))
        (self.run / "features").mkdir()
        if photos > self.room[device]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return f"{photos} on {device}"


def test_half_as_many_photos_are_tried_then_the_cpu(tmp_path: Path, gpu: None) -> None:
    training = Training(tmp_path, gpu=0, cpu=4)
    assert in_room(tmp_path, 8, training) == "4 on cpu"
    on_gpu = [(photos, "cuda") for photos in (8, 4, 2, 1)]
    assert training.attempts == [*on_gpu, (8, "cpu"), (4, "cpu")]
    assert best_device().type == "cuda"


def test_where_nothing_fits_torchs_own_error_is_raised(tmp_path: Path, gpu: None) -> None:
    training = Training(tmp_path, gpu=0, cpu=0)
    with pytest.raises(torch.OutOfMemoryError):
        in_room(tmp_path, 5, training)
    assert [photos for photos, _ in training.attempts] == [5, 2, 1, 5, 2, 1]


def test_what_was_found_out_outlives_a_kill(tmp_path: Path) -> None:
    first = Training(tmp_path, gpu=0, cpu=2)
    in_room(tmp_path, 8, first)
    (tmp_path / "state.pt").unlink()
    (tmp_path / "features").rmdir()
    second = Training(tmp_path, gpu=0, cpu=2)
    in_room(tmp_path, 8, second)
    assert second.attempts == [(2, "cpu")]


def test_other_errors_are_raised_at_once(tmp_path: Path) -> None:
    attempts = []

    def fail(photos: int) -> None:
        attempts.append(photos)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_room(tmp_path, 8, fail)
    assert attempts == [8]


def test_the_predictors_own_word_counts_as_torchs(tmp_path: Path) -> None:
    attempts = []

    def fail(photos: int) -> None:
        attempts.append(photos)
        raise OutOfMemory("Memory ran out on a single photo or prompt.")

    with pytest.raises(OutOfMemory):
        in_room(tmp_path, 3, fail)
    assert attempts == [3, 1]


@given(wanted=st.integers(1, 256), gpu=st.booleans(), there=st.booleans())
def test_it_comes_to_an_end(wanted: int, gpu: bool, there: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: there)
        tried, room = [], Room(wanted, gpu)
        while room:
            assert 1 <= room.photos <= wanted
            tried.append(room)
            room = room.less(wanted)
    assert len(tried) == len({*tried}) <= 2 * wanted.bit_length()


def test_without_gpu_is_this_threads_alone(gpu: None) -> None:
    with base.without_gpu():
        assert best_device().type == "cpu"
    assert best_device().type == "cuda"
