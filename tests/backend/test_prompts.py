"""Prompts and labels: who asks for what, and what the answer is called."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labelstudio.config import LabelConfig, parse
from backend.prompts import label_for, prompts_for
from ris_core.errors import PromptError


def config(*labels: str, prompt: bool = True) -> LabelConfig:
    area = '<TextArea name="ask" toName="img"/><TextArea name="notes" toName="img"/>' if prompt else ""
    tags = "".join(labels) or '<Label value="thing"/>'
    return parse(
        f'<View><Image name="img" value="$image"/>{area}'
        f'<BrushLabels name="brush" toName="img">{tags}</BrushLabels></View>'
    )


def label(value: str, alias: str = "") -> str:
    return f'<Label value="{value}"' + (f' alias="{alias}"/>' if alias else "/>")


def typed(*texts: object, name: str = "ask") -> dict[str, Any]:
    return {"result": [{"id": "t", "type": "textarea", "from_name": name, "value": {"text": [text]}} for text in texts]}


def asked(task: dict[str, Any], context: dict[str, Any] | None = None, **limits: int) -> list[str]:
    return [request.prompt for request in prompts_for(task, context, config(), **limits)]


def test_in_the_editor_the_last_sentence_counts() -> None:
    assert asked({"id": 1}, typed("the cat", "the  dog\n")) == ["the dog"]


def test_in_the_editor_the_tasks_sentences_do_not_count() -> None:
    task = {"id": 1, "data": {"prompt": "the cat"}}
    assert asked(task, {"result": []}) == []
    assert asked(task, typed("a note", name="notes")) == []


@pytest.mark.parametrize("result", [None, "x", [None], [{"from_name": "ask"}], [{"from_name": "ask", "value": 3}]])
def test_a_context_without_a_sentence_asks_for_nothing(result: object) -> None:
    assert asked({"id": 1}, {"result": result}) == []


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_a_blank_sentence_is_an_error(text: str) -> None:
    context = {"result": [{"type": "textarea", "from_name": "ask", "value": {"text": [text]}}]}
    with pytest.raises(PromptError, match="task 5 is empty"):
        asked({"id": 5}, context)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"prompt": "the cat"}, ["the cat"]),
        ({"prompts": ["the cat", "the dog"]}, ["the cat", "the dog"]),
        ({"prompt": "the cat", "prompts": ["the dog", "the cat"]}, ["the cat", "the dog"]),
        ({"prompts": "the cat"}, ["the cat"]),
        ({"prompt": None, "prompts": []}, []),
        ({"prompt": ""}, []),
        ({"image": "x"}, []),
    ],
)
def test_in_a_batch_the_tasks_sentences_count(data: dict[str, Any], expected: list[str]) -> None:
    assert asked({"id": 1, "data": data}) == expected


@pytest.mark.parametrize("task", [{"id": 1}, {"id": 1, "data": None}, {"id": 1, "data": []}])
def test_a_task_without_data_asks_for_nothing(task: dict[str, Any]) -> None:
    assert asked(task) == []


@pytest.mark.parametrize("value", [3, {"a": 1}, ["x", 4], [["x"]], "   "])
def test_what_is_not_a_sentence_is_refused_with_the_task_named(value: object) -> None:
    with pytest.raises(PromptError, match="task 9"):
        asked({"id": 9, "data": {"prompt": value}})


def test_the_length_limit_counts() -> None:
    assert asked({"id": 1}, typed("x" * 7), max_length=7) == ["x" * 7]
    with pytest.raises(PromptError, match=r"8 characters, more than 7.*RIS_MAX_PROMPT_LENGTH"):
        asked({"id": 1}, typed("x" * 8), max_length=7)


def test_the_number_limit_counts() -> None:
    task = {"id": 1, "data": {"prompts": ["a", "b", "c"]}}
    assert len(asked(task, max_prompts=3)) == 3
    with pytest.raises(PromptError, match=r"3 prompts, more than 2.*RIS_MAX_PROMPTS"):
        asked(task, max_prompts=2)


def test_without_a_textarea_the_editor_asks_for_nothing() -> None:
    assert prompts_for({"id": 1}, typed("the cat"), config(prompt=False)) == []


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("the red Car on the left", "car"),
        ("a cartoon", "other"),
        ("the racing car", "racing car"),
        ("the Pkw", "car"),
        ("my C++ book", "c++"),
        ("STRASSE", "straße"),
        ("a cat", "other"),
    ],
)
def test_a_label_that_is_named_as_a_whole_word_is_taken(prompt: str, expected: str) -> None:
    labels = [label("car", "Pkw"), label("other"), label("racing car"), label("c++"), label("straße")]
    assert label_for(prompt, config(*labels)).value == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["only"], "only"),
        (["a", "Thing", "Object"], "Object"),
        (["a", "thing", "OTHER"], "OTHER"),
        (["a", "b"], "a"),
    ],
)
def test_else_the_only_label_or_a_catch_all_or_the_first(labels: list[str], expected: str) -> None:
    assert label_for("zebra", config(*map(label, labels))).value == expected


def test_every_request_carries_its_label() -> None:
    task = {"id": 1, "data": {"prompts": ["the cat", "the dog"]}}
    requests = prompts_for(task, None, config(label("dog"), label("cat")))
    assert [(request.prompt, request.label.value) for request in requests] == [
        ("the cat", "cat"),
        ("the dog", "dog"),
    ]
