"""Regions: built as Label Studio takes them, and read back from annotations of every shape."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from backend.errors import RegionError
from backend.labelstudio import brush, config, regions

CONFIG = config.parse(
    '<View><Image name="img" value="$image"/><TextArea name="note" toName="img"/>'
    '<TextArea name="prompt" toName="img"/><BrushLabels name="brush" toName="img">'
    '<Label value="Big cat" alias="cat"/><Label value="Thing"/></BrushLabels></View>'
)
NO_PROMPT = config.LabelConfig(CONFIG.image, CONFIG.controls)
CAT = CONFIG.labels[0]
MASK = np.eye(6, 8, dtype=np.bool_)


def painted(region_id: str, **extra: Any) -> dict[str, Any]:
    value = {"format": "rle", "rle": brush.encode(MASK), "brushlabels": ["Thing"]}
    size = {"original_width": 8, "original_height": 6}
    place = {"from_name": "brush", "to_name": "img", "type": "brushlabels", "origin": "manual"}
    return {"id": region_id, "value": value} | place | size | extra


def typed(*texts: str, region_id: str = "t", name: str = "prompt") -> dict[str, Any]:
    return {
        "id": region_id,
        "type": "textarea",
        "from_name": name,
        "to_name": "img",
        "value": {"text": list(texts)},
    }


def prompts_read(*result: dict[str, Any]) -> list[str | None]:
    return [mask.prompt for mask in regions.read_annotation(list(result), CONFIG).masks]


def test_a_brush_region_is_plain_json_and_reads_back() -> None:
    (region,) = regions.mask_regions(CONFIG, CAT, MASK, np.float32(0.5), "the cat")  # type: ignore[arg-type]
    region = json.loads(json.dumps(region, allow_nan=False))
    assert re.fullmatch(r"[0-9a-f]{12}", region["id"])
    assert region["value"]["brushlabels"] == ["cat"]
    assert region["meta"] == {"text": ["prompt: the cat"]}
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (8, 6, 0)
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "brush", "img")
    assert (region["origin"], region["readonly"], region["score"]) == ("prediction", False, 0.5)
    (mask,) = regions.read_annotation([region], CONFIG).masks
    assert (mask.region_id, mask.label, mask.prompt) == (region["id"], "Big cat", "the cat")
    assert (mask.mask == MASK).all()


def test_region_ids_never_repeat() -> None:
    ids = {regions.prompt_region(CONFIG, (6, 8), "x")["id"] for _ in range(2000)}
    assert len(ids) == 2000


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_json_cannot_hold_is_refused(score: float) -> None:
    with pytest.raises(RegionError, match="the cat"):
        regions.mask_regions(CONFIG, CAT, MASK, score, "the cat")


def test_prompt_region_is_read_back_as_typed() -> None:
    region = json.loads(json.dumps(regions.prompt_region(CONFIG, MASK.shape, "the cat")))
    assert (region["from_name"], region["original_height"], region["original_width"]) == ("prompt", 6, 8)
    assert regions.typed_prompt({"result": [region]}, CONFIG) == "the cat"
    with pytest.raises(RegionError, match="TextArea"):
        regions.prompt_region(NO_PROMPT, (6, 8), "the cat")


@pytest.mark.parametrize(
    ("context", "prompt"),
    [
        (None, None),
        ({}, None),
        ({"result": []}, None),
        ({"result": None}, None),
        ({"result": ["x", None, {"type": "textarea"}]}, None),
        ({"result": [typed("red circle")]}, "red circle"),
        ({"result": [typed("first", "  second ")]}, "second"),
        ({"result": [typed("one"), typed("two")]}, "two"),
        ({"result": [typed("a cat"), typed("blurred", name="note")]}, "a cat"),
        ({"result": [typed("blurred", name="note")]}, None),
        ({"result": [typed("a cat", " ")]}, "a cat"),
        ({"result": [typed() | {"value": {"text": "a string"}}]}, "a string"),
        ({"result": [typed() | {"value": {"text": [1, None, {}]}}]}, None),
        ({"result": [typed() | {"value": None}]}, None),
        ({"result": [typed("x") | {"id": ["unhashable"]}]}, "x"),
    ],
)
def test_typed_prompt(context: dict[str, Any] | None, prompt: str | None) -> None:
    assert regions.typed_prompt(context, CONFIG) == prompt
    assert regions.typed_prompt(context, NO_PROMPT) is None


def test_a_noted_prompt_wins_over_what_was_typed() -> None:
    noted = painted("a", meta={"text": ["checked by hand", "prompt: the dog"]})
    assert prompts_read(noted, typed("the cat")) == ["the dog"]


def test_a_prompt_of_the_region_itself_wins_over_the_others() -> None:
    result = [painted("a"), painted("b"), typed("left", region_id="a"), typed("right", region_id="b")]
    assert prompts_read(*result) == ["left", "right"]


def test_one_sentence_belongs_to_every_stroke() -> None:
    result = [typed("the cat"), painted("a"), painted("b"), typed("the cat")]
    assert prompts_read(*result) == ["the cat", "the cat"]


def test_the_last_sentence_belongs_to_a_lone_mask() -> None:
    assert prompts_read(painted("a"), typed("the dog", "the cat")) == ["the cat"]


def test_several_sentences_and_strokes_stay_unknown() -> None:
    result = [painted("a"), painted("b", meta={"text": ["prompt: the dog"]}), typed("the dog", "the cat")]
    assert prompts_read(*result) == [None, "the dog"]


def test_sentences_are_kept_without_any_mask() -> None:
    read = regions.read_annotation([typed("a unicorn", "a unicorn", "a cat"), typed("x", name="note")], CONFIG)
    assert read.masks == ()
    assert read.prompts == ("a unicorn", "a cat")


@pytest.mark.parametrize("result", [None, [], {}, "x", [None, 3, {}, {"type": "relation", "from_id": "a"}]])
def test_nothing_to_read(result: object) -> None:
    read = regions.read_annotation(result, CONFIG)
    assert (read.masks, read.prompts) == ((), ())


def test_other_tags_are_passed_over_and_labels_kept() -> None:
    unlabelled = painted("u", origin="prediction-changed")
    unlabelled["value"].pop("brushlabels")
    unknown = painted("k")
    unknown["value"]["brushlabels"] = ["Removed since"]
    masks = regions.read_annotation([painted("o", from_name="other"), unlabelled, unknown], CONFIG).masks
    assert [(mask.label, mask.origin) for mask in masks] == [
        (None, "prediction-changed"),
        ("Removed since", "manual"),
    ]


@pytest.mark.parametrize(
    "damage",
    [
        {"value": {"rle": [1, 2, 3]}},
        {"value": None},
        {"value": {"rle": "x"}},
        {"original_height": None},
        {"original_width": "8"},
        {"original_width": 8.5},
        {"original_width": 7},
        {"original_width": 10**9, "original_height": 10**9},
        {"original_width": -8, "original_height": -6},
    ],
)
def test_a_damaged_region_is_named(damage: dict[str, Any]) -> None:
    with pytest.raises(RegionError, match="Region r17 "):
        regions.read_annotation([painted("r17", **damage)], CONFIG)
