"""Which of several things is meant: by place, rank and size, and not at all where people might disagree."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ris_core.data.derive import phrases
from ris_core.data.derive.choices import Thing, choices
from ris_core.data.derive.words import mirror_words, noun, pair

HEIGHT, WIDTH = 60, 100


def box(x: int, y: int, width: int, height: int) -> Thing:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return Thing("cup", mask, noun("cup"))


def said(*things: Thing) -> dict[str, int]:
    """Each choice's first template -> the place of the thing it means."""
    return {choice.templates[0]: things.index(choice.thing) for choice in choices(things)}


def test_two_side_by_side() -> None:
    assert said(box(60, 20, 20, 20), box(10, 22, 20, 20)) == {"the left {}": 1, "the right {}": 0}


def test_three_in_a_row() -> None:
    assert said(box(10, 20, 15, 20), box(70, 20, 15, 20), box(40, 22, 15, 20)) == {
        "the leftmost {}": 0,
        "the rightmost {}": 1,
        "the {} in the middle": 2,
        "the second {} from the left": 2,
        "the second {} from the right": 2,
    }


def test_four_in_a_row_have_no_middle() -> None:
    answers = said(*(box(x, 20, 12, 12) for x in (5, 30, 55, 80)))
    assert answers["the second {} from the left"] == 1
    assert answers["the second {} from the right"] == 2
    assert not any("middle" in sentence or "third" in sentence for sentence in answers)


def test_five_in_a_row_have_a_third_from_either_side() -> None:
    answers = said(*(box(x, 20, 10, 10) for x in (2, 22, 42, 62, 82)))
    assert answers["the third {} from the left"] == answers["the third {} from the right"] == 2
    assert answers["the {} in the middle"] == 2


def test_nothing_is_second_where_things_are_strewn_about() -> None:
    answers = said(box(10, 0, 15, 10), box(40, 48, 15, 10), box(70, 0, 15, 10))
    assert set(answers) == {"the leftmost {}", "the rightmost {}", "the bottom {}"}


def test_one_above_the_other() -> None:
    assert said(box(40, 40, 20, 15), box(42, 5, 20, 15)) == {"the top {}": 1, "the bottom {}": 0}


def test_above_is_not_said_of_what_is_rather_beside() -> None:
    assert "the top {}" not in said(box(5, 5, 15, 10), box(70, 40, 15, 10))


@pytest.mark.parametrize(
    "other",
    [box(12, 22, 20, 20), box(19, 20, 20, 20), box(12, 25, 10, 10)],
    ids=["nearly the same place", "over its centre", "inside it"],
)
def test_things_in_each_others_way_have_no_side(other: Thing) -> None:
    assert set(said(box(10, 20, 20, 20), other)) <= {"the larger {}"}


def test_the_larger_is_larger_by_half() -> None:
    assert said(box(5, 20, 31, 20), box(60, 20, 20, 20)).get("the larger {}") == 0
    assert "the larger {}" not in said(box(5, 20, 29, 20), box(60, 20, 20, 20))


def test_a_thin_thing_is_not_small_only_for_having_few_pixels() -> None:
    frame = box(55, 10, 40, 40)
    frame.mask[12:48, 57:93] = False
    answers = said(box(5, 15, 30, 30), frame)
    assert "the larger {}" not in answers
    assert "the smaller {}" not in answers


@pytest.mark.parametrize(
    "small", [box(90, 20, 10, 10), box(60, 0, 10, 10), box(41, 20, 10, 10)], ids=["cut", "cut above", "half hidden"]
)
def test_what_may_be_larger_than_it_looks_is_not_the_smaller(small: Thing) -> None:
    answers = said(box(5, 10, 35, 40), small)
    assert "the smaller {}" not in answers
    assert answers["the larger {}"] == 0


def test_whole_and_free_it_is_the_smaller() -> None:
    assert said(box(5, 10, 35, 40), box(60, 20, 10, 10))["the smaller {}"] == 1


def test_specks_in_the_background_are_overlooked_but_spoil_the_count() -> None:
    speck = box(1, 1, 2, 2)
    answers = said(box(15, 20, 15, 20), box(45, 20, 15, 20), box(75, 20, 15, 20), speck)
    assert answers == {"the leftmost {}": 0, "the rightmost {}": 2}


def test_small_but_no_speck_leaves_all_in_doubt() -> None:
    assert said(box(15, 20, 8, 8), box(75, 20, 8, 8), box(1, 1, 5, 5)) == {}


@pytest.mark.parametrize("count", [0, 1, 9])
def test_none_one_and_too_many_have_no_choice(count: int) -> None:
    assert said(*(box(11 * number, 20, 9, 9) for number in range(count))) == {}


def test_nobody_speaks_of_the_larger_shoe() -> None:
    single = pair("shoes")
    assert single
    shoes = [Thing("shoes", box(*where).mask, single) for where in ((10, 20, 30, 20), (60, 20, 10, 10))]
    assert {choice.templates[0] for choice in choices(shoes)} == {"the left {}", "the right {}"}


@pytest.mark.parametrize("seed", range(40))
def test_a_mirrored_photo_allows_the_mirrored_choices_of_the_same_things(seed: int) -> None:
    draw = random.Random(seed)
    things = [
        box(draw.randrange(80), draw.randrange(40), draw.randrange(4, 20), draw.randrange(4, 20))
        for _ in range(draw.randrange(2, 6))
    ]
    mirrored = [Thing(thing.name, thing.mask[:, ::-1], thing.noun) for thing in things]
    there = {(mirror_words(t), things.index(choice.thing)) for choice in choices(things) for t in choice.templates}
    assert there == {(t, mirrored.index(choice.thing)) for choice in choices(mirrored) for t in choice.templates}


def test_every_phrase_survives_two_mirrors_and_only_sides_change() -> None:
    sides = [*phrases.side(True, 2), *phrases.side(True, 3), *phrases.rank(2, True), *phrases.rank(3, True)]
    others = [*phrases.TOP, *phrases.BOTTOM, *phrases.MIDDLE, *phrases.LARGEST, *phrases.SMALLER, *phrases.ALL]
    assert all(mirror_words(mirror_words(template)) == template != mirror_words(template) for template in sides)
    assert all(mirror_words(template) == template for template in others)
    assert mirror_words("the second person from the left") == "the second person from the right"
