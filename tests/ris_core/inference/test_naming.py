"""What of a sentence names a thing, and what only chooses among several; sentences as people put them in RefCOCO."""

from __future__ import annotations

import pytest

from ris_core.inference.naming import kind_of, kind_phrase, name_part, names_place


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("guy on right", "guy"),
        ("The left dog", "dog"),
        ("second zebra from the left", "zebra"),
        ("toilet, bottom right corner", "toilet"),
        ("the blue boat nearest to the camera", "blue boat"),
        ("table in front of plate", "table"),
        ("the leg at very top of pic", "leg"),
        ("his board", "board"),
        ("bottom row second from left", ""),
        ("zebra", "zebra"),
    ],
)
def test_place_size_and_order_are_taken_away(sentence: str, name: str) -> None:
    assert name_part(sentence) == name


@pytest.mark.parametrize("sentence", ["the cat", "red bus", "all the dogs", "woman in a red coat", "cup of coffee"])
def test_a_name_and_looks_are_no_place(sentence: str) -> None:
    assert not names_place(sentence)


@pytest.mark.parametrize("sentence", ["left cat", "biggest slice", "cat at the top", "dog behind the fence", "middle"])
def test_place_size_order_and_relations_are(sentence: str) -> None:
    assert names_place(sentence)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("the lady in red on the left", "person"),
        ("guy gray shirt", "person"),
        ("yellow taxi", "car"),
        ("tow truck on the right", "truck"),
        ("her umbrella", ""),
        ("girl umbrella", ""),
        ("left dog", ""),
    ],
)
def test_words_that_were_never_taught_are_read_as_their_kind(sentence: str, kind: str) -> None:
    assert kind_of(sentence) == kind


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("the cat", ""),
        ("a red bus", ""),
        ("both dogs", ""),
        ("both of the dogs", ""),
        ("every one of the dogs", ""),
        ("one facing us", ""),
        ("left red bus", "red bus"),
        ("dog with a collar", "dog"),
        ("kitten", "cat"),
        ("middle", ""),
    ],
)
def test_more_is_asked_only_where_a_sentence_says_more_than_a_name(sentence: str, phrase: str) -> None:
    assert kind_phrase(sentence) == phrase
