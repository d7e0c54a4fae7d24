"""What each gesture means: the rows of docs/gestures.md, with the JSON that Label Studio 1.23.2 writes for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.datasets.acceptance import summary
from backend.datasets.annotations import Correction, Corrections, read_corrections
from backend.datasets.edits import EditLedger, measure_edits
from backend.datasets.fingerprints import edit_keys
from backend.labelstudio import label_config
from backend.labelstudio.masks import brush
from backend.prompts.text import clean, spelled

HEIGHT, WIDTH = 48, 64
PLACE = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
OLD = label_config.parse(
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" smart="true"/>'
    '<TextArea name="remarks" toName="image"/><BrushLabels name="brush" toName="image"><Label value="cup"/>'
    '<Label value="spoon"/></BrushLabels><Choices name="quality" toName="image"><Choice value="bad"/></Choices></View>'
)
XML = (
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" smart="true"/>'
    '<TextArea name="remarks" toName="image"/><BrushLabels name="brush" toName="image"><Label value="cup"/>'
    '<Label value="spoon"/></BrushLabels><Choices name="absent" toName="image" choice="multiple">'
    '<Choice value="Not in this picture"/></Choices></View>'
)
CONFIG = label_config.parse(XML)
Json = dict[str, Any]


def square(top: int = 8, left: int = 8) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top : top + 12, left : left + 12] = True
    return mask


def region(
    number: str,
    mask: np.ndarray | None = None,
    label: str | Sequence[str] = "cup",
    prompt: str | None = None,
    origin: str = "manual",
    **more: Any,
) -> Json:
    labels = [label] if isinstance(label, str) else list(label)
    rle = brush.encode(square() if mask is None else mask)
    meta = {"meta": {"text": [f"prompt: {prompt}"]}} if prompt else {}
    value = {"format": "rle", "rle": rle, "brushlabels": labels}
    return {
        **PLACE,
        "id": number,
        "from_name": "brush",
        "type": "brushlabels",
        "origin": origin,
        "value": value,
        **meta,
        **more,
    }


def offered(number: str, mask: np.ndarray | None = None, label: str = "cup", prompt: str | None = "the cup") -> Json:
    return region(number, mask, label, prompt, "prediction")


def typed(*sentences: str, box: str = "prompt") -> Json:
    value = {"text": list(sentences)}
    return {**PLACE, "id": f"t-{box}", "from_name": box, "type": "textarea", "origin": "manual", "value": value}


def choice(name: str = "absent", value: str = "Not in this picture") -> Json:
    chosen = {"choices": [value]}
    return {**PLACE, "id": f"c-{name}", "from_name": name, "type": "choices", "origin": "manual", "value": chosen}


def annotation(number: int, *result: Json, person: int = 1, minute: int = 0, **more: Any) -> Json:
    when = f"2026-11-27T10:{minute:02}:00.000001Z"
    fields = {"created_at": when, "updated_at": when, "was_cancelled": False, "ground_truth": False}
    return {"id": number, "result": list(result), "completed_by": person, "parent_prediction": None, **fields, **more}


def prediction(*result: Json) -> Json:
    return {"id": 4, "result": list(result), "model_version": "lda-1.aa", "score": 0.8}


def read(
    home: Path,
    *annotations: Json,
    predictions: Iterable[Json] = (),
    config: label_config.LabelConfig = CONFIG,
    **data: Any,
) -> Correction:
    task = {"id": 1, "data": {"image": "/data/upload/1/a.png", **data}, "annotations": list(annotations)}

    def fetch(ids: Sequence[int]) -> list[Json]:
        return [{**task, "predictions": list(predictions)}]

    (correction,) = measure_edits(read_corrections([task], config), EditLedger(home, 1), fetch, config).items
    return correction


def made_from(home: Path, proposed: Sequence[Json], *result: Json, **more: Any) -> Correction:
    """An annotation that was made from a prediction."""
    return read(home, annotation(10, *result, parent_prediction=4), predictions=[prediction(*proposed)], **more)


def said(correction: Correction) -> list[tuple[str, tuple[str, ...], str]]:
    """Each sentence, the regions that it means, and its origin in refs.json."""
    return [
        (
            expression.prompt,
            expression.regions,
            expression.edit.kind
            if expression.edit and (expression.regions or expression.edit.kind == "rejected")
            else "absent",
        )
        for expression in correction.expressions
    ]


def test_left_as_it_is(tmp_path: Path) -> None:
    assert said(made_from(tmp_path, [offered("a")], offered("a"))) == [("the cup", ("a",), "accepted")]


def test_changed(tmp_path: Path) -> None:
    changed = region("a", square(left=9), prompt="the cup", origin="prediction-changed")
    assert said(made_from(tmp_path, [offered("a")], changed)) == [("the cup", ("a",), "corrected")]


@pytest.mark.parametrize(
    "left", [[], [typed("the cup")], [region("b", square(30), "spoon")], [choice()], [typed("the cup"), choice()]]
)
def test_deleted(tmp_path: Path, left: list[Json]) -> None:
    correction = made_from(tmp_path, [offered("a"), typed("the cup")], *left)
    assert ("the cup", (), "rejected") in said(correction)
    figures = summary([correction], CONFIG)
    assert (figures["rejected"], figures["accepted"], figures["absent"]) == (1, 0, 0)
    assert (figures["compared"], figures["accepted_share"], figures["iou"]) == (1, 0.0, 0.0)
    # Label Studio forgets the parent when its prediction is deleted.
    again = read(tmp_path, annotation(10, *left))
    assert said(again) == said(correction)
    assert again.expressions == correction.expressions


def test_deleted_where_no_sentence_was_typed(tmp_path: Path) -> None:
    assert said(made_from(tmp_path, [offered("a", label="spoon", prompt=None)])) == [("spoon", (), "rejected")]


def test_the_wrong_one_of_two_labels_deleted(tmp_path: Path) -> None:
    spoon = offered("b", square(30), "spoon", "spoon")
    correction = made_from(tmp_path, [offered("a", prompt="cup"), spoon], spoon)
    assert said(correction) == [("spoon", ("b",), "accepted"), ("cup", (), "rejected")]


def test_erased_to_the_last_pixel(tmp_path: Path) -> None:
    nothing = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    erased = region("a", nothing, prompt="the cup", origin="prediction-changed")
    # A batch's, and one that was only shown in the editor.
    assert said(made_from(tmp_path / "1", [offered("a")], erased)) == [("the cup", (), "rejected")]
    correction = read(tmp_path / "2", annotation(10, typed("the cup"), erased))
    assert said(correction) == [("the cup", (), "rejected")]
    assert summary([correction], CONFIG)["accepted_share"] == 0


def test_one_of_several_deleted(tmp_path: Path) -> None:
    parts = [offered("a"), offered("b", square(30))]
    assert said(made_from(tmp_path, parts, parts[1])) == [("the cup", ("b",), "corrected")]


def test_deleted_and_drawn_anew(tmp_path: Path) -> None:
    drawn = region("n", square(30))
    correction = made_from(tmp_path, [offered("a")], drawn)
    assert said(correction) == [("the cup", ("n",), "corrected")]
    assert correction.expressions[0].edit is not None
    assert correction.expressions[0].edit.iou == 0
    assert said(read(tmp_path, annotation(10, drawn))) == said(correction)


def test_given_another_label(tmp_path: Path) -> None:
    renamed = region("a", label="spoon", prompt="cup", origin="prediction-changed")
    correction = made_from(tmp_path, [offered("a", prompt="cup")], renamed)
    assert said(correction) == [("spoon", ("a",), "corrected"), ("cup", (), "rejected")]
    assert said(read(tmp_path, annotation(10, renamed))) == said(correction)
    # What was asked for by a sentence is what it says, whatever its label was guessed to be.
    sentence = region("a", label="spoon", prompt="the mug", origin="prediction-changed")
    assert said(made_from(tmp_path / "2", [offered("a", prompt="the mug")], sentence)) == [
        ("the mug", ("a",), "accepted")
    ]


def test_a_project_of_partly_absent_labels_is_counted_exactly(tmp_path: Path) -> None:
    """64 tasks, each offered a cup and a spoon; of every fourth one of them is wrong, and deleted."""
    tasks, kept = [], 0
    for number in range(1, 65):
        both = [offered(f"c{number}", prompt="cup"), offered(f"s{number}", square(30), "spoon", "spoon")]
        left = both[: 1 if number % 4 == 0 else 2]
        kept += len(left)
        made = annotation(number, *left, parent_prediction=4)
        tasks.append({"id": number, "data": {"image": "a"}, "annotations": [made], "predictions": [prediction(*both)]})
    corrections = measure_edits(
        read_corrections(tasks, CONFIG), EditLedger(tmp_path, 1), lambda ids: [tasks[n - 1] for n in ids], CONFIG
    )
    figures = summary(corrections.items, CONFIG)
    assert (figures["annotations"], figures["expressions"]) == (64, 128)
    assert (figures["accepted"], figures["rejected"], kept) == (112, 16, 112)
    assert figures["accepted_share"] == 112 / 128
    assert figures["by_label"]["cup"]["accepted_share"] == 1
    assert (figures["by_label"]["spoon"]["accepted"], figures["by_label"]["spoon"]["rejected"]) == (48, 16)


@pytest.mark.parametrize(
    "there",
    [
        region("n", square(30), prompt="the left cup", origin="prediction"),
        {**PLACE, "id": "e", "from_name": "e", "type": "ellipselabels", "value": {"x": 3, "ellipselabels": ["cup"]}},
        {**PLACE, "id": "e", "from_name": "e", "type": "ellipse", "value": {"x": 3}},
    ],
)
def test_deleted_where_something_else_of_the_kind_is_there(tmp_path: Path, there: Json) -> None:
    correction = made_from(tmp_path, [offered("a", prompt="the red cup")], there)
    assert "the red cup" not in [expression.prompt for expression in correction.expressions]


def test_typed_answered_accepted(tmp_path: Path) -> None:
    correction = read(tmp_path, annotation(10, typed("the cup"), offered("a")))
    assert said(correction) == [("the cup", ("a",), "accepted")]


@pytest.mark.parametrize("config", [CONFIG, OLD])
def test_typed_and_not_found(tmp_path: Path, config: label_config.LabelConfig) -> None:
    assert said(read(tmp_path / "1", annotation(10, typed("the cup")), config=config)) == []
    proposed = [typed("the cup")]
    assert said(made_from(tmp_path / "2", proposed, *proposed, config=config, prompt="the cup")) == []


def test_not_in_this_picture(tmp_path: Path) -> None:
    both = annotation(10, typed("the cup", "the spoon"), offered("a"), choice())
    assert said(read(tmp_path / "1", both)) == [("the cup", ("a",), "accepted"), ("the spoon", (), "absent")]
    own = read(tmp_path / "2", annotation(10, choice()), prompt="the cup")
    assert said(own) == [("the cup", (), "absent")]
    assert said(read(tmp_path / "3", annotation(10, choice()))) == []
    agreed = made_from(tmp_path / "4", [typed("the cup")], typed("the cup"), choice())
    assert summary([agreed], CONFIG)["accepted_share"] == 1


def test_submitted_blank(tmp_path: Path) -> None:
    assert said(read(tmp_path / "1", annotation(10), config=OLD, prompt="the cup")) == [("the cup", (), "absent")]
    assert said(read(tmp_path / "2", annotation(10), prompt="the cup")) == []


def test_the_same_prompt_again(tmp_path: Path) -> None:
    first, second = offered("a"), offered("b", square(left=9))
    assert said(read(tmp_path / "1", annotation(10, typed("the cup"), first, second))) == [
        ("the cup", ("b",), "accepted")
    ]
    same = read(tmp_path / "2", annotation(10, typed("the cup"), first, offered("b")))
    assert said(same) == [("the cup", ("a",), "accepted")]
    assert len(same.objects) == 1
    changed = region("a", square(left=7), prompt="the cup", origin="prediction-changed")
    assert said(read(tmp_path / "3", annotation(10, changed, second))) == [("the cup", ("a", "b"), "corrected")]
    # The parts of one answer are elsewhere.
    parts = [offered("a"), offered("b", square(30))]
    assert said(read(tmp_path / "4", annotation(10, *parts))) == [("the cup", ("a", "b"), "accepted")]


def test_punctuation_and_case_make_no_other_prompt(tmp_path: Path) -> None:
    spellings = ("the cup", "The cup.", "the cup!", '"the cup"', "\u201cthe cup\u201d", "(the cup)", "the  CUP?")
    assert {clean(spelling) for spelling in spellings} == {"the cup"}
    assert clean("the man\u2019s cup") == clean("the man's cup") == "the man's cup"
    assert [clean(word) for word in ("C++", "3.5 cm", "#3", "T-shirt", "?")] == ["c++", "3.5 cm", "#3", "t-shirt", ""]
    regions = [offered("a", prompt="the cup"), offered("b", square(30), prompt="The cup!")]
    assert said(read(tmp_path, annotation(10, *regions))) == [("the cup", ("a", "b"), "accepted")]


def test_what_was_kept_with_its_punctuation_is_found(tmp_path: Path) -> None:
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [annotation(10, offered("a", prompt="The cup!"))]}
    (correction,) = read_corrections([task], CONFIG).items
    new, old = edit_keys(correction, correction.expressions[0])
    assert (new != old, spelled("The  cup!")) == (True, "the cup!")
    EditLedger(tmp_path, 1).add({old: {"kind": "corrected", "iou": 0.5, "changed_pixels": 3}})
    assert said(read(tmp_path, *task["annotations"])) == [("The cup!", ("a",), "corrected")]


def test_a_ledger_from_before_rejections_is_read(tmp_path: Path) -> None:
    """An empty annotation's sentence was kept as corrected to nothing, under the same key."""
    made = annotation(10, typed("the cup"))
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [annotation(10, typed("the cup"), choice())]}
    (correction,) = read_corrections([task], CONFIG).items
    key = edit_keys(correction, correction.expressions[0])[1]
    EditLedger(tmp_path, 1).add({key: {"kind": "corrected", "iou": 0.0, "changed_pixels": 144}})
    assert said(read(tmp_path, made)) == [("the cup", (), "rejected")]


def test_drawn_by_hand_with_one_sentence(tmp_path: Path) -> None:
    drawn = [region("a"), region("b", square(30))]
    assert said(read(tmp_path / "1", annotation(10, typed("the cup"), *drawn))) == [("the cup", ("a", "b"), "manual")]
    assert said(read(tmp_path / "2", annotation(10, *drawn), prompt="the cup")) == [("the cup", ("a", "b"), "manual")]
    bare = region("a", label=())
    assert said(read(tmp_path / "3", annotation(10, typed("the cup"), bare))) == [("the cup", ("a",), "manual")]
    # No label is called so: which one is meant, only the person knows.
    assert said(read(tmp_path / "4", annotation(10, typed("the mug"), region("a", label="spoon")))) == [
        ("the mug", ("a",), "manual")
    ]


def test_drawn_with_another_label(tmp_path: Path) -> None:
    spoon = region("h", square(30), "spoon")
    correction = read(tmp_path / "1", annotation(10, typed("the cup"), offered("a"), spoon))
    assert said(correction) == [("the cup", ("a",), "accepted")]
    assert [drawn.label for drawn in correction.objects] == ["cup", "spoon"]
    own = read(tmp_path / "2", annotation(10, region("a"), spoon), prompt="the cup")
    assert said(own) == [("the cup", ("a",), "manual")]
    # A guess at the label is settled by the answer that carries the sentence.
    mug = [typed("the mug"), offered("a", prompt="the mug"), spoon]
    assert said(read(tmp_path / "3", annotation(10, *mug))) == [("the mug", ("a",), "accepted")]
    labelled = read(tmp_path / "4", annotation(10, region("a"), spoon), prompt={"spoon": "the cup"})
    assert said(labelled) == [("the cup", ("h",), "manual")]


def test_several_sentences_and_masks(tmp_path: Path) -> None:
    drawn = [region("a"), region("b", square(30), "spoon")]
    assert said(read(tmp_path, annotation(10, typed("the cup", "the spoon"), *drawn))) == []


def test_two_labels_on_one_region(tmp_path: Path) -> None:
    correction = read(tmp_path, annotation(10, typed("the cup"), region("a", label=("cup", "spoon"))))
    assert said(correction) == [("the cup", ("a",), "manual")]
    assert correction.remarks == ("region a has several labels: cup counts, left out: spoon",)


CASES = Path(__file__).parents[2] / "fixtures" / "gestures"


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.json")))
def test_mixed_annotations(case: str) -> None:
    """Annotations of other labels, other shapes and remarks, as the editor kept them."""
    recorded = json.loads((CASES / f"{case}.json").read_text(encoding="utf-8"))
    config = label_config.parse(recorded["interface"])
    for name, one in recorded["tasks"].items():
        (correction,) = read_corrections([one["task"]], config).items
        meant = [[expression.prompt, list(expression.regions)] for expression in correction.expressions]
        assert meant == one["expected"], name


@pytest.mark.parametrize("case", ["a second Image", "other-shapes"])
def test_other_shapes_are_reported(case: str) -> None:
    if case == "a second Image":
        there = region("a", to_name="image2", from_name="brush2")
        task = {"id": 1, "data": {"image": "a", "prompt": "the cup"}, "annotations": [annotation(10, there)]}
        (correction,) = read_corrections([task], OLD).items
        assert (correction.expressions, correction.objects) == ((), ())
        assert correction.remarks == ("left out: shapes that aren't masks: brush on another picture (image2)",)
        return
    recorded = json.loads((CASES / f"{case}.json").read_text(encoding="utf-8"))
    config = label_config.parse(recorded["interface"])
    remarks = [
        remark
        for one in recorded["tasks"].values()
        for correction in read_corrections([one["task"]], config).items
        for remark in correction.remarks
    ]
    kinds = ["ellipse", "key point", "rectangle", "rectangle", "polygon"]
    assert remarks == [f"left out: shapes that aren't masks: {kind}" for kind in kinds]


def test_a_remark(tmp_path: Path) -> None:
    remark = typed("nothing to see, skip", box="remarks")
    assert said(read(tmp_path / "1", annotation(10, remark, region("a")))) == []
    assert said(read(tmp_path / "2", annotation(10, remark), config=OLD, prompt="the cup")) == []


def test_another_choice(tmp_path: Path) -> None:
    bad = choice("quality", "bad")
    assert said(read(tmp_path, annotation(10, bad), config=OLD, prompt="the cup")) == []


def test_skip() -> None:
    skipped = annotation(10, offered("a"), was_cancelled=True)
    assert read_corrections([{"id": 1, "data": {"image": "a"}, "annotations": [skipped]}], CONFIG) == Corrections(
        (), ()
    )


def test_several_annotations_of_one_person(tmp_path: Path) -> None:
    drawn, emptied = annotation(10, offered("a")), annotation(11, minute=5)
    correction = read(tmp_path, drawn, emptied)
    assert (correction.annotation, said(correction), correction.remarks) == (11, [], ())


def test_several_people(tmp_path: Path) -> None:
    first, later = annotation(10, offered("a")), annotation(11, offered("b", square(30)), person=2, minute=5)
    assert read(tmp_path, first, later).annotation == 11
    assert read(tmp_path, {**first, "ground_truth": True}, later).annotation == 10


@pytest.mark.parametrize("result", [[], [choice()], [typed("the cup"), choice()]])
def test_the_later_of_two_people_drew_nothing(tmp_path: Path, result: list[Json]) -> None:
    first, later = annotation(10, offered("a")), annotation(11, *result, person=2, minute=5)
    correction = read(tmp_path, first, later)
    assert said(correction) == [("the cup", ("a",), "accepted")]
    (remark,) = correction.remarks
    assert remark.startswith("people disagree: annotation 11 came later and has nothing drawn, annotation 10 has")
    crowned = read(tmp_path, first, {**later, "ground_truth": True}, prompt="the cup")
    assert (crowned.annotation, crowned.remarks) == (11, ())


def test_a_sentences_mask_mended_by_clicks(tmp_path: Path) -> None:
    mended = region("a", prompt="the cup", origin="prediction-changed")
    assert said(read(tmp_path, annotation(10, typed("the cup"), mended))) == [("the cup", ("a",), "corrected")]


def test_a_mask_from_a_click_alone(tmp_path: Path) -> None:
    alone = read(tmp_path / "1", annotation(10, region("a", origin="prediction")))
    assert (said(alone), len(alone.objects)) == ([], 1)
    spoon = region("b", square(30), "spoon", origin="prediction")
    beside = read(tmp_path / "2", annotation(10, typed("the cup"), offered("a"), spoon))
    assert said(beside) == [("the cup", ("a",), "accepted")]
    assert [drawn.label for drawn in beside.objects] == ["cup", "spoon"]


def test_a_point_that_is_left_with_the_selected_regions_label_is_no_mask(tmp_path: Path) -> None:
    value = {"x": 50, "y": 50, "width": 0.3, "labels": ["cup"]}
    point = {**PLACE, "id": "k", "from_name": "point", "type": "keypoint", "origin": "manual", "value": value}
    copy = {**point, "from_name": "brush", "type": "brushlabels", "value": {**value, "brushlabels": ["cup"]}}
    correction = read(tmp_path, annotation(10, typed("the cup"), offered("a"), point, copy))
    assert [drawn.label for drawn in correction.objects] == ["cup"]
