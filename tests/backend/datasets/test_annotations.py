"""Corrections: the annotation that counts, the sentence of each mask, and what is said to be absent."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from annotated import CONFIG, absent, annotation, drawn, task, typed
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from backend.datasets.annotations import Correction, Edit, chosen_annotation, read_corrections, read_task
from backend.errors import BadRequest
from backend.labelstudio import label_config
from backend.labelstudio.regions import mask_regions

MASK = np.eye(6, 8, dtype=np.bool_)
NOTHING = np.zeros((6, 8), dtype=np.bool_)


def read(*result: dict[str, Any], **data: Any) -> Correction:
    correction = read_task(task(1, annotation(1, *result), **data), CONFIG)
    assert correction is not None
    return correction


def said(correction: Correction) -> list[tuple[str, tuple[str, ...]]]:
    return [(expression.prompt, expression.regions) for expression in correction.expressions]


def test_a_mask_keeps_its_pixels_label_origin_and_sentence() -> None:
    ring = np.ones((6, 8), dtype=np.bool_)
    ring[2:4, 2:4] = False
    prediction = annotation(
        9,
        drawn("a", ring, "dog", "the Big dog", origin="prediction-changed"),
        parent_prediction=4,
        completed_by=2,
    )
    correction = read_task(task(7, prediction), CONFIG)
    assert correction is not None
    (found,) = correction.objects
    assert (correction.task, correction.annotation, correction.parent_prediction) == (7, 9, 4)
    assert (correction.completed_by, correction.image) == (2, "/data/upload/1/00000007-photo.png")
    assert (found.region, found.label, found.origin) == ("a", "big dog", "prediction-changed")
    assert np.array_equal(found.mask(), ring)
    assert said(correction) == [("the Big dog", ("a",))]
    assert correction.expressions[0].cleaned == "the big dog"


@pytest.mark.parametrize(
    ("annotations", "chosen"),
    [
        ([annotation(1), annotation(2)], 2),
        ([annotation(2), annotation(1, updated_at="2026-11-21T02:02:24Z")], 1),
        # A whole second comes without its fraction, and sorts after it as text.
        ([annotation(1, updated_at="2026-11-21T02:02:23.5Z"), annotation(2)], 1),
        ([annotation(1, ground_truth=True), annotation(2, updated_at="2027-01-01T00:00:00Z")], 1),
        ([annotation(1), annotation(2, was_cancelled=True)], 1),
        ([annotation(1, updated_at=None, created_at=None), annotation(0)], 0),
        ([annotation(1, was_cancelled=True, ground_truth=True)], None),
        ([], None),
    ],
)
def test_the_annotation_that_counts(annotations: list[dict[str, Any]], chosen: int | None) -> None:
    for order in (annotations, annotations[::-1]):
        found = chosen_annotation(order)
        assert (found and found["id"]) == chosen


def test_regions_of_one_sentence_are_one_expression() -> None:
    correction = read(
        drawn("a", MASK, "cat", "Two  cats"),
        drawn("b", MASK, "dog", "a dog"),
        drawn("c", ~MASK, "cat", "two cats"),
    )
    assert said(correction) == [("Two  cats", ("a", "c")), ("a dog", ("b",))]


def test_a_mask_drawn_by_hand_takes_the_typed_sentence() -> None:
    assert said(read(typed("a cat"), drawn("a", MASK), drawn("b", ~MASK))) == [("a cat", ("a", "b"))]


def test_sentences_that_cant_be_told_apart_are_nobodys() -> None:
    correction = read(typed("a cat", "a dog"), drawn("a", MASK), drawn("b", MASK))
    assert said(correction) == []
    assert [found.region for found in correction.objects] == ["a", "b"]


def test_the_tasks_own_sentence_is_the_last_resort() -> None:
    assert said(read(drawn("a", MASK, "cup"), prompt="a cup")) == [("a cup", ("a",))]
    assert said(read(drawn("a", MASK, "cup"), prompts=["a cup"])) == [("a cup", ("a",))]
    assert said(read(drawn("a", MASK), prompts=["a cup", "a cat"])) == []
    assert said(read(typed("a cat"), drawn("a", MASK), prompt="a cup")) == [("a cat", ("a",))]


def test_the_choice_means_that_what_was_asked_for_is_absent() -> None:
    assert said(read(typed("a unicorn"), absent())) == [("a unicorn", ())]
    assert said(read(typed("A unicorn", "a unicorn ", "a horse"), absent())) == [("A unicorn", ()), ("a horse", ())]
    assert said(read(absent(), prompts=["a cup", ""])) == [("a cup", ())]
    assert said(read(typed("a cat"), absent(), prompt="a cup")) == [("a cat", ())]
    assert said(read(absent())) == []
    # A column that only happens to be called so.
    assert said(read(absent(), prompt=3)) == []


def test_a_mask_rubbed_out_isnt_there() -> None:
    correction = read(drawn("a", NOTHING, prompt="a cat"), typed("a cat"))
    assert correction.objects == ()
    assert said(correction) == [("a cat", ())]
    assert correction.expressions[0].edit == Edit("rejected", 0.0)


def test_an_object_beside_it_doesnt_make_a_sentence_absent() -> None:
    assert said(read(typed("a unicorn", "a cat"), drawn("a", MASK, prompt="a cat"))) == [("a cat", ("a",))]


def test_labels_that_are_missing_or_gone() -> None:
    correction = read(drawn("a", MASK, ""), drawn("b", MASK, "ox"), drawn("c", MASK, "", "a dog"))
    assert [found.label for found in correction.objects] == ["unlabelled", "ox", "big dog"]
    single = label_config.parse(
        '<View><Image name="img" value="$image"/><BrushLabels name="brush" toName="img"><Label value="only"/>'
        "</BrushLabels></View>"
    )
    correction = read_task(task(1, annotation(1, drawn("a", MASK, ""))), single)
    assert correction is not None
    assert correction.objects[0].label == "only"


def test_regions_that_share_an_id_stay_apart() -> None:
    correction = read(drawn("a", MASK, prompt="a cat"), drawn("a", ~MASK, prompt="a dog"))
    assert said(correction) == [("a cat", ("a",)), ("a dog", ("a#2",))]


def test_a_bad_task_costs_that_task_alone() -> None:
    broken = drawn("a", MASK)
    broken["value"]["rle"] = broken["value"]["rle"][:9]
    corrections = read_corrections(
        [
            task(5, annotation(5, broken)),
            task(3, annotation(3), image=""),
            task(4, annotation(4, drawn("a", MASK))),
            task(2),
            task(1, annotation(1, was_cancelled=True)),
        ],
        CONFIG,
    )
    assert [item.task for item in corrections.items] == [4]
    assert [skipped.task for skipped in corrections.skipped] == [3, 5]
    assert "Region a" in corrections.skipped[1].reason
    with pytest.raises(BadRequest, match='Task 3 has no "image"'):
        read_task(task(3, annotation(3), image=""), CONFIG)


def test_the_order_of_the_api_doesnt_matter() -> None:
    tasks = [task(number, annotation(number, drawn("a", MASK, prompt="a cat"))) for number in range(20)]
    shuffled = random.Random(1).sample(tasks, len(tasks))
    assert read_corrections(shuffled, CONFIG) == read_corrections(json.loads(json.dumps(tasks)), CONFIG)


BOXES = (
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<RectangleLabels name="box" toName="img"><Label value="cat"/></RectangleLabels></View>'
)
BOTH = BOXES.replace("</View>", '<PolygonLabels name="poly" toName="img"><Label value="cat"/></PolygonLabels></View>')


def answered(xml: str, mask: np.ndarray, prompt: str = "the cats") -> Correction:
    """An annotator accepts the answer as it is."""
    interface = label_config.parse(xml)
    regions = mask_regions(interface, interface.labels[0], mask, 0.9, prompt)
    correction = read_task(task(1, annotation(1, *regions, typed(prompt))), interface)
    assert correction is not None
    return correction


def test_a_rectangle_is_no_mask_and_no_sign_of_absence() -> None:
    correction = answered(BOXES, MASK)
    assert (correction.objects, correction.expressions) == ((), ())
    assert [shape.kind for shape in correction.shapes] == ["rectangle"]
    assert said(answered(BOXES, NOTHING)) == []


def test_an_answer_of_polygons_and_a_rectangle_is_one_object() -> None:
    mask = NOTHING.copy()
    mask[:2, :3] = mask[4:, 5:] = True
    correction = answered(BOTH, mask)
    (found,) = correction.objects
    assert np.array_equal(found.mask(), mask)
    assert said(correction) == [("the cats", (found.region,))]


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_any_mask_is_exact(mask: np.ndarray) -> None:
    correction = read(drawn("a", mask, prompt="it"), typed("it"))
    assert [found.mask().tolist() for found in correction.objects] == ([mask.tolist()] if mask.any() else [])
    assert said(correction) == [("it", ("a",) if mask.any() else ())]


def test_a_region_may_have_several_sentences() -> None:
    both = {"meta": {"text": ["prompt: the cat\nprompt: it\nprompt: The cat!\na crowd"]}}
    rows = [task(1, annotation(1, drawn("a", MASK, **both), drawn("b", ~MASK, "dog", "it")))]
    (item,) = read_corrections(rows, CONFIG).items
    assert {said.prompt: said.regions for said in item.expressions} == {"the cat": ("a",), "it": ("a", "b")}
