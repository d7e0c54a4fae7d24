import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ris_core.zero_shot.suppression import INSIDE, SAME, distinct


def boxes(*sides: tuple[int, int, int, int]) -> torch.Tensor:
    masks = torch.zeros(len(sides), 20, 20, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, sides, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_of_two_boxes_on_one_thing_the_surer_stays() -> None:
    masks = boxes((0, 0, 10, 10), (0, 0, 10, 10), (12, 12, 20, 20))
    assert distinct(masks, torch.tensor([0.4, 0.9, 0.5])) == [1, 2]


def test_a_part_of_a_surer_thing_goes_but_a_surer_part_stays() -> None:
    masks = boxes((0, 0, 16, 16), (2, 2, 6, 6))
    assert distinct(masks, torch.tensor([0.9, 0.5])) == [0]
    assert distinct(masks, torch.tensor([0.5, 0.9])) == [1, 0]


def test_things_that_touch_both_stay() -> None:
    assert distinct(boxes((0, 0, 10, 10), (10, 0, 20, 10)), torch.tensor([0.6, 0.6])) == [0, 1]


def test_nothing_and_empty_masks() -> None:
    assert distinct(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0)) == []
    assert distinct(torch.zeros(2, 4, 4, dtype=torch.bool), torch.ones(2)) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 90), st.integers(0, 2**31))
def test_what_stays_is_distinct_and_what_goes_is_repeated(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 6, 6, generator=generator) > 0.6
    scores = torch.rand(count, generator=generator)
    kept = distinct(masks, scores)
    assert [float(scores[number]) for number in kept] == sorted((float(scores[n]) for n in kept), reverse=True)

    def repeats(number: int, other: int) -> bool:
        shared = int((masks[number] & masks[other]).sum())
        union = int((masks[number] | masks[other]).sum())
        return shared >= SAME * union or shared >= INSIDE * int(masks[number].sum())

    for place, number in enumerate(kept):
        assert not any(repeats(number, other) for other in kept[:place])
    for number in set(range(count)) - set(kept):
        surer = [other for other in kept if scores[other] >= scores[number]]
        assert not masks[number].any() or any(repeats(number, other) for other in surer)
