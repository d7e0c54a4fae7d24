"""Prompts: who asks for what, in which order, and what negatives and places make of an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.labelstudio.label_config import LabelConfig, parse
from backend.prompts.geometry import GeometricPrompt, Rectangle
from backend.prompts.request import PromptRequest, combine, echoes, reply
from backend.prompts.requests import RequestBuilder
from backend.prompts.sheet import EMPTY, PromptSheet, SheetEntry
from ris_core.errors import PromptError
from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Box, Point, Prompt


def config(
    *labels: str, prompt: str = '<TextArea name="ask" toName="img" smart="true"/><TextArea name="notes" toName="img"/>'
) -> LabelConfig:
    tags = "".join(labels) or label("thing")
    return parse(
        f'<View><Image name="img" value="$image"/>{prompt}'
        f'<BrushLabels name="brush" toName="img">{tags}</BrushLabels></View>'
    )


def label(value: str, **attributes: str) -> str:
    written = "".join(f' {name}="{text}"' for name, text in attributes.items())
    return f'<Label value="{value}"{written}/>'


ANIMALS = config(*map(label, ("cat", "dog", "other")))


def region(kind: str, positive: int | None = None, **value: object) -> dict[str, Any]:
    return {"type": kind, "value": value} | ({} if positive is None else {"is_positive": positive})


def typed(*texts: object, name: str = "ask") -> dict[str, Any]:
    return {"result": [{"id": "t", "type": "textarea", "from_name": name, "value": {"text": [text]}} for text in texts]}


def clicked(name: str | None = None) -> dict[str, Any]:
    value = {"x": 50, "y": 50} | ({"keypointlabels": [name]} if name else {})
    return {"result": [region("keypointlabels", **value)]}


def prompts_for(
    task: dict[str, Any],
    context: dict[str, Any] | None,
    config: LabelConfig,
    sheet: PromptSheet = EMPTY,
    names: bool = False,
    **limits: int,
) -> list[PromptRequest]:
    builder = RequestBuilder(config, sheet, f"task {task.get('id')}", **limits)
    return builder.for_batch(task, names) if context is None else builder.for_editor(task, context)


def asked(task: dict[str, Any], context: dict[str, Any] | None = None, **options: Any) -> list[str]:
    return [request.prompt for request in prompts_for(task, context, config(), **options)]


def told(requests: list[PromptRequest]) -> list[tuple[str, str, str]]:
    return [(request.prompt, request.label.value, request.source) for request in requests]


# In the editor


def test_in_the_editor_the_last_sentence_counts() -> None:
    assert asked({"id": 1}, typed("the cat", "the  dog\n")) == ["the dog"]


def test_in_the_editor_the_tasks_sentences_do_not_count() -> None:
    task = {"id": 1, "data": {"prompt": "the cat"}}
    assert asked(task, {"result": []}) == []
    assert asked(task, typed("a note", name="notes")) == []
    assert asked(task, typed("the dog"), names=True) == ["the dog"]


@pytest.mark.parametrize("result", [None, "x", [None], [{"from_name": "ask"}], [{"from_name": "ask", "value": 3}]])
def test_a_context_without_a_sentence_asks_for_nothing(result: object) -> None:
    assert asked({"id": 1}, {"result": result}) == []


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "; not the cat"])
def test_a_blank_sentence_is_an_error(text: str) -> None:
    context = {"result": [{"type": "textarea", "from_name": "ask", "value": {"text": [text]}}]}
    with pytest.raises(PromptError, match="task 5 is empty"):
        asked({"id": 5}, context)


def test_without_a_textarea_the_editor_asks_for_nothing() -> None:
    assert prompts_for({"id": 1}, typed("the cat"), config(prompt="")) == []


def draft(text: str, when: str) -> dict[str, Any]:
    return {**typed(text), "updated_at": when}


def test_a_point_asks_for_what_the_newest_draft_says_at_that_place() -> None:
    drafts = [
        draft("the old cat", "2026-11-21T02:02:23Z"),
        draft("the black dog", "2026-11-21T02:02:23.85Z"),
        {"result": [], "updated_at": "2026-11-21T03:00:00Z"},
    ]
    task = {"id": 1, "drafts": drafts, "annotations": [draft("the cup", "2026-11-22T00:00:00Z")]}
    [request] = prompts_for(task, clicked(), ANIMALS)
    assert told([request]) == [("the black dog", "dog", "draft")]
    assert (request.geometry, request.echo) == (GeometricPrompt((Point(0.5, 0.5),)), "")


def test_without_a_draft_the_annotation_counts() -> None:
    task = {"id": 1, "drafts": [], "annotations": [draft("the cup", "2026-11-22T00:00:00Z")]}
    assert asked(task, clicked()) == ["the cup"]


def test_the_label_of_the_point_wins() -> None:
    task = {"id": 1, "drafts": [draft("the black dog", "x")]}
    assert told(prompts_for(task, clicked("cat"), ANIMALS)) == [("the black dog", "cat", "draft")]
    assert told(prompts_for(task, clicked("zebra"), ANIMALS)) == [("the black dog", "dog", "draft")]


def test_a_rectangle_asks_for_what_is_in_it_with_the_label_that_it_was_drawn_with() -> None:
    context = {"result": [region("rectanglelabels", x=0, y=0, width=50, height=50, rectanglelabels=["cat"])]}
    [request] = prompts_for({"id": 1, "data": {"prompts": ["the black cat"]}}, context, ANIMALS)
    assert told([request]) == [("", "cat", "typed")]
    assert request.geometry == GeometricPrompt(rectangles=(Rectangle(0, 0, 0.5, 0.5),), label="cat")
    [asked] = request.asked
    assert isinstance(asked, Prompt)
    assert (asked.sentence, asked.points, asked.box) == ("", (), Box(0, 0, 0.5, 0.5))


def test_two_rectangles_are_two_things() -> None:
    drawn = [{**region("rectangle", x=x, y=0, width=20, height=50), "id": str(x)} for x in (0, 50)]
    requests = prompts_for({"id": 1}, {"result": drawn}, ANIMALS)
    boxes = [prompt.box for request in requests for prompt in request.asked if isinstance(prompt, Prompt)]
    assert boxes == [Box(0, 0, 0.2, 0.5), Box(0.5, 0, 0.7, 0.5)]


@pytest.mark.parametrize(
    ("name", "expected"), [("cat", "cat"), ("other", "other"), ("zebra", "other"), (None, "other")]
)
def test_a_point_gets_its_label_else_the_one_for_other_things(name: str | None, expected: str) -> None:
    [request] = prompts_for({"id": 1, "drafts": None}, clicked(name), ANIMALS)
    assert told([request]) == [("", expected, "typed")]


def test_a_point_gets_the_only_label_and_else_none() -> None:
    assert told(prompts_for({"id": 1}, clicked(), config(label("cat"))))[0][1] == "cat"
    [request] = prompts_for({"id": 1}, clicked(), config(label("cat"), label("dog")))
    assert (request.label, request.notes) == (None, ("it has no label yet: choose one",))


def test_a_point_beside_the_thing_alone_asks_for_nothing() -> None:
    context = {"result": [region("keypoint", positive=0, x=50, y=50)]}
    assert prompts_for({"id": 1}, context, ANIMALS) == []


# In a batch


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"prompt": "the cat"}, ["the cat"]),
        ({"prompts": ["the cat", "the dog"]}, ["the cat", "the dog"]),
        ({"prompt": "the cat", "prompts": ["the dog", "the cat"]}, ["the cat", "the dog"]),
        ({"prompts": "the cat"}, ["the cat"]),
        ({"caption": "the cat", "expression": "the dog"}, ["the cat"]),
        ({"expression": ["the dog"]}, ["the dog"]),
        ({"prompt": "the cat", "caption": "the dog"}, ["the cat"]),
        ({"prompt": "", "caption": "the dog"}, ["the dog"]),
        ({"prompt": None, "prompts": []}, []),
        ({"prompt": ["", None]}, []),
        ({"image": "x"}, []),
    ],
)
def test_in_a_batch_the_tasks_sentences_count(data: dict[str, Any], expected: list[str]) -> None:
    assert asked({"id": 1, "data": data}) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"dog": "the brown one", "cat": ["the left one", "the right one"]}, "brown dog, left cat, right cat"),
        ([{"label": "cat", "prompt": "the left one"}, "the brown dog"], "left cat, brown dog"),
        ({"label": "dog", "prompt": "the left one"}, "left dog"),
        ({"prompt": "the left dog"}, "left dog"),
        ({"dog": "", "cat": None}, ""),
        ({"puppy": "the left one"}, "left other"),
    ],
)
def test_the_data_may_name_the_labels(data: object, expected: str) -> None:
    requests = prompts_for({"id": 1, "data": {"prompts": data}}, None, ANIMALS)
    summary = ", ".join(f"{request.prompt.split()[1]} {request.label.value}" for request in requests)
    assert summary == expected


def test_what_the_textarea_shows_counts_alone() -> None:
    shown = config(label("thing"), prompt='<TextArea name="ask" toName="img" value="$what"/>')
    data = {"what": "the cat", "prompt": "the dog"}
    assert told(prompts_for({"data": data}, None, shown)) == [("the cat", "thing", "task")]
    assert told(prompts_for({"data": {"prompt": "the dog"}}, None, shown)) == [("the dog", "thing", "task")]
    assert prompts_for({"data": data | {"what": ""}}, None, shown) == []


@pytest.mark.parametrize("task", [{"id": 1}, {"id": 1, "data": None}, {"id": 1, "data": []}])
def test_a_task_without_data_asks_for_nothing(task: dict[str, Any]) -> None:
    assert asked(task) == []


@pytest.mark.parametrize("value", [3, {"a": 1}, ["x", 4], [["x"]], "   ", {"label": "cat", "prompt": 5}])
def test_what_is_not_a_sentence_is_refused_with_the_task_named(value: object) -> None:
    with pytest.raises(PromptError, match="task 9"):
        asked({"id": 9, "data": {"prompt": value}})


SHEET = PromptSheet(
    {"cat": SheetEntry(("a kitty",), ("the shadow",)), "hund": SheetEntry(("a hound",)), "gone": SheetEntry(("x",))}
)


def test_sources_add_up_and_the_higher_replaces_the_lower_for_its_label() -> None:
    labels = config(
        label("cat", prompt="the cat"),
        label("dog", alias="hund"),
        label("cup", prompts="a cup | a mug"),
        label("other"),
    )
    assert told(prompts_for({}, None, labels, SHEET)) == [
        ("the cat", "cat", "label"),
        ("a cup", "cup", "label"),
        ("a mug", "cup", "label"),
        ("a hound", "dog", "sheet"),
    ]
    task = {"data": {"prompts": ["the red cup", "the zebra"]}}
    assert told(prompts_for(task, None, labels, SHEET, names=True)) == [
        ("the red cup", "cup", "task"),
        ("the zebra", "other", "task"),
        ("the cat", "cat", "label"),
        ("a hound", "dog", "sheet"),
    ]


def test_names_are_asked_for_where_nothing_else_is() -> None:
    labels = config(label("traffic_light"), label("cat"), label("Other"), label("x", alias="thing"))
    assert told(prompts_for({}, None, labels, names=True)) == [
        ("traffic light", "traffic_light", "name"),
        ("cat", "cat", "name"),
    ]
    assert prompts_for({}, None, labels) == []
    assert told(prompts_for({}, None, labels, SHEET, names=True)) == [("a kitty", "cat", "sheet")]


def test_every_request_carries_its_label_and_says_where_that_is_a_guess() -> None:
    task = {"id": 1, "data": {"prompts": ["the cat", "the zebra"]}}
    cat, zebra = prompts_for(task, None, ANIMALS)
    assert (cat.label.value, cat.notes) == ("cat", ())
    assert (zebra.label.value, zebra.notes) == (
        "other",
        ('no label is called anything like "the zebra", so this is "other"',),
    )


def test_a_label_that_stays_open_replaces_none() -> None:
    """What is asked for without a label stands beside what the labels ask for by themselves."""
    labels = config(label("cat", prompt="a cat"), label("dog"))
    task = {"id": 1, "data": {"prompts": ["the zebra", "the cup"]}}
    requests = prompts_for(task, None, labels)
    assert [(request.prompt, request.label and request.label.value) for request in requests] == [
        ("the zebra", None),
        ("the cup", None),
        ("a cat", "cat"),
    ]
    assert requests[0].notes == ('no label is called anything like "the zebra", so it has none yet: choose one',)
    # A click is about a thing of its own.
    [request] = prompts_for(task, clicked(), labels)
    assert (request.prompt, request.label, request.notes) == ("", None, ("it has no label yet: choose one",))


# Guesses


def test_a_question_mark_asks_for_a_guess() -> None:
    [request] = prompts_for({"id": 1}, typed("the cat ?"), ANIMALS)
    assert (request.prompt, request.guessed) == ("the cat", True)
    [request] = prompts_for({"id": 1}, typed("the cat"), ANIMALS)
    assert not request.guessed
    # Batches say nothing of absent things by themselves.
    assert not any(request.guessed for request in prompts_for({"data": {"prompt": "the cat?"}}, None, ANIMALS))


def test_the_editor_is_told_what_came_of_a_prompt() -> None:
    refused = Prediction("x", mask(0, 0), False, 0.2, 0.5, 0.9, guess=0.31)
    shown = Prediction("x", mask(0, 50), True, 0.2, 0.5, 0.31, guess=0.31)
    assert reply(request(), refused) == 'x: not found; nearest guess 0.31 ("x?" shows it)'
    assert reply(request(), answer(None)) == "x: not found"
    assert reply(request(guessed=True), shown) == "x: only a guess, 0.31"
    assert reply(request(notes=("look",)), answer(mask(0, 50))) == "x: found, 0.80; look"
    # What a negative took away is no guess.
    taken = combine(request("n"), shown, [answer(mask(0, 50), 0.9)])
    assert reply(request("n"), taken) == "x: not found"


# Negatives


def test_negatives_are_said_after_the_prompt() -> None:
    [request] = prompts_for({"id": 1}, typed("the dogs;NOT the  puppy ; not the cat"), ANIMALS)
    assert request.asked == ("the dogs", "the puppy", "the cat")
    [request] = prompts_for({"id": 1}, typed("the knot; nothing; note"), ANIMALS)
    assert request.negatives == ()


def test_in_a_batch_a_label_has_negatives_of_its_own() -> None:
    labels = config(label("cat"), label("dog", negative="the puppy | the toy", prompt="the dog"))
    data = {"prompts": ["the cat; not the dog", {"label": "cat", "prompt": "the shadow", "negative": "the tail"}]}
    negatives = {request.prompt: request.negatives for request in prompts_for({"data": data}, None, labels, SHEET)}
    assert negatives == {
        "the cat": ("the dog", "the shadow"),
        # What is asked for isn't taken away from itself.
        "the shadow": ("the tail",),
        "the dog": ("the puppy", "the toy"),
    }
    [typed_cat] = prompts_for({}, typed("the cat"), labels, SHEET)
    assert typed_cat.negatives == ()


# Limits


def test_the_length_limit_counts() -> None:
    assert asked({"id": 1}, typed("x" * 7), max_length=7) == ["x" * 7]
    with pytest.raises(PromptError, match=r"8 characters, more than 7.*RIS_MAX_PROMPT_LENGTH"):
        asked({"id": 1}, typed("x" * 8), max_length=7)


def test_the_number_limit_counts_negatives_too() -> None:
    task = {"id": 1, "data": {"prompts": ["a", "b; not c"]}}
    assert asked(task, max_prompts=3) == ["a", "b"]
    with pytest.raises(PromptError, match=r"Task 1 has 3 prompts, more than 2.*RIS_MAX_PROMPTS"):
        asked(task, max_prompts=2)


# What comes of answers


def mask(*columns: int) -> np.ndarray:
    pixels = np.zeros((10, 100), np.bool_)
    pixels[2:8, slice(*columns)] = True
    return pixels


def answer(pixels: np.ndarray | None, score: float = 0.8) -> Prediction:
    present = pixels is not None
    return Prediction("x", pixels if pixels is not None else mask(0, 0), present, score, score, score)


def request(*negatives: str, geometry: GeometricPrompt | None = None, **fields: Any) -> PromptRequest:
    return PromptRequest("x", ANIMALS.labels[0], negatives, geometry, **fields)


def test_what_a_negative_finds_is_taken_away_however_sure_the_model_is() -> None:
    combined = combine(request("n"), answer(mask(0, 50), 0.9), [answer(mask(40, 60), 0.3)])
    assert np.array_equal(combined.mask, mask(0, 40))
    assert (combined.present, combined.score) == (True, 0.9)


def test_a_negative_that_is_not_there_takes_nothing() -> None:
    assert combine(request("n"), answer(mask(0, 50)), [answer(None)]).mask.sum() == mask(0, 50).sum()


@pytest.mark.parametrize(("score", "kept"), [(0.7, True), (0.9, False)])
def test_where_both_found_the_same_the_surer_one_has_it(score: float, kept: bool) -> None:
    combined = combine(request("n"), answer(mask(0, 50), 0.8), [answer(mask(0, 48), score)])
    assert combined.present == kept
    assert np.array_equal(combined.mask, mask(0, 50) if kept else mask(0, 0))
    assert combined.score == pytest.approx(0.8 if kept else 0.2)


def test_several_negatives_are_taken_away_one_by_one() -> None:
    combined = combine(request("n", "m"), answer(mask(0, 50)), [answer(mask(0, 10)), answer(mask(40, 50))])
    assert np.array_equal(combined.mask, mask(10, 40))


def test_an_answer_is_cut_off_where_a_rectangle_says_so() -> None:
    beside = GeometricPrompt(rectangles=(Rectangle(0.5, 0, 0.5, 1, positive=False),))
    combined = combine(request(geometry=beside), answer(mask(40, 60)))
    assert np.array_equal(combined.mask, mask(40, 50))


def test_what_is_not_there_stays_as_it_is() -> None:
    absent = answer(None, 0.1)
    assert combine(request("n", geometry=GeometricPrompt((Point(0, 0),))), absent, [answer(mask(0, 9))]) is absent


def test_sentences_that_are_only_tried_are_shown_where_they_found_something() -> None:
    requests = [request(echo="a", source="task"), request(source="sheet"), request(echo="c", source="offered")]
    assert echoes(requests, [answer(None), answer(mask(0, 5)), answer(None)]) == ["a"]
    assert echoes(requests, [answer(None), answer(None), answer(mask(0, 5))]) == ["a", "c"]


def test_a_batch_shows_the_whole_sentence_again() -> None:
    [request] = prompts_for({"data": {"prompt": "the dogs; not the cat"}}, None, ANIMALS)
    assert request.echo == "the dogs; not the cat"
    assert prompts_for({}, typed("the dogs"), ANIMALS)[0].echo == ""
