"""A listener: blind to padding and to the order of candidates, aware of places, the same after saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ris_core.encoders.base import TextFeatures
from ris_core.errors import CheckpointError
from ris_core.models.listener import (
    FEATURES,
    PAIR_FEATURES,
    Listener,
    ListenerOptions,
    describe,
    describe_pairs,
    load,
    save,
)

BOXES = torch.tensor([[[0.0, 0.2, 0.3, 0.9], [0.4, 0.1, 0.6, 0.8], [0.7, 0.3, 1.0, 0.6]]])
NONE = torch.zeros(1, 3, dtype=torch.bool)


@pytest.fixture
def listener() -> Listener:
    torch.manual_seed(0)
    return Listener(ListenerOptions(text_width=12, width=16, heads=2)).eval()


def text(count: int = 1, length: int = 4) -> TextFeatures:
    torch.manual_seed(1)
    words = torch.randn(1, length, 12).expand(count, -1, -1)
    return TextFeatures(words, torch.zeros(count, length, dtype=torch.bool), words.mean(1))


@torch.inference_mode()
def test_candidates_may_come_in_any_order(listener: Listener) -> None:
    order = torch.tensor([2, 0, 1])
    one, other = listener(BOXES, NONE, text()), listener(BOXES[:, order], NONE, text())
    assert torch.allclose(one.meant[:, order], other.meant, atol=1e-5)
    assert torch.allclose(one.every, other.every)


@torch.inference_mode()
def test_padding_changes_nothing(listener: Listener) -> None:
    boxes = torch.cat([BOXES, torch.full((1, 2, 4), 0.77)], dim=1)
    absent = torch.tensor([[False, False, False, True, True]])
    padded = TextFeatures(
        torch.cat([text().words, torch.full((1, 3, 12), 9.0)], dim=1),
        torch.tensor([[False] * 4 + [True] * 3]),
        text().sentence,
    )
    alone, beside = listener(BOXES, NONE, text()), listener(boxes, absent, padded)
    assert torch.allclose(alone.meant, beside.meant[:, :3], atol=1e-5)
    assert beside.meant[0, 3:].tolist() == [-torch.inf] * 2
    assert torch.allclose(alone.every, beside.every, atol=1e-5)


@torch.inference_mode()
def test_a_lone_candidate_has_a_score(listener: Listener) -> None:
    assert listener(BOXES[:, :1], NONE[:, :1], text()).meant.isfinite().all()


def test_ranks_and_edges_are_told() -> None:
    features = describe(BOXES, NONE)[0]
    assert features.shape == (3, FEATURES)
    assert features[:, 10].tolist() == [1, 0, 0]
    assert features[:, 12].tolist() == [0, 0, 1]
    ranks = features[:, 18:].reshape(3, 7, 6).argmax(dim=2)
    assert ranks[:, 0].tolist() == [0, 1, 2]
    assert ranks[:, 1].tolist() == [2, 1, 0]
    assert ranks[:, 4].tolist() == [0, 1, 2]
    assert ranks[:, 6].tolist() == [2, 2, 2]


def test_pairs_are_told_from_the_first_of_them() -> None:
    pairs = describe_pairs(BOXES)
    assert pairs.shape == (1, 3, 3, PAIR_FEATURES)
    assert pairs[0, 0, 2, 0] > 0 > pairs[0, 2, 0, 0]
    assert torch.allclose(pairs[0, :, :, -1].diagonal(), torch.ones(3), atol=1e-5)


@torch.inference_mode()
def test_it_is_the_same_after_saving(listener: Listener, tmp_path: Path) -> None:
    save(listener, tmp_path / "saved", "# card")
    read = load(tmp_path / "saved")
    assert read.options == listener.options
    assert torch.allclose(read(BOXES, NONE, text()).meant, listener(BOXES, NONE, text()).meant, atol=2e-2)


def test_a_damaged_or_missing_listener_is_said(listener: Listener, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no listener"):
        load(tmp_path)
    save(listener, tmp_path / "saved", "# card")
    weights = tmp_path / "saved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "saved")
