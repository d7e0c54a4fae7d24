"""The baseline that paints all of a class, and how a model compares to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ris_core.data import read_folder
from ris_core.evaluation.baseline import Advantage, advantage, choices_of


def annotation(number: int, x: int, category: int = 1, photo: int = 1, crowd: int = 0) -> dict[str, object]:
    """A square of 4 x 4 pixels."""
    square = [[x, 0, x + 4, 0, x + 4, 4, x, 4]]
    return {"id": number, "image_id": photo, "category_id": category, "segmentation": square, "iscrowd": crowd}


def ref(number: int, *meant: int) -> dict[str, object]:
    sentences = [{"sent_id": number, "sent": f"ref {number}", "raw": ""}]
    return {"ref_id": number, "image_id": 1, "ann_id": list(meant), "split": "test", "sentences": sentences}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    annotations = [
        *(annotation(1, 0), annotation(2, 8), annotation(3, 16)),
        *(annotation(4, 24, category=2), annotation(5, 0, photo=2), annotation(6, 28, crowd=1)),
    ]
    images = [{"id": number, "file_name": f"{number}.png", "height": 8, "width": 40} for number in (1, 2)]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    refs = [ref(1, 1), ref(2, 1, 2), ref(3, 1, 2, 3), ref(4, 4), ref(5, -1)]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    return tmp_path


def test_a_choice_means_some_of_a_class_in_its_photo_but_not_all(folder: Path) -> None:
    chosen = {sample.sentence: baseline for sample, baseline in choices_of(folder, read_folder(folder))}
    assert chosen == {"ref 1": pytest.approx(1 / 3), "ref 2": pytest.approx(2 / 3)}


def test_a_number_alone_is_read_as_refcoco_has_it(folder: Path) -> None:
    refs = json.loads((folder / "refs.json").read_text())
    before = choices_of(folder, read_folder(folder))
    single = [each | {"ann_id": each["ann_id"][0]} if len(each["ann_id"]) == 1 else each for each in refs]
    (folder / "refs.json").write_text(json.dumps(single))
    assert choices_of(folder, read_folder(folder)) == before


def test_only_the_samples_given_are_asked(folder: Path) -> None:
    assert choices_of(folder, read_folder(folder)[1:2])[0][0].sentence == "ref 2"
    assert choices_of(folder, read_folder(folder)[2:]) == []


def test_a_constant_lead_has_no_spread() -> None:
    assert advantage([0.5, 0.9], [0.25, 0.65], ["a", "b"]) == Advantage(
        pytest.approx(0.7), pytest.approx(0.45), pytest.approx(0.25), pytest.approx(0.25)
    )


def test_expressions_of_one_photo_are_drawn_together() -> None:
    ahead = [1.0] * 20 + [0.0] * 20
    apart = advantage(ahead, [0.5] * 40, range(40))
    together = advantage(ahead, [0.5] * 40, ["a"] * 20 + ["b"] * 20)
    assert (together.low, together.high) == (-0.5, 0.5)
    assert -0.2 < apart.low < 0 < apart.high < 0.2
    assert (together.model, together.baseline) == (apart.model, apart.baseline) == (0.5, 0.5)


def test_a_photo_with_more_expressions_weighs_more() -> None:
    result = advantage([1.0, 1.0, 1.0, 0.0], [0.0] * 4, ["a", "a", "a", "b"])
    assert result.model == 0.75
    assert (result.low, result.high) == (0.0, 1.0)


@pytest.mark.parametrize(("model", "baseline"), [([], []), ([0.5], []), ([0.5], [0.5, 0.5])])
def test_nothing_and_unequal_lists_are_refused(model: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no expression|argument"):
        advantage(model, baseline, ["a"] * len(model))
