"""Regions: built as Label Studio takes them, and read back from annotations of every shape."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from backend.errors import RegionError
from backend.labelstudio import label_config, regions
from backend.labelstudio.masks import bitmask, brush
from backend.labelstudio.region_checks import validate
from ris_core.masks import Mask

CONFIG = label_config.parse(
    '<View><Image name="img" value="$image"/><TextArea name="note" toName="img"/>'
    '<TextArea name="prompt" toName="img"/><BrushLabels name="brush" toName="img">'
    '<Label value="Big cat" alias="cat"/><Label value="Thing"/></BrushLabels></View>'
)
NO_PROMPT = label_config.LabelConfig(CONFIG.image, CONFIG.controls)
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


def test_a_mask_whose_label_is_open_is_shown_once_and_reads_back() -> None:
    (region,) = regions.mask_regions(CONFIG, None, MASK, 0.5, "the cup", ["choose one"])
    assert (region["from_name"], region["value"]["brushlabels"]) == ("brush", [])
    assert region["meta"] == {"text": ["prompt: the cup\nchoose one"]}
    # Once it is submitted, Label Studio leaves the empty list out.
    del region["value"]["brushlabels"]
    (mask,) = regions.read_annotation([region], CONFIG).masks
    assert (mask.label, mask.prompt) == (None, "the cup")
    assert np.array_equal(mask.mask, MASK)


def test_what_the_editor_says_is_shown_in_its_own_box_and_is_nobodys_prompt() -> None:
    box = label_config.TextAreaControl(label_config.ANSWER, "img")
    config = replace(CONFIG, areas=(box, *CONFIG.areas))
    (region,) = regions.answer_region(config, (6, 8), "the sky: not found")
    assert (region["from_name"], region["type"], region["value"]) == (
        "ris_answer",
        "textarea",
        {"text": ["the sky: not found"]},
    )
    assert region["readonly"]
    validate([region], config)
    assert regions.read_annotation([region, painted("a")], config).prompts == ()
    assert regions.typed_prompt({"result": [typed("the sky"), region]}, config) == "the sky"
    assert regions.answer_region(CONFIG, (6, 8), "the sky: not found") == []


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


EVERY = label_config.parse(
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<PolygonLabels name="poly" toName="img"><Label value="cat"/></PolygonLabels>'
    '<BrushLabels name="brush" toName="img"><Label value="cat" alias="c"/><Label value="dog"/></BrushLabels>'
    '<BitmaskLabels name="bits" toName="img"><Label value="cat"/><Label value="dog"/></BitmaskLabels>'
    '<RectangleLabels name="box" toName="img"><Label value="cat"/></RectangleLabels></View>',
    label_config.Defaults(tolerance=0.0),
)


def only(tag: str, attributes: str = "", labels: str = '<Label value="cat"/>') -> label_config.LabelConfig:
    return label_config.parse(
        f'<View><Image name="img" value="$image"/><{tag} name="tag" toName="img" {attributes}>{labels}</{tag}></View>'
    )


def answer(interface: label_config.LabelConfig, mask: Mask, *notes: str) -> list[dict[str, Any]]:
    """The regions for "the cats", as they arrive after a journey as JSON."""
    shown = regions.mask_regions(interface, interface.labels[0], mask, 0.5, "the cats", notes)
    validate(shown, interface)
    return json.loads(json.dumps(shown, allow_nan=False))


def two_parts() -> Mask:
    """A ring of 24 pixels, a block of 12 and a speck, in an image of 200 pixels."""
    mask = np.zeros((10, 20), np.bool_)
    mask[1:6, 1:7] = True
    mask[3, 3:5] = mask[4, 3:7] = False
    mask[6:9, 12:16] = True
    mask[9, 19] = True
    return mask


def test_an_answer_is_shown_in_every_tag_that_has_its_label() -> None:
    shown = answer(EVERY, MASK[:, :6])
    assert [(region["from_name"], region["type"]) for region in shown] == [
        ("poly", "polygonlabels"),
        ("brush", "brushlabels"),
        ("bits", "bitmasklabels"),
        ("box", "rectanglelabels"),
    ]
    assert [region["value"][region["type"]] for region in shown] == [["cat"], ["c"], ["cat"], ["cat"]]
    assert {region["score"] for region in shown} == {0.5}
    assert len({region["id"] for region in shown}) == 4
    dogs = regions.mask_regions(EVERY, EVERY.labels[1], MASK, 0.5, "the dog")
    assert [region["from_name"] for region in dogs] == ["brush", "bits"]


def test_nothing_found_is_no_region() -> None:
    assert regions.mask_regions(EVERY, EVERY.labels[0], np.zeros((4, 4), np.bool_), 0.5, "the cat") == []


def test_a_rectangle_encloses_all_but_specks() -> None:
    (box,) = answer(only("RectangleLabels", 'smallest="0.05"'), two_parts())
    assert box["value"] == {"x": 5, "y": 10, "width": 75, "height": 80, "rotation": 0, "rectanglelabels": ["cat"]}
    assert box["meta"]["text"] == ["prompt: the cats\nspecks left out: 1"]


def test_a_polygon_of_several_parts_says_so_and_reads_back_as_one_mask() -> None:
    interface = only("PolygonLabels", 'tolerance="0" smallest="0.05"')
    shown = answer(interface, two_parts(), "looked up")
    assert [region["meta"]["text"][0].splitlines() for region in shown] == [
        ["prompt: the cats", "looked up", f"part {number} of 2", "specks left out: 1"] for number in (1, 2)
    ]
    assert len({region["id"] for region in shown}) == 2
    assert all(region["value"]["closed"] for region in shown)
    expected = two_parts()
    expected[9, 19] = False
    (mask,) = regions.read_annotation(shown, interface).masks
    assert (mask.mask == expected).all()
    assert (mask.region_id, mask.label, mask.prompt) == (shown[0]["id"], "cat", "the cats")


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels", "PolygonLabels"])
def test_each_object_is_a_region_of_its_own(tag: str) -> None:
    interface = only(tag, 'objects="each" smallest="0.05" tolerance="0"')
    masks = regions.read_annotation(answer(interface, two_parts()), interface).masks
    assert [np.count_nonzero(mask.mask) for mask in masks] == [24, 12]
    assert (masks[0].mask | masks[1].mask | (np.indices((10, 20)).sum(axis=0) == 28) == two_parts()).all()
    boxes = answer(only("RectangleLabels", 'objects="each" smallest="0.05"'), two_parts())
    assert [(box["value"]["x"], box["value"]["width"]) for box in boxes] == [(5, 30), (60, 20)]


def test_the_largest_part_stays_however_small() -> None:
    interface = only("PolygonLabels", 'smallest="1" tolerance="0"')
    (region,) = answer(interface, two_parts())
    assert "specks left out: 2" in region["meta"]["text"][0]


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
@settings(deadline=None)
@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)).filter(np.any))
def test_brush_and_bitmask_read_back_exactly(tag: str, mask: Mask) -> None:
    (read,) = regions.read_annotation(answer(only(tag), mask), only(tag)).masks
    assert (read.mask == mask).all()


@settings(deadline=None)
@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)).filter(np.any))
def test_polygons_of_all_parts_read_back_exactly_without_tolerance(mask: Mask) -> None:
    interface = only("PolygonLabels", 'tolerance="0" smallest="0"')
    (read,) = regions.read_annotation(answer(interface, mask), interface).masks
    assert (read.mask == mask).all()


def test_an_answer_shown_in_several_tags_is_one_object() -> None:
    (mask,) = regions.read_annotation(answer(EVERY, two_parts()), EVERY).masks
    assert mask.origin == "prediction"
    read = regions.read_annotation(answer(EVERY, two_parts()) + answer(EVERY, MASK), EVERY)
    assert len(read.masks) == 2


def test_of_several_tags_the_corrected_one_counts_then_the_one_that_is_left() -> None:
    shown = answer(EVERY, two_parts())
    bits = next(region for region in shown if region["from_name"] == "bits")
    bits |= {"origin": "prediction-changed", "value": {**bits["value"], "imageDataURL": bitmask.encode(~two_parts())}}
    (mask,) = regions.read_annotation(shown, EVERY).masks
    assert (mask.region_id, mask.origin) == (bits["id"], "prediction-changed")
    assert (mask.mask == ~two_parts()).all()
    bits["origin"] = "prediction"
    left = [region for region in shown if region["from_name"] != "poly"]
    (mask,) = regions.read_annotation(left, EVERY).masks
    assert (mask.mask == two_parts()).all()


def test_a_part_that_was_given_another_label_is_another_object() -> None:
    interface = only("PolygonLabels", labels='<Label value="cat"/><Label value="dog"/>')
    first, second = answer(interface, two_parts())[:2]
    second["value"]["polygonlabels"] = ["dog"]
    assert [mask.label for mask in regions.read_annotation([first, second], interface).masks] == ["cat", "dog"]


def test_rectangles_are_no_masks_but_say_that_something_is_there() -> None:
    interface = only("RectangleLabels")
    read = regions.read_annotation(answer(interface, MASK), interface)
    assert (read.masks, [shape.kind for shape in read.shapes]) == ((), ["rectangle"])
    assert not regions.read_annotation([], interface).shapes


def test_a_polygon_drawn_by_hand_is_read() -> None:
    drawn = drawn_polygon([[0, 0], [50, 0], [50, 50], [0, 50]])
    (mask,) = regions.read_annotation([drawn], only("PolygonLabels")).masks
    assert (np.count_nonzero(mask.mask), mask.origin, mask.label) == (12, "manual", "gone")
    assert mask.mask[:3, :4].all()


def drawn_polygon(points: object, **extra: Any) -> dict[str, Any]:
    value = {"points": points, "closed": True, "polygonlabels": ["gone"]}
    size = {"original_width": 8, "original_height": 6, "image_rotation": 0}
    return {"id": "r17", "from_name": "tag", "to_name": "img", "type": "polygonlabels", "value": value, **size, **extra}


@pytest.mark.parametrize(
    "damage",
    [
        {"value": {"points": [[0, 0], [50, 0], [50, 50]], "closed": False}},
        {"value": {"points": [[0, 0], [50, 0]]}},
        {"value": {"points": [[0, 0], [50, 0], [50]]}},
        {"value": {"points": [[0, 0], [50, 0], [50, None]]}},
        {"value": {"points": [[0, 0], [50, 0], [50, math.nan]]}},
        {"value": {"points": [[0, 0], [50, 0], [50, 1e9]]}},
        {"value": {"points": [[0, 0], [50, 0], [50, 10**400]]}},
        {"value": {"points": {"x": 1}}},
        {"value": {"points": "polygon"}},
        {"value": {}},
        {"original_height": 0},
        {"original_width": 10**9, "original_height": 10**9},
        {"original_width": math.inf},
        {"original_width": "8"},
    ],
)
def test_a_damaged_polygon_is_named(damage: dict[str, Any]) -> None:
    region = drawn_polygon([[0, 0], [50, 0], [50, 50]]) | damage
    with pytest.raises(RegionError, match="Region r17 "):
        regions.read_annotation([region], only("PolygonLabels"))


@pytest.mark.parametrize(
    "change",
    [
        # The editor turns the view alone: its points stay those of the image as it lies.
        *({"image_rotation": angle} for angle in (90, 180, 270)),
        {"original_width": 8.0, "original_height": 6.0},
        {"original_width": 7.9999999},
    ],
)
def test_turning_the_view_and_sizes_in_fractions_change_no_mask(change: dict[str, Any]) -> None:
    region = drawn_polygon([[0, 0], [50, 0], [50, 50], [0, 50]])
    (mask,) = regions.read_annotation([region | change], only("PolygonLabels")).masks
    assert mask.mask.shape == (6, 8)
    assert (np.count_nonzero(mask.mask), mask.mask[:3, :4].all()) == (12, True)


def test_parts_of_two_sizes_are_refused() -> None:
    interface = only("PolygonLabels")
    first, second = answer(interface, two_parts())[:2]
    with pytest.raises(RegionError, match="two sizes"):
        regions.read_annotation([first, second | {"original_width": 21}], interface)


def test_a_bitmask_of_another_size_is_named() -> None:
    (region,) = answer(only("BitmaskLabels"), MASK)
    with pytest.raises(RegionError, match=f"Region {region['id']} can't be read"):
        regions.read_annotation([region | {"original_width": 7}], only("BitmaskLabels"))


def test_a_note_that_a_person_added_to_does_not_change_the_prompt() -> None:
    noted = painted("a", meta={"text": ["prompt: the dog\nlooked up\nchecked by hand"]})
    assert prompts_read(noted, typed("the cat")) == ["the dog"]


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
