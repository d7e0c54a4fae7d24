"""Which label a sentence means: by name, by meaning, or as a guess that says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.labelstudio.label_config import LabelConfig, parse
from backend.prompts.label_matching import SAME_MEANING, bare, find_label
from backend.prompts.sentence_vectors import CachedSentenceVectors

vectors = CachedSentenceVectors()


def config(*labels: str) -> LabelConfig:
    tags = "".join(labels)
    return parse(
        f'<View><Image name="img" value="$image"/><BrushLabels name="brush" toName="img">{tags}</BrushLabels></View>'
    )


def label(value: str, **attributes: str) -> str:
    written = "".join(f' {name}="{text}"' for name, text in attributes.items())
    return f'<Label value="{value}"{written}/>'


STREET = config(
    label("car", alias="Pkw"), label("other"), label("racing car"), label("c++"), label("straße"), label("table")
)


@pytest.mark.parametrize(
    ("sentence", "expected"),
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
def test_a_label_that_is_named_as_a_whole_word_is_taken(sentence: str, expected: str) -> None:
    assert find_label(sentence, STREET).label.value == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the man next to the car", "man"),
        ("the car next to the man", "car"),
        ("the cup on the table", "cup"),
        ("left of the car that the man drives", "car"),
        ("the table lamp", "lamp"),
        ("the cup of tea", "cup of tea"),
        ("a piece of the table", "table"),
    ],
)
def test_what_a_sentence_is_about_counts_before_what_else_it_names(sentence: str, expected: str) -> None:
    labels = config(*map(label, ("car", "man", "table", "lamp", "cup", "cup of tea", "other")))
    assert find_label(sentence, labels).label.value == expected


@pytest.mark.parametrize(
    ("sentence", "labels", "expected"),
    [
        ("the man next to the car", ("car", "Person"), "Person"),
        ("two women", ("car", "people"), "people"),
        ("the woman", ("person", "woman"), "woman"),
        ("the person's car", ("person", "car"), "car"),
        ("the man", ("car", "other"), "other"),
    ],
)
def test_people_are_persons(sentence: str, labels: tuple[str, ...], expected: str) -> None:
    assert find_label(sentence, config(*map(label, labels))).label.value == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["only"], "only"), (["a", "Thing", "Object"], "Object"), (["a", "thing", "OTHER"], "OTHER")],
)
def test_else_the_only_label_or_a_catch_all(labels: list[str], expected: str) -> None:
    named = find_label("zebra", config(*map(label, labels)))
    assert named.label.value == expected
    assert bool(named.note) == (len(labels) > 1)


def test_a_catch_all_says_so() -> None:
    note = find_label("the zebra", config(label("car"), label("other"))).note
    assert note == 'no label is called anything like "the zebra", so this is "other"'


@pytest.mark.parametrize("with_vectors", [False, True])
def test_an_unknown_noun_gets_no_wrong_label(with_vectors: bool) -> None:
    labels = config(label("cat"), label("person"), label("flower"))
    named = find_label("the cup", labels, vectors=vectors if with_vectors else None)
    assert named.label is None
    assert named.note == 'no label is called anything like "the cup", so it has none yet: choose one'


def test_a_label_has_the_names_of_its_attributes() -> None:
    labels = config(label("p", predicted_values="person, human"), label("v", prompts="a vehicle|the big truck"))
    values = [find_label(sentence, labels).label.value for sentence in ("the Human", "the old vehicle", "a big truck")]
    assert values == ["p", "v", "v"]


def test_a_label_has_the_names_of_the_prompt_sheet() -> None:
    labels = config(label("person"), label("other"))
    assert find_label("the old cyclist", labels, {"person": ["cyclist"]}).label.value == "person"


# Measured with all-MiniLM-L6-v2: what means the same is at or above the threshold, what doesn't is below.


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the puppy", "dog"),
        ("the small puppy on the left", "dog"),
        ("the dogs", "dog"),
        ("a couch", "sofa"),
        ("the automobile", "car"),
        ("the kitten", "cat"),
        ("the bike", "bicycle"),
    ],
)
def test_a_label_is_found_by_its_meaning(sentence: str, expected: str) -> None:
    labels = config(*map(label, ("sofa", "car", "cat", "dog", "bicycle", "other")))
    named = find_label(sentence, labels, vectors=vectors)
    assert (named.label.value, named.note) == (expected, "")


@pytest.mark.parametrize("sentence", ["the zebra", "the road", "a lamp", "the truck", "the chair", "the left one"])
def test_what_means_something_else_is_a_guess(sentence: str) -> None:
    labels = config(*map(label, ("sofa", "car", "cat", "dog", "bicycle", "other")))
    named = find_label(sentence, labels, vectors=vectors)
    assert named.label.value == "other"
    assert named.note


def test_the_nearest_meaning_wins_from_the_threshold_on() -> None:
    def crafted(sentences: Sequence[str]) -> NDArray[np.float32]:
        at = {"x": 0.0, "near": np.arccos(SAME_MEANING + 0.01), "far": np.arccos(SAME_MEANING - 0.01)}
        return np.array([[np.cos(at[sentence]), np.sin(at[sentence])] for sentence in sentences], dtype=np.float32)

    assert find_label("the x", config(label("far"), label("near")), vectors=crafted).label.value == "near"
    assert find_label("the x", config(label("far"), label("other")), vectors=crafted).note


@pytest.mark.parametrize(
    ("sentence", "expected"), [("The cat", "cat"), ("all the cats", "cats"), (" a  b ", "b"), ("theatre", "theatre")]
)
def test_bare(sentence: str, expected: str) -> None:
    assert bare(sentence) == expected
