"""Expressions of whole photos: what is said, of what, and what is kept silent."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ris_core.data.derive.choices import Thing
from ris_core.data.derive.expressions import DerivedExpression, derive_expressions
from ris_core.data.derive.words import noun

HEIGHT, WIDTH = 60, 100
RED, BLUE, GREEN, WHITE, BLACK = (200, 20, 20), (30, 60, 160), (40, 140, 60), (240, 240, 240), (20, 20, 20)
LEFT, MIDDLE, RIGHT = (5, 20, 20, 20), (40, 20, 20, 20), (75, 20, 20, 20)


class Scene:
    """A light photo to paint things into."""

    def __init__(self) -> None:
        self.image = np.full((HEIGHT, WIDTH, 3), (200, 160, 140), np.uint8)
        self.things: list[Thing] = []

    def add(self, name: str, where: tuple[int, int, int, int], colour: tuple[int, int, int] = WHITE) -> Thing:
        x, y, width, height = where
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[y : y + height, x : x + width] = True
        self.image[mask] = colour
        self.things.append(Thing(name, mask, noun(name)))
        return self.things[-1]

    def derive(self, *kinds: str, unsure: tuple[str, ...] = ()) -> list[DerivedExpression]:
        return [
            expression
            for expression in derive_expressions(self.things, self.image, "photo", unsure)
            if not kinds or expression.kind in kinds
        ]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_sentences_are_drawn_by_the_seed_alone(scene: Scene) -> None:
    scene.add("couch", LEFT)
    scene.add("couch", RIGHT)
    seeds = ["a", "a", "b", "c"]
    first, again, *others = [
        [expression.sentences for expression in derive_expressions(scene.things, scene.image, seed)] for seed in seeds
    ]
    assert first == again
    assert any(first != other for other in others)


def test_each_sentence_is_a_phrasing_with_the_thing_in_it(scene: Scene) -> None:
    one = scene.add("couch", LEFT)
    scene.add("couch", RIGHT)
    (left, _) = scene.derive("derived")
    assert left.things == (one,)
    assert len(set(left.sentences)) == 3
    assert all("left" in sentence and ("couch" in sentence or "sofa" in sentence) for sentence in left.sentences)


def test_two_are_both(scene: Scene) -> None:
    both = (scene.add("person", LEFT), scene.add("person", RIGHT))
    plural = scene.derive("plural")
    assert [expression.things for expression in plural] == [both, both]
    assert all("people" in sentence for expression in plural for sentence in expression.sentences)
    assert any("two" in sentence or "both" in sentence for sentence in plural[1].sentences)


def test_what_cannot_be_counted_for_sure_has_no_number(scene: Scene) -> None:
    for where in (LEFT, RIGHT, (50, 1, 2, 2)):
        scene.add("person", where)
    (every,) = scene.derive("plural")
    assert len(every.things) == 3
    assert not any("three" in sentence for sentence in every.sentences)


def test_a_single_thing_has_neither_side_nor_plural(scene: Scene) -> None:
    scene.add("person", LEFT)
    assert scene.derive("derived", "plural") == []


def test_nothing_is_said_of_a_class_with_a_crowd(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    scene.add("bus", RIGHT, BLUE)
    assert scene.derive()
    assert scene.derive(unsure=("bus",)) == []


def test_nothing_is_said_of_a_thing_labelled_twice(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    scene.add("bus", (6, 20, 20, 20), RED)
    scene.add("bus", RIGHT, RED)
    assert scene.derive() == []


def test_the_only_one_of_its_colour(scene: Scene) -> None:
    red = scene.add("bus", LEFT, RED)
    blue = scene.add("bus", RIGHT, BLUE)
    (first, second) = scene.derive("attribute")
    assert (set(first.sentences), first.things) == ({"the red bus", "red bus"}, (red,))
    assert (set(second.sentences), second.things) == ({"the blue bus", "blue bus"}, (blue,))


def test_one_colour_of_all_is_said_of_all(scene: Scene) -> None:
    both = (scene.add("bus", LEFT, RED), scene.add("bus", RIGHT, RED))
    (only,) = scene.derive("attribute")
    assert (set(only.sentences), only.things) == ({"the red buses", "red buses"}, both)


def test_a_single_thing_is_called_by_its_colour(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    assert [set(expression.sentences) for expression in scene.derive("attribute")] == [{"the red bus", "red bus"}]


def test_a_colour_that_another_has_in_part_singles_out_none(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    scene.add("bus", RIGHT, BLUE)
    scene.image[20:24, 75:95] = RED
    assert [expression.sentences[0].removeprefix("the ") for expression in scene.derive("attribute")] == ["blue bus"]


def test_another_of_no_clear_colour_may_have_it(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    scene.add("bus", RIGHT, (0, 150, 150))
    assert scene.derive("attribute") == []


@pytest.mark.parametrize("name", ["zebra", "pizza", "tv"])
def test_some_things_have_no_colour(scene: Scene, name: str) -> None:
    scene.add(name, LEFT, RED)
    assert scene.derive("attribute", "contradicted") == []


def test_no_colours_are_told_at_night(scene: Scene) -> None:
    scene.image[:] = 10
    scene.add("bus", LEFT, RED)
    assert scene.derive() == []


def test_clothes_are_looked_for_at_the_chest_of_who_stands(scene: Scene) -> None:
    scene.add("person", (10, 0, 20, 50), BLACK)
    scene.image[10:25, 10:30] = RED
    (dressed,) = scene.derive("attribute")
    assert set(dressed.sentences) == {"the person in red", "person in red", "person wearing red"}


def test_who_lies_is_not_called_by_clothes(scene: Scene) -> None:
    scene.add("person", (10, 20, 50, 20), RED)
    assert scene.derive("attribute") == []


def untrue(scene: Scene, photos: int = 300) -> Counter[str]:
    """What is said against the scene's colours, were it so many photos of different names."""
    said: Counter[str] = Counter()
    for number in range(photos):
        untrue = [
            expression
            for expression in derive_expressions(scene.things, scene.image, str(number))
            if expression.kind == "contradicted"
        ]
        assert len(untrue) <= 1
        for expression in untrue:
            (sentence,) = expression.sentences
            assert expression.things == ()
            said[sentence.removeprefix("the ")] += 1
    return said


def test_contradictions_are_of_nothing_and_of_far_off_colours(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    scene.add("chair", RIGHT, BLUE)
    buses, chairs = ("green", "blue", "white", "yellow"), ("red", "yellow", "orange", "pink")
    assert untrue(scene).keys() <= {*(f"{colour} bus" for colour in buses), *(f"{colour} chair" for colour in chairs)}


def test_a_colour_that_is_seldom_true_is_seldom_said(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    said = untrue(scene)
    assert said["white bus"] > 50
    assert said["blue bus"] > 50
    assert 0 < said["green bus"] < 25
    assert said["yellow bus"] < 10


def test_black_is_doubted_wherever_it_can_be(scene: Scene) -> None:
    scene.add("bus", LEFT, WHITE)
    said = untrue(scene)
    assert said.total() == 300
    assert said["black bus"] > 150


def test_what_a_look_alike_has_is_no_contradiction(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    for colour, where in ((GREEN, (30, 5, 9, 9)), (BLUE, (45, 5, 9, 9))):
        scene.add("truck", where, colour)
    scene.add("truck", RIGHT, (0, 150, 150))
    assert untrue(scene).keys() <= {"white bus", "yellow bus"}


def test_nothing_is_contradicted_where_one_has_no_clear_colour(scene: Scene) -> None:
    scene.add("bus", LEFT, RED)
    scene.add("bus", RIGHT, (0, 150, 150))
    assert not untrue(scene)
