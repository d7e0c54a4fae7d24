"""What people say together: against votes counted here and ITK's STAPLE, by hand, and in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from annotators import Mask, box, person, thing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.datasets.annotations import Correction, DrawnObject
from backend.datasets.consensus import Method, NoConsensus, consensus
from backend.errors import BadRequest
from backend.labelstudio.regions import Shape
from ris_core.masks import iou

METHODS: tuple[Method, ...] = ("vote", "staple")
both = pytest.mark.parametrize("method", METHODS)


def said(correction: Correction) -> list[tuple[str, tuple[str, ...]]]:
    return [(expression.prompt, expression.regions) for expression in correction.expressions]


def one_object(correction: Correction) -> DrawnObject:
    (drawn,) = correction.objects
    return drawn


# ---- any people, any masks

CELLS = ((0, 0), (0, 9), (7, 0), (7, 9))
SIZE = (14, 18)


@st.composite
def people_of_a_task(draw: Any) -> list[Correction]:
    """One to four people. Each cell of the picture has a thing, which each draws roughly, or not, or mislabels."""
    shapes = [draw(arrays(np.bool_, (5, 7))) for _ in CELLS[: draw(st.integers(1, 4))]]
    people = []
    for number in draw(st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True)):
        objects = []
        for cell, ((top, left), shape) in enumerate(zip(CELLS, shapes, strict=False)):
            mask = np.zeros(SIZE, np.bool_)
            flips = draw(arrays(np.bool_, (5, 7), elements=st.sampled_from([True, *[False] * 8]), fill=st.just(False)))
            mask[top + 1 : top + 6, left + 1 : left + 8] = shape ^ flips
            label = draw(st.sampled_from(["cat", "cat", "cat", "dog", ""]))
            if label and mask.any():
                objects.append(thing(mask, label, f"region {cell}"))
        regions = [drawn.region for drawn in objects]
        sentences = draw(
            st.dictionaries(st.sampled_from(["the cat", "The Cat.", "both"]), st.sets(st.sampled_from([0, 1, 2, 3])))
        )
        spoken = {
            prompt: tuple(f"region {cell}" for cell in sorted(cells) if f"region {cell}" in regions)
            for prompt, cells in sentences.items()
        }
        if {"the cat", "The Cat."} <= spoken.keys():
            del spoken["The Cat."]
        people.append(
            person(number, *draw(st.permutations(objects)), said=spoken, lead_time=draw(st.sampled_from([None, 1.5])))
        )
    return people


def attempt(people: Sequence[Correction], method: Method) -> Correction | str:
    try:
        return consensus(people, method)
    except NoConsensus as error:
        return str(error)


@settings(deadline=None, max_examples=50)
@given(people_of_a_task(), st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_the_order_in_which_people_come_changes_nothing(people: list[Correction], method: Method, chance: Any) -> None:
    assert attempt(chance.sample(people, len(people)), method) == attempt(people, method)


def groups_of(people: Sequence[Correction]) -> list[list[tuple[int, Mask]]]:
    """By cell and label, who drew it how: those that any chain of masks with an IoU above one half joins."""
    groups = []
    for cell in range(len(CELLS)):
        for label in ("cat", "dog"):
            left = [
                (one.annotation, drawn.mask())
                for one in people
                for drawn in one.objects
                if drawn.region == f"region {cell}" and drawn.label == label
            ]
            while left:
                group = [left.pop()]
                while near := [one for one in left if any(iou(one[1], other[1]) > 0.5 for other in group)]:
                    group += near
                    left = [one for one in left if not any(one is other for other in near)]
                groups.append(sorted(group, key=lambda pair: pair[0]))
    return groups


def probability(masks: Sequence[Mask]) -> np.ndarray:
    """ITK's STAPLE over the box around the masks, with half of its sides all around."""
    union = np.any(masks, axis=0)
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = union[box].shape
    # Sides that are odd have half a pixel of margin; two even ones hold as many boxes.
    padded = [np.pad(mask[box], ((0, height), (0, width))) for mask in masks]
    reference = sitk.STAPLEImageFilter()
    reference.SetForegroundValue(1)
    reference.SetMaximumIterations(10_000)
    answer = reference.Execute([sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in padded])
    whole = np.zeros(union.shape)
    whole[box] = sitk.GetArrayFromImage(answer)[:height, :width]
    return whole


def fused(people: Sequence[Correction], method: Method) -> dict[tuple[int, ...], list[tuple[Mask, Mask]]]:
    """By sources, the masks that should come of it, and where that is certain."""
    expected: dict[tuple[int, ...], list[tuple[Mask, Mask]]] = {}
    for group in groups_of(people):
        masks = [mask for _, mask in group]
        if len(group) <= len(people) / 2:
            continue
        if method == "vote":
            mask, certain = np.sum(masks, axis=0) > len(people) / 2, np.ones(SIZE, np.bool_)
        else:
            truth = probability(masks)
            mask, certain = truth > 0.5, np.abs(truth - 0.5) > 0.01
        if mask.any():
            expected.setdefault(tuple(number for number, _ in group), []).append((mask, certain))
    return expected


@settings(deadline=None, max_examples=50)
@given(people_of_a_task().filter(lambda people: len(people) > 1), st.sampled_from(METHODS))
def test_what_most_drew_is_fused_and_nothing_else(people: list[Correction], method: Method) -> None:
    expected = fused(people, method)
    try:
        result = consensus(people, method)
    except NoConsensus:
        assert not expected or method == "staple"
        return
    for drawn in result.objects:
        fitting = [
            (mask, certain)
            for mask, certain in expected[drawn.sources]
            if np.array_equal(drawn.mask() & certain, mask & certain)
        ]
        assert fitting
        assert drawn.mask().any()
    if method == "vote":
        assert len(result.objects) == sum(map(len, expected.values()))
    assert len({drawn.region for drawn in result.objects}) == len(result.objects)


@settings(deadline=None, max_examples=50)
@given(people_of_a_task().filter(lambda people: len(people) > 1), st.sampled_from(METHODS))
def test_every_sentence_and_object_is_kept_or_remarked_on(people: list[Correction], method: Method) -> None:
    try:
        result = consensus(people, method)
    except NoConsensus:
        return
    kept = {drawn.region for drawn in result.objects}
    assert all(set(expression.regions) <= kept for expression in result.expressions)
    sentences = {expression.cleaned for one in people for expression in one.expressions}
    answered = {expression.cleaned for expression in result.expressions}
    assert len(answered) == len(result.expressions)
    assert answered | {prompt.lower().strip(".") for prompt in result.unanswered} == sentences
    left_out = len(groups_of(people)) - len(result.objects) + len(sentences - answered)
    assert len(result.remarks) == left_out
    assert (result.annotation, result.completed_by, result.ground_truth) == (
        min(one.annotation for one in people),
        None,
        False,
    )
    assert result.lead_time == (sum(one.lead_time or 0 for one in people) or None)


@settings(deadline=None, max_examples=50)
@given(people_of_a_task(), st.integers(2, 4), st.sampled_from(METHODS))
def test_people_who_say_the_same_are_all_right(people: list[Correction], count: int, method: Method) -> None:
    alike = [replace(people[0], annotation=number) for number in range(1, count + 1)]
    result = consensus(alike, method)
    meant = [(expression.prompt, set(expression.regions)) for expression in people[0].expressions]
    assert [(expression.prompt, set(expression.regions)) for expression in result.expressions] == meant
    assert [(drawn.region, drawn.label, drawn.rle) for drawn in result.objects] == [
        (drawn.region, drawn.label, drawn.rle) for drawn in people[0].objects
    ]
    assert all(drawn.sources == tuple(range(1, count + 1)) for drawn in result.objects)
    assert result.remarks == ()


@settings(deadline=None, max_examples=20)
@given(people_of_a_task(), st.sampled_from(METHODS))
def test_one_person_alone_is_right(people: list[Correction], method: Method) -> None:
    assert consensus(people[:1], method) == people[0]


# ---- masks


@both
def test_of_two_people_what_both_drew_counts(method: Method) -> None:
    people = [person(1, thing(box(2, 2, 12, 12), region="a")), person(2, thing(box(4, 2, 14, 12), region="b"))]
    drawn = one_object(consensus(people, method))
    assert np.array_equal(drawn.mask(), box(4, 2, 12, 12))
    assert (drawn.region, drawn.sources) == ("a", (1, 2))


@both
def test_what_one_of_two_drew_beyond_the_other_does_not_count(method: Method) -> None:
    """STAPLE gives that a probability of 0.5 but for its rounding, which isn't to decide."""
    for width in range(10, 18):
        people = [person(1, thing(box(0, 0, 9, 18))), person(2, thing(box(0, 0, 9, width)))]
        assert np.array_equal(one_object(consensus(people, method)).mask(), box(0, 0, 9, width))


@both
def test_what_one_of_two_drew_is_left_out_and_said_so(method: Method) -> None:
    cat, dog = thing(box(0, 0, 5, 5), region="a"), thing(box(9, 9, 15, 15), "dog", "b")
    result = consensus([person(4, cat, dog), person(2, cat)], method)
    assert [drawn.label for drawn in result.objects] == ["cat"]
    assert result.remarks == ('left out: "dog", region b of annotation 4: 1 of 2 people drew it',)


@both
def test_holes_and_parts_are_kept(method: Method) -> None:
    ring = box(1, 1, 11, 11) & ~box(4, 4, 8, 8)
    parts = box(1, 14, 11, 17) | box(1, 20, 11, 23)
    rough = [(ring, parts), (ring | box(4, 4, 5, 5), parts | box(12, 15, 13, 16)), (ring & ~box(1, 1, 2, 2), parts)]
    people = [
        person(number, *(thing(mask, region=str(place)) for place, mask in enumerate(masks)))
        for number, masks in enumerate(rough, 1)
    ]
    result = consensus(people, method)
    assert [np.array_equal(drawn.mask(), mask) for drawn, mask in zip(result.objects, (ring, parts), strict=True)] == [
        True,
        True,
    ]


def test_those_who_did_not_draw_it_vote_too() -> None:
    square = [box(0, 0, 10, 10), box(0, 0, 10, 9), box(0, 0, 9, 10)]
    people = [person(number, thing(mask)) for number, mask in enumerate(square, 1)]
    assert np.array_equal(one_object(consensus(people, "vote")).mask(), box(0, 0, 10, 9) | box(0, 0, 9, 10))
    assert np.array_equal(one_object(consensus([*people, person(4)], "vote")).mask(), box(0, 0, 9, 9))


@both
def test_half_of_four_is_not_most(method: Method) -> None:
    cat, dog = thing(box(0, 0, 9, 9)), thing(box(10, 10, 15, 15), "dog")
    people = [person(1, cat, dog), person(2, cat, dog), person(3, cat), person(4)]
    assert [(drawn.label, drawn.sources) for drawn in consensus(people, method).objects] == [("cat", (1, 2, 3))]


def test_a_thing_of_which_most_share_no_pixel_is_left_out() -> None:
    dog = thing(box(10, 0, 19, 9), "dog")
    chain = [person(number, dog, thing(box(0, left, 1, left + 10))) for number, left in enumerate(range(0, 15, 3), 1)]
    people = [*chain, *(person(number, dog) for number in range(6, 10))]
    result = consensus(people, "vote")
    assert one_object(result).label == "dog"
    assert result.remarks == (
        'left out: "cat", region r10 of annotation 1: of 9 people no more than half agree on any of its pixels',
    )
    assert [drawn.label for drawn in consensus(people[:8], "vote").objects] == ["dog"]
    assert [drawn.label for drawn in consensus(people[:7], "vote").objects] == ["dog", "cat"]


def test_staple_weighs_less_who_draws_too_much() -> None:
    cat = box(5, 5, 15, 15)
    careful, other = cat.copy(), cat.copy()
    careful[5, 5:9], other[14, 5:9] = False, False
    sloppy = [box(4, 4, 16, 17), box(4, 4, 16, 17)]
    people = [person(number, thing(mask)) for number, mask in enumerate([cat, careful, other, cat, *sloppy, cat], 1)]
    result = one_object(consensus(people, "staple"))
    assert np.array_equal(result.mask(), cat)


def test_where_in_the_picture_a_thing_lies_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    base = rng.random((9, 11)) > 0.3
    rough = [base ^ (rng.random(base.shape) > 0.9) for _ in range(3)]

    def at(top: int, left: int, size: tuple[int, int]) -> Mask:
        people = []
        for number, mask in enumerate(rough, 1):
            whole = np.zeros(size, np.bool_)
            whole[top : top + 9, left : left + 11] = mask
            people.append(person(number, thing(whole)))
        return one_object(consensus(people, "staple")).mask()[top : top + 9, left : left + 11]

    assert np.array_equal(at(0, 0, (9, 11)), at(50, 70, (300, 400)))
    assert np.array_equal(at(0, 0, (9, 11)), at(0, 389, (300, 400)))


@both
def test_a_thing_that_fills_the_picture(method: Method) -> None:
    everything = np.ones((6, 7), np.bool_)
    people = [person(number, thing(everything)) for number in (1, 2, 3)]
    assert one_object(consensus(people, method)).mask().all()


# ---- what else is said of an object


@both
def test_ids_differ_where_annotations_share_those_of_a_prediction(method: Method) -> None:
    cat, dog, cup = box(0, 0, 5, 5), box(7, 7, 12, 12), box(14, 14, 19, 19)
    first = person(1, thing(cat, region="p"), thing(cup, region="p#2"))
    second = person(2, thing(cat, region="q"), thing(dog, region="p"), thing(cup, region="r"))
    third = person(3, thing(dog, region="p"))
    result = consensus([first, second, third], method)
    assert [(drawn.region, drawn.sources) for drawn in result.objects] == [
        ("p", (1, 2)),
        ("p#2", (1, 2)),
        ("p#3", (2, 3)),
    ]


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (("manual", "manual"), "manual"),
        (("prediction", "prediction"), "prediction"),
        (("manual", "prediction"), "prediction-changed"),
        (("prediction", "prediction-changed"), "prediction-changed"),
    ],
)
def test_a_prediction_that_all_accepted_stays_one(origins: tuple[str, str], origin: str) -> None:
    people = [
        person(number, thing(box(0, 0, 5, 5), origin=how, score=0.75), parent_prediction=9)
        for number, how in enumerate(origins, 1)
    ]
    result = consensus(people, "vote")
    assert one_object(result).origin == origin
    assert one_object(result).score == (0.75 if origin == "prediction" else None)
    assert result.parent_prediction == 9
    people[1] = replace(people[1], parent_prediction=10)
    assert consensus(people, "vote").parent_prediction is None


def test_of_two_accepted_predictions_neither_stays() -> None:
    people = [
        person(1, thing(box(0, 0, 5, 5), origin="prediction")),
        person(2, thing(box(0, 0, 5, 6), origin="prediction")),
    ]
    assert one_object(consensus(people, "vote")).origin == "prediction-changed"


@pytest.mark.parametrize(("shapes", "shape"), [(("rectangle",) * 2 + ("",), "rectangle"), (("rectangle", "", ""), "")])
def test_what_most_filled_is_a_filled_shape(shapes: tuple[str, ...], shape: str) -> None:
    people = [person(number, thing(box(0, 0, 5, 5), shape=kind)) for number, kind in enumerate(shapes, 1)]
    assert one_object(consensus(people, "vote")).shape == shape


# ---- sentences

LEFT, RIGHT = thing(box(0, 0, 9, 9), region="l"), thing(box(0, 12, 9, 21), region="r")


@both
@pytest.mark.parametrize(
    ("meant", "kept"),
    [
        ([("l",), ("l",), ("r",)], ("l",)),
        ([("l", "r"), ("r", "l"), ("r",)], ("l", "r")),
        ([(), (), ("l",)], ()),
        ([("l",), ("r",), ()], None),
        ([("l",), None, None], ("l",)),
        ([("l",), ("l",), None], ("l",)),
        ([("l",), ("r",), None], None),
        ([None, (), None], ()),
    ],
)
def test_a_sentence_means_what_most_who_said_it_mean(
    method: Method, meant: list[tuple[str, ...] | None], kept: tuple[str, ...] | None
) -> None:
    people = [
        person(number, LEFT, RIGHT, said={} if regions is None else {"The cat": regions})
        for number, regions in enumerate(meant, 1)
    ]
    result = consensus(people, method)
    assert said(result) == ([] if kept is None else [("The cat", kept)])
    assert result.unanswered == (("The cat",) if kept is None else ())
    assert bool(result.remarks) == (kept is None)


def test_a_sentence_goes_with_what_it_means() -> None:
    people = [person(1, LEFT, RIGHT, said={"both": ("l", "r"), "left": ("l",)}), person(2, LEFT)]
    result = consensus(people, "vote")
    assert said(result) == [("left", ("l",))]
    assert result.unanswered == ("both",)
    assert result.remarks[1] == 'left out: "both", since not all that it means is kept'


def test_sentences_are_told_apart_as_everywhere_and_spelled_as_first_by_those_who_are_right() -> None:
    people = [
        person(1, LEFT, RIGHT, said={"the CAT?": ("r",)}),
        person(2, LEFT, RIGHT, said={"The  cat": ("l",)}, unanswered=("a cup",)),
        person(3, LEFT, RIGHT, said={"the cat.": ("l",), "A Cup": ()}),
    ]
    result = consensus(people, "vote")
    assert said(result) == [("The  cat", ("l",)), ("A Cup", ())]
    assert result.unanswered == ()


def test_an_absence_needs_no_object() -> None:
    people = [person(1, said={"a dog": ()}), person(2, said={"a dog": ()})]
    result = consensus(people, "vote")
    assert (result.objects, said(result)) == ((), [("a dog", ())])


# ---- the annotation


def test_remarks_and_shapes_of_all_are_kept() -> None:
    oval = Shape("ellipse", frozenset({"cat"}))
    people = [person(2, LEFT, remarks=("odd",), shapes=(oval,)), person(1, LEFT, shapes=(oval,))]
    result = consensus(people, "vote")
    assert (result.remarks, result.shapes) == (("annotation 2: odd",), (oval,))


@both
def test_who_annotated_another_picture_is_left_out_with_all_they_said(method: Method) -> None:
    odd = person(1, thing(np.ones((5, 6), np.bool_), region="o"), said={"the cat": ("o",)})
    result = consensus([odd, person(2, LEFT), person(3, LEFT)], method)
    assert (result.annotation, one_object(result).sources, said(result)) == (2, (2, 3), [])
    assert "annotation 1, whose masks are of another size than 24 x 20" in result.remarks[0]
    alone = consensus([odd, person(2, LEFT, remarks=("odd",))], method)
    assert alone.objects == (LEFT,)
    assert (alone.completed_by, alone.remarks[0], len(alone.remarks)) == (102, "odd", 2)


def test_where_no_annotation_is_of_one_picture_there_is_no_consensus() -> None:
    mixed = (LEFT, thing(np.ones((5, 6), np.bool_)))
    with pytest.raises(NoConsensus, match="different sizes"):
        consensus([person(1, *mixed), person(2, *mixed)], "vote")


@both
def test_people_who_agree_on_nothing_spoil_no_dataset(method: Method) -> None:
    with pytest.raises(BadRequest, match="2 people who annotated task 7 agree on nothing"):
        consensus([person(1, LEFT), person(2, RIGHT)], method)
    with pytest.raises(NoConsensus):
        consensus([person(1, LEFT), person(2)], method)


def test_people_who_saw_nothing_agree() -> None:
    result = consensus([person(1), person(2)], "vote")
    assert (result.objects, result.expressions, result.remarks) == ((), (), ())


def test_only_corrections_of_one_task_have_a_consensus() -> None:
    for corrections in ([], [person(1), person(2, task=8)], [person(1), person(1)]):
        with pytest.raises(ValueError, match="one task's annotations, each once"):
            consensus(corrections, "vote")
