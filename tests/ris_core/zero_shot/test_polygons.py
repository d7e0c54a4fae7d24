"""Answers of Florence-2 beside the library's own post-processing."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers import RobertaTokenizer
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

from ris_core.zero_shot.polygons import BINS, Polygon, filled, parse

SQUARE = "<loc_100><loc_200><loc_300><loc_200><loc_300><loc_400><loc_100><loc_400>"
TRIANGLE = "<loc_0><loc_0><loc_999><loc_0><loc_0><loc_999>"


def spelt(*texts: str) -> list[str]:
    """Each place and each sign a word, as the tokenizer has them."""
    return [
        word + ">" if word.startswith("<") else word for word in "".join(texts).replace("<", "><").split(">") if word
    ]


def theirs(words: list[str]) -> list[list[list[int]]]:
    """The library's corners, column and row after each other, in bins."""
    reader = Florence2PostProcessor({"polygons": {}}, RobertaTokenizer(vocab={"<s>": 0, "</s>": 1}, merges=[]))
    things = reader(text="".join(words), image_size=(BINS, BINS), parse_tasks="polygons")["polygons"]
    return [thing["polygons"] for thing in things]


def ours(words: list[str]) -> list[list[list[int]]]:
    return [[polygon.corners.flatten().tolist() for polygon in thing] for thing in parse(words)]


@pytest.mark.parametrize(
    "text",
    [
        f"</s><s>{SQUARE}</s>",
        f"<s>{SQUARE}<sep>{TRIANGLE}</s><pad><pad>",
        f"<poly>{SQUARE}</poly><poly>{TRIANGLE}<sep>{SQUARE}</poly>",
        f"dog{SQUARE}cat{TRIANGLE}",
        f"dog{SQUARE}<loc_7>",
        f"{SQUARE}<poly>{TRIANGLE}",
        f"<poly>{SQUARE}",
        "<loc_1><loc_2><loc_3>",
        "<loc_1><sep><sep><sep>",
        "<sep><sep><sep><sep>",
        "<poly></poly><poly></poly>",
        "",
        "no such thing",
    ],
)
def test_things_as_the_library_reads_them(text: str) -> None:
    assert ours(spelt(text)) == theirs(spelt(text))


def test_any_answer_as_the_library_reads_it() -> None:
    chance, some = random.Random(0), 0
    for _ in range(2000):
        words = chance.choices(
            ["<sep>", "<poly>", "</poly>", "<s>", "</s>", "<pad>", "dog", "<loc_5>", "<loc_77>", "<loc_999>"],
            [3, 2, 2, 1, 1, 1, 1, 9, 9, 9],
            k=chance.randint(0, 30),
        )
        assert ours(words) == theirs(words), words
        some += bool(ours(words))
    assert some > 500


def test_a_polygon_knows_its_words() -> None:
    words = spelt(f"<s>dog<pad>{SQUARE}<sep>{TRIANGLE}</s>")
    [[square, triangle]] = parse(words)
    assert "".join(words[slice(*square.words)]) == SQUARE
    assert "".join(words[slice(*triangle.words)]) == TRIANGLE


def polygon(*corners: tuple[int, int]) -> Polygon:
    return Polygon(np.array(corners, np.int64).reshape(-1, 2), (0, 0))


def test_what_is_inside_is_filled() -> None:
    mask = filled([polygon((250, 500), (749, 500), (749, 999), (250, 999))], (100, 200))
    expected = np.zeros((100, 200), bool)
    expected[50:, 50:150] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95


def test_filled_as_pillow_fills_it() -> None:
    corners = [(100, 100), (900, 300), (500, 500), (700, 900), (200, 800)]
    canvas = Image.new("1", (BINS, BINS))
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    assert np.mean(filled([polygon(*corners)], (BINS, BINS)) ^ np.asarray(canvas)) < 0.002


def test_parts_that_overlap_are_one_mask() -> None:
    one, other = (
        polygon((0, 0), (600, 0), (600, 600), (0, 600)),
        polygon((400, 400), (999, 400), (999, 999), (400, 999)),
    )
    mask = filled([one, other], (50, 50))
    assert mask[25, 25] and mask[5, 5] and mask[45, 45] and not mask[5, 45]


def test_a_polygon_that_crosses_itself_has_two_insides() -> None:
    mask = filled([polygon((100, 100), (900, 900), (900, 100), (100, 900))], (50, 50))
    assert mask[25, 10] and mask[25, 40] and not mask[5, 25] and not mask[45, 25]


LINE = [(5, 5), (500, 500), (900, 900)]


@pytest.mark.parametrize("corners", [[], LINE[:1], LINE[:2], LINE, [(7, 7)] * 4])
def test_what_has_no_inside_is_nothing(corners: list[tuple[int, int]]) -> None:
    assert not filled([polygon(*corners)], (50, 50)).any()
