"""A prediction beside what was submitted: the right masks, and a picture of both."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from annotated import CONFIG, annotation, drawn, task, typed
from PIL import Image
from small_project import PHOTOS, blob, build, photo

from backend.datasets.history import SnapshotExpression, read_expressions
from backend.datasets.pairs import WIDTH, draw_pair, predicted_mask, submitted_mask

BEFORE, AFTER = blob(1), blob(2)


def expression(home: Path, *result: dict, **about: object) -> SnapshotExpression:
    [only] = read_expressions(build(home, [task(1, annotation(11, *result, **about))]).folder)
    return only


def predictions(*rows: tuple[int, list[dict]]) -> list[dict]:
    return [{"id": number, "model_version": "lda-1", "result": result} for number, result in rows]


def test_the_prediction_that_an_annotation_was_made_from_is_found(tmp_path: Path) -> None:
    corrected = expression(tmp_path, drawn("a", AFTER, "cat", "the cat"), parent_prediction=5)
    there = predictions(
        (4, [drawn("z", blob(3), "cat", "the cat")]),
        (5, [drawn("a", BEFORE, "cat", "the cat"), drawn("b", blob(4), "cup", "a cup")]),
    )
    predicted = predicted_mask(corrected, there, CONFIG)
    assert predicted is not None
    assert (predicted == BEFORE).all()
    assert (submitted_mask(corrected) == AFTER).all()


def test_without_its_parent_regions_tell(tmp_path: Path) -> None:
    corrected = expression(tmp_path, drawn("a", AFTER, "cat", "the cat"))
    there = predictions((4, [drawn("a", BEFORE, "cat", "the cat")]), (6, [drawn("y", blob(3), "cat", "the cat")]))
    predicted = predicted_mask(corrected, there, CONFIG)
    assert predicted is not None
    assert (predicted == BEFORE).all()


def test_what_was_refused_is_an_empty_mask(tmp_path: Path) -> None:
    corrected = expression(tmp_path, drawn("a", AFTER, "cat", "the cat"), parent_prediction=5)
    predicted = predicted_mask(corrected, predictions((5, [typed("the cat")])), CONFIG)
    assert predicted is not None
    assert not predicted.any()


@pytest.mark.parametrize(
    "result",
    [
        [],
        [drawn("q", BEFORE, "cup", "a cup")],
        [drawn("a", np.ones((5, 6), dtype=np.bool_), "cat", "the cat")],
    ],
    ids=["nothing", "something else", "another size"],
)
def test_what_was_not_predicted_is_unknown(tmp_path: Path, result: list[dict]) -> None:
    corrected = expression(tmp_path, drawn("a", AFTER, "cat", "the cat"), parent_prediction=5)
    assert predicted_mask(corrected, predictions((5, result)), CONFIG) is None
    assert predicted_mask(corrected, [], CONFIG) is None


def test_a_picture_shows_both_masks(tmp_path: Path) -> None:
    corrected = expression(tmp_path, drawn("a", AFTER, "cat", "the cat"), parent_prediction=5)
    drawings = {name: draw_pair(corrected, mask) for name, mask in (("both", BEFORE), ("one", None))}
    pixels = {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for name, data in drawings.items()}
    assert pixels["both"].shape == pixels["one"].shape == (*AFTER.shape, 3)
    assert drawings["both"] != drawings["one"]


def test_a_large_photo_is_drawn_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (1200, 900)
    monkeypatch.setitem(PHOTOS, 1, photo(1, size))
    mask = np.zeros(size, dtype=np.bool_)
    mask[300:900, 200:700] = True
    corrected = expression(tmp_path, drawn("a", mask, "cat", "the cat"))
    with Image.open(io.BytesIO(draw_pair(corrected, mask))) as picture:
        assert picture.size == (WIDTH * 3 // 4, WIDTH)
        red, green, blue = picture.convert("RGB").getpixel((150, 240))
    # Submitted in blue and predicted in orange over it: the photo is grey noise, this isn't.
    assert red > blue, (red, green, blue)
