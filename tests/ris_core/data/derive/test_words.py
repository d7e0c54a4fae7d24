"""Nouns people would say."""

from __future__ import annotations

import pytest

from ris_core.data.derive.words import Noun, alike, has_colour, may_be, mentions, noun, pair, synonyms


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("dog", "dogs"),
        ("bus", "buses"),
        ("bench", "benches"),
        ("toothbrush", "toothbrushes"),
        ("wine glass", "wine glasses"),
        ("knife", "knives"),
        ("mouse", "mice"),
        ("person", "people"),
        ("sheep", "sheep"),
        ("skis", "skis"),
    ],
)
def test_plurals(name: str, many: str) -> None:
    assert (noun(name).one, noun(name).many) == (name, many)


def test_one_pair_of_skis_and_two_are_both_skis() -> None:
    assert not noun("skis").counted
    assert noun("cup").counted


def test_shoes_are_worn_in_twos_and_dresses_are_not() -> None:
    assert pair("shoes") == Noun("shoe", "shoes", is_pair=True)
    assert pair("dress") is None


def test_synonyms_begin_with_the_name_itself() -> None:
    assert synonyms("couch") == ("couch", "sofa")
    assert synonyms("dog") == ("dog",)


def test_nobody_is_called_a_man_on_a_guess() -> None:
    assert synonyms("person") == ("person",)
    assert synonyms("people") == ("people",)


def test_boots_may_be_called_shoes() -> None:
    assert {"boots", "shoes"} <= alike("boots")
    assert "hat" not in alike("boots")
    assert alike("hat") == {"hat"}


def test_colours_are_said_of_painted_and_dyed_things_only() -> None:
    assert has_colour("fire hydrant")
    assert not has_colour("skin")
    assert not has_colour("zebra")


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("the second dog from the left", "dog"),
        ("both dogs", "dog"),
        ("The Sofa", "couch"),
        ("a red chair", "couch"),
        ("two people", "person"),
        ("the left sneaker", "boots"),
        ("the accessories", "belt"),
        ("wine glass on the left", "wine glass"),
    ],
)
def test_sentences_that_one_more_could_make_untrue(sentence: str, name: str) -> None:
    assert mentions(sentence, name)


@pytest.mark.parametrize(("sentence", "name"), [("the hot dogs", "cat"), ("the cupboard", "cup"), ("a carpet", "car")])
def test_sentences_that_stay_true(sentence: str, name: str) -> None:
    assert not mentions(sentence, name)


@pytest.mark.parametrize(
    ("worn", "name"), [("jeans", "pants"), ("boots", "shoes"), ("shoes", "boots"), ("ring", "accessories")]
)
def test_a_thing_may_belong_to_a_class_that_it_is_not_labelled_as(worn: str, name: str) -> None:
    assert {worn, name} <= may_be(worn)


@pytest.mark.parametrize(("worn", "name"), [("jeans", "skirt"), ("boots", "sneakers"), ("dog", "cat")])
def test_what_is_only_mixed_up_is_surely_absent(worn: str, name: str) -> None:
    assert name not in may_be(worn)
