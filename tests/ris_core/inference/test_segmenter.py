"""How much memory what is kept of a photo takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ris_core.inference.frame import Frame
from ris_core.inference.segmenter import PreparedImage

FRAME = Frame((32, 32), (32, 32), (32, 32))


class Level(NamedTuple):
    values: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Nested(PreparedImage):
    other: PreparedImage | None = None
    kept: dict[str, object] = field(default_factory=dict)


def test_all_tensors_count_once() -> None:
    values, valid = torch.zeros(2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    assert PreparedImage([], FRAME).nbytes == 0
    assert PreparedImage([Level(values, valid)], FRAME).nbytes == 4 * 128 + 64
    # Clicks are asked of the same.
    assert PreparedImage([Level(values, valid)], FRAME, [(values,)]).nbytes == 4 * 128 + 64
    assert PreparedImage([(values.half(),)], FRAME).nbytes == 2 * 128


def test_one_of_several_counts_its_own_part() -> None:
    together = torch.zeros(4, 2, 8, 8)
    assert PreparedImage([(together[1:2],)], FRAME).nbytes == 4 * 128
    assert PreparedImage([(together[1:2],)], FRAME, [(together[2:3],)]).nbytes == 2 * 4 * 128


def test_what_a_model_adds_counts_however_it_is_nested() -> None:
    other = PreparedImage([(torch.zeros(5),)], FRAME)
    kept = {"a": torch.zeros(3), "b": [torch.zeros(2), None, "c"]}
    assert Nested([(torch.zeros(1),)], FRAME, other=other, kept=kept).nbytes == 4 * (5 + 3 + 2 + 1)
