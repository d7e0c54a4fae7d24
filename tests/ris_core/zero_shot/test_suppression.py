import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ris_core.zero_shot.suppression import INSIDE, SAME, SAME_BOX, distinct, distinct_boxes


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


def test_of_boxes_that_share_nearly_all_the_surest_stays() -> None:
    sides = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 0, 30, 10]]).float()
    assert distinct_boxes(sides, torch.tensor([0.5, 0.9, 0.3, 0.7]), 64) == [1, 3, 2]
    assert distinct_boxes(sides, torch.tensor([0.5, 0.9, 0.3, 0.7]), 2) == [1, 3]
    assert distinct_boxes(torch.zeros(0, 4), torch.zeros(0), 64) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 2**31))
def test_boxes_that_stay_are_distinct_and_those_that_go_repeat_a_surer_one(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(count, 2, generator=generator)
    sides = torch.cat([near, near + 0.5 + torch.rand(count, 2, generator=generator)], dim=1)
    scores = torch.rand(count, generator=generator)
    kept = distinct_boxes(sides, scores, count + 1)

    def iou(one: int, other: int) -> float:
        low, high = torch.maximum(sides[one, :2], sides[other, :2]), torch.minimum(sides[one, 2:], sides[other, 2:])
        shared = float((high - low).clamp_min(0).prod())
        areas = [float((sides[number, 2:] - sides[number, :2]).prod()) for number in (one, other)]
        return shared / (sum(areas) - shared)

    assert all(iou(one, other) < SAME_BOX + 1e-6 for one in kept for other in kept if one != other)
    for number in set(range(count)) - set(kept):
        assert any(iou(number, other) > SAME_BOX - 1e-6 and scores[other] >= scores[number] for other in kept)
