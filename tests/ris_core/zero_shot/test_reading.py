import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ris_core.inference.frame import Frame
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.zero_shot.network import Found
from ris_core.zero_shot.reading import Things, pointed_part, read

STRETCHED = Frame((64, 64), (64, 64), (50, 120))
FITTED = Frame((64, 64), (27, 64), (50, 120))


def found(masks: torch.Tensor, scores: list[float], apart: bool = True, qualities: list[float] | None = None) -> Found:
    return Found(
        masks, torch.tensor(scores), torch.tensor(qualities or [1.0] * len(scores)), max(scores, default=0.2), apart
    )


def filled(frame: Frame, *boxes: tuple[float, float, float, float]) -> torch.Tensor:
    """(K, 32, 32) logits of boxes, each in shares of the photo."""
    masks = torch.full((len(boxes), 32, 32), -8.0)
    rows, columns = (length / canvas * 32 for length, canvas in zip(frame.inner, frame.canvas, strict=True))
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)] = 8.0
    return masks


@pytest.mark.parametrize("frame", [STRETCHED, FITTED])
def test_what_was_found_lies_where_it_is_in_the_photo(frame: Frame) -> None:
    raw = read(found(filled(frame, (0.25, 0.5, 0.75, 1.0)), [0.9]), frame, 0.5)
    expected = np.zeros((50, 120), bool)
    expected[25:, 30:90] = True
    assert ((raw.probability >= 0.5) ^ expected).mean() < 0.03
    assert raw.presence == pytest.approx(0.9) and len(raw.things) == 1


def test_one_thing_found_twice_is_one_thing() -> None:
    masks = filled(STRETCHED, (0.1, 0.1, 0.5, 0.9), (0.1, 0.1, 0.5, 0.9), (0.6, 0.1, 0.9, 0.9))
    raw = read(found(masks, [0.5, 0.8, 0.6]), STRETCHED, 0.5)
    assert len(raw.things) == 2
    # The surest first.
    assert raw.things[0][25, 30] and raw.things[1][25, 90]


def test_nothing_and_things_without_a_pixel() -> None:
    raw = read(found(torch.zeros(0, 1, 1), []), STRETCHED, 0.5)
    assert (raw.presence, raw.quality, len(raw.things)) == (0.2, 0.0, 0) and raw.probability.shape == (50, 120)
    raw = read(found(torch.full((2, 8, 8), -5.0), [0.9, 0.8]), STRETCHED, 0.5)
    assert not raw.probability.any() and not len(raw.things) and raw.quality == 0.0


def test_a_map_has_no_things() -> None:
    raw = read(found(filled(STRETCHED, (0, 0, 0.5, 1)), [0.7], apart=False), STRETCHED, 0.5)
    assert len(raw.things) == 0 and raw.probability[:, :55].min() > 0.9


def test_quality_is_that_of_the_surest_if_anything_is_there() -> None:
    masks = filled(STRETCHED, (0, 0, 0.4, 1), (0.5, 0, 1, 1))
    assert read(found(masks, [0.5, 0.9], qualities=[0.9, 0.6]), STRETCHED, 0.5).quality == pytest.approx(0.6)
    assert read(found(masks, [1.0, 0.9], qualities=[1.2, 0.6]), STRETCHED, 0.5).quality == 1.0
    nothing = found(masks, [0.0, 0.0])
    assert read(nothing, STRETCHED, 0.5).quality == 0.0


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 2**31),
    st.sampled_from([STRETCHED, FITTED, Frame((64, 64), (64, 20), (300, 97)), Frame((64, 64), (1, 64), (1, 90))]),
    st.sampled_from([0.3, 0.5, 0.7]),
)
def test_things_are_disjoint_and_make_up_the_mask(count: int, seed: int, frame: Frame, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 4
    masks = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")[:, 0]
    scores = torch.rand(count, generator=generator).tolist()
    raw = read(found(masks, scores), frame, threshold)
    counts = sum((thing.astype(int) for thing in raw.things), np.zeros(frame.size, int))
    assert np.array_equal(counts, (raw.probability >= threshold).astype(int))
    assert all(thing.any() and thing.dtype == np.bool_ and thing.shape == frame.size for thing in raw.things)


def test_each_pixel_belongs_to_the_thing_that_is_likeliest_there() -> None:
    generator = torch.Generator().manual_seed(1)
    masks = torch.nn.functional.interpolate(torch.randn(3, 1, 4, 4, generator=generator) * 6, size=(32, 32))[:, 0]
    raw = read(found(masks, [0.9, 0.8, 0.7]), STRETCHED, 0.5)
    full = np.stack([cv2.resize(mask.numpy(), (120, 50), interpolation=cv2.INTER_LINEAR) for mask in masks])
    clear = (raw.probability >= 0.5) & (np.sort(full, axis=0)[-1] - np.sort(full, axis=0)[-2] > 1)
    for number, thing in enumerate(raw.things):
        assert (thing[clear] == (full.argmax(axis=0) == number)[clear]).mean() > 0.99


def test_things_are_a_sequence() -> None:
    owners = np.array([[0, 2, -1], [2, 2, 5]], np.int16)
    things = Things(owners, [2, 0, 5])
    assert len(things) == 3 and [int(thing.sum()) for thing in things] == [3, 1, 1]
    assert [int(thing.sum()) for thing in things[1:]] == [1, 1] and int(things[-1].sum()) == 1
    with pytest.raises(IndexError):
        things[3]


def said() -> RawPrediction:
    """Two things, on the left and on the right."""
    masks = filled(STRETCHED, (0.05, 0.1, 0.4, 0.9), (0.6, 0.1, 0.95, 0.9))
    return read(found(masks, [0.9, 0.8]), STRETCHED, 0.5)


@pytest.mark.parametrize(
    ("prompt", "left", "right"),
    [
        (Prompt("dog", points=[Point(0.2, 0.5)]), True, False),
        (Prompt("dog", points=[Point(0.8, 0.5), Point(0.2, 0.5, positive=False)]), False, True),
        (Prompt("dog", points=[Point(0.8, 0.5), Point(0.2, 0.5)]), True, True),
        (Prompt("dog", box=Box(0.5, 0, 1, 1)), False, True),
        (Prompt("dog", points=[Point(0.5, 0.5, positive=False)]), True, True),
    ],
)
def test_of_what_words_found_what_is_pointed_at(prompt: Prompt, left: bool, right: bool) -> None:
    part = pointed_part(prompt, said())
    assert part is not None
    assert (part[25, 25] > 0.9, part[25, 95] > 0.9) == (left, right)


@pytest.mark.parametrize(
    "prompt", [Prompt("dog", points=[Point(0.5, 0.5)]), Prompt("dog", box=Box(0.4, 0, 0.6, 1), points=[Point(1, 1)])]
)
def test_words_that_found_something_else_guide_nobody(prompt: Prompt) -> None:
    assert pointed_part(prompt, said()) is None
    assert pointed_part(prompt, RawPrediction(np.zeros((50, 120), np.float32), 0.1, 0.0)) is None
