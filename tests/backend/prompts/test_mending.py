"""Which mask in the editor a click or a box is about, and what is then asked of the model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions
from backend.prompts.geometry import GeometricPrompt, Rectangle
from backend.prompts.last_answers import LastAnswers, in_place
from backend.prompts.mending import MaskInEditor, find_mended, masks_of, still_there
from backend.prompts.requests import RequestBuilder
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.masks import Mask

INTERFACE = (
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" smart="true"/>'
    '<BrushLabels name="brush" toName="image"><Label value="cat"/><Label value="dog"/></BrushLabels>{}</View>'
)
CONFIG = parse(INTERFACE.format(""))


def square(left: int, right: int) -> Mask:
    mask = np.zeros((100, 100), np.bool_)
    mask[40:60, left:right] = True
    return mask


def standing(name: str, left: int = 10, right: int = 30, label: str | None = "cat", **fields: Any) -> MaskInEditor:
    return MaskInEditor({"brush": (name,)}, label, square(left, right), **fields)


def click(x: float, positive: bool = True, y: float = 0.5, **fields: Any) -> GeometricPrompt:
    return GeometricPrompt((Point(x, y, positive),), **fields)


CLICKED = standing("a", points=(Point(0.2, 0.5),), keys=frozenset({"k1"}))
SAID = standing("s", sentence="the cat", spoken=True)
OTHER = standing("o", 60, 90, "dog")


@pytest.mark.parametrize(
    ("drawn", "answers", "expected"),
    [
        pytest.param(click(0.8), [CLICKED], None, id="elsewhere: a thing of its own"),
        pytest.param(click(0.2), [CLICKED], CLICKED, id="in its mask"),
        pytest.param(click(0.8, keys=frozenset({"k1", "k2"})), [CLICKED], CLICKED, id="sent together"),
        pytest.param(click(0.9), [SAID], SAID, id="the first click after a sentence"),
        pytest.param(click(0.9), [replace(SAID, keys=frozenset({"k"}))], None, id="not the second"),
        pytest.param(click(0.9, positive=False), [CLICKED], CLICKED, id="beside the thing: the last answer"),
        pytest.param(click(0.9), [], None, id="nothing there"),
    ],
)
def test_which_answer_is_meant(
    drawn: GeometricPrompt, answers: list[MaskInEditor], expected: MaskInEditor | None
) -> None:
    assert find_mended(drawn, None, answers, []) is expected


def test_the_mask_that_was_clicked_in_is_meant_and_not_the_last_answer() -> None:
    assert find_mended(click(0.7), None, [CLICKED], [OTHER]) is OTHER
    assert find_mended(click(0.7, positive=False), None, [CLICKED], [OTHER]) is OTHER


def test_a_selected_region_is_meant_wherever_the_click_is() -> None:
    assert find_mended(click(0.5, selected=True), "dog", [CLICKED], [OTHER]) is OTHER
    assert find_mended(click(0.95, selected=True), "cat", [CLICKED], [OTHER]) is CLICKED


def test_with_another_label_it_is_a_thing_of_its_own() -> None:
    assert find_mended(click(0.2), "dog", [CLICKED], []) is None


def test_a_box_around_what_was_clicked_belongs_to_it() -> None:
    around = GeometricPrompt(rectangles=(Rectangle(0.05, 0.3, 0.4, 0.4),))
    assert find_mended(around, None, [CLICKED], []) is CLICKED
    beside = GeometricPrompt(rectangles=(Rectangle(0.5, 0.3, 0.4, 0.4),))
    assert find_mended(beside, None, [CLICKED], []) is None
    assert find_mended(beside, None, [SAID], []) is SAID


# What the draft says of it


def regions(name: str, mask: Mask, prompt: str = "", origin: str = "prediction") -> list[dict[str, Any]]:
    drawn = mask_regions(CONFIG, CONFIG.labels[0], mask, 0.5, prompt)
    return [{**region, "id": name, "origin": origin} for region in drawn]


def task(*drawn: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "drafts": [{"result": list(drawn), "updated_at": "2026-11-28T00:00:00Z"}]}


def long_ago(answer: MaskInEditor) -> MaskInEditor:
    return replace(answer, when=time.monotonic() - 60)


def test_an_answer_counts_until_a_draft_that_had_time_lacks_it() -> None:
    new, old = replace(CLICKED, when=time.monotonic()), long_ago(CLICKED)
    assert still_there([new], task(), CONFIG) == [new]
    assert still_there([old], task(), CONFIG) == []
    assert still_there([old], task(*regions("a", square(10, 30))), CONFIG) == [old]


def test_an_answer_that_was_painted_on_is_read_from_the_draft() -> None:
    painted = task(*regions("a", square(10, 50), origin="prediction-changed"))
    assert still_there([long_ago(CLICKED)], painted, CONFIG) == []
    [drawn] = masks_of(painted, CONFIG, [])
    assert np.array_equal(drawn.mask, square(10, 50))
    assert (drawn.ids, drawn.label) == ({"brush": ("a",)}, "cat")


def test_masks_of_a_draft_know_their_sentence_and_those_known_already_are_left_out() -> None:
    drawn = task(*regions("a", square(10, 30), "the cat"), *regions("b", square(60, 90)))
    assert [mask.sentence for mask in masks_of(drawn, CONFIG, [])] == ["the cat", ""]
    assert [mask.ids for mask in masks_of(drawn, CONFIG, [CLICKED])] == [{"brush": ("b",)}]


def test_a_point_drawn_while_a_region_is_selected_is_no_mask() -> None:
    value = {"x": 50, "y": 50, "width": 0.3, "labels": ["cat"], "brushlabels": ["cat"]}
    borrowed = {"id": "k", "from_name": "brush", "to_name": "image", "type": "brushlabels", "value": value}
    assert [mask.ids for mask in masks_of(task(borrowed, *regions("a", square(10, 30))), CONFIG, [])] == [
        {"brush": ("a",)}
    ]


def test_a_draft_that_cannot_be_read_costs_nobody_a_click() -> None:
    broken = {**regions("a", square(10, 30))[0], "value": {"format": "rle", "rle": [1], "brushlabels": ["cat"]}}
    assert masks_of(task(broken), CONFIG, []) == []


# What is asked then


def ask(drawn: dict[str, Any], *answers: MaskInEditor, **of_task: Any) -> Prompt:
    context = {"result": [{"type": "keypoint", "id": "k2", **drawn}]}
    [request] = RequestBuilder(CONFIG).for_editor({"id": 1, **of_task}, context, answers)
    [prompt] = request.asked
    assert isinstance(prompt, Prompt)
    return prompt


def test_a_second_click_is_asked_with_the_first_and_its_mask() -> None:
    prompt = ask({"value": {"x": 25, "y": 50}, "is_positive": False}, CLICKED)
    assert prompt.points == (Point(0.2, 0.5), Point(0.25, 0.5, False))
    assert np.array_equal(prompt.mask, square(10, 30))
    assert prompt.sentence == ""


def test_a_box_counts_until_a_click_outside_it() -> None:
    boxed = standing("a", box=Box(0.1, 0.4, 0.4, 0.6), keys=frozenset({"k1"}))
    assert ask({"value": {"x": 35, "y": 50}}, replace(boxed, mask=square(10, 40))).box == boxed.box
    selected = {"value": {"x": 90, "y": 50, "labels": ["cat"]}}
    assert ask(selected, boxed).box is None
    assert ask({**selected, "is_positive": False}, boxed).box == boxed.box


def test_after_a_sentence_the_words_are_asked_again() -> None:
    prompt = ask({"value": {"x": 90, "y": 50}}, SAID)
    assert (prompt.sentence, prompt.points, prompt.mask) == ("the cat", (Point(0.9, 0.5),), None)


def test_points_that_are_sent_again_count_once_and_without_a_mask_if_one_was_deleted() -> None:
    answer = replace(CLICKED, keys=frozenset({"k2", "k3"}), points=(Point(0.1, 0.5), Point(0.2, 0.5)))
    prompt = ask({"value": {"x": 10, "y": 50}}, answer)
    assert (prompt.points, prompt.mask) == ((Point(0.1, 0.5),), None)


def test_a_sentence_without_a_mask_is_asked_where_somebody_clicks() -> None:
    said = {"id": "t", "type": "textarea", "from_name": "prompt", "value": {"text": ["the dog?"]}}
    prompt = ask({"value": {"x": 10, "y": 50}}, **task(said))
    assert (prompt.sentence, prompt.mask) == ("the dog", None)


def test_a_click_is_not_about_what_was_said_not_to_be_there() -> None:
    xml = '<Choices name="absent" toName="image"><Choice value="Not in this picture"/></Choices>'
    config = parse(INTERFACE.format(xml))
    said = {"id": "t", "type": "textarea", "from_name": "prompt", "value": {"text": ["the bicycle"]}}
    absent = {"id": "c", "type": "choices", "from_name": "absent", "value": {"choices": ["Not in this picture"]}}
    context = {"result": [{"type": "keypoint", "id": "k", "value": {"x": 10, "y": 50}}]}
    # Made here: what is old and in no draft counts as deleted.
    refused = MaskInEditor({}, None, None, "the bicycle", spoken=True)
    [about_it] = RequestBuilder(config).for_editor(task(said), context, [refused])
    [of_its_own] = RequestBuilder(config).for_editor(task(said, absent), context, [refused])
    assert (about_it.prompt, of_its_own.prompt) == ("the bicycle", "")


# Kept, and put in place


def test_answers_are_kept_by_task_and_replaced_by_what_mends_them() -> None:
    kept = LastAnswers()
    kept.add(1, 5, [CLICKED, OTHER])
    kept.add(1, 5, [replace(CLICKED, mask=square(0, 50), keys=frozenset({"k2"}))])
    [other, mended] = kept.of(1, 5)
    assert other.ids == OTHER.ids
    assert np.array_equal(mended.mask, square(0, 50))
    assert kept.of(1, 6) == kept.of(2, 5) == []


def test_only_the_latest_are_kept() -> None:
    kept = LastAnswers()
    for number in range(20):
        kept.add(1, 5, [standing(str(number))])
    assert [answer.ids["brush"] for answer in kept.of(1, 5)] == [(str(number),) for number in range(12, 20)]


def test_a_mended_mask_has_the_ids_of_its_regions() -> None:
    drawn = [{"from_name": "brush", "id": "x"}, {"from_name": "brush", "id": "y"}, {"from_name": "box", "id": "z"}]
    assert [region["id"] for region in in_place(drawn, CLICKED)] == ["a", "y", "z"]
    assert in_place(drawn, None) == drawn
