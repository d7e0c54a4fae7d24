"""What annotators did to predictions: compared mask by mask, and remembered after the predictions are gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CONFIG, absent, annotation, drawn, task, typed

from backend.datasets.annotations import Correction, Corrections, Edit, read_corrections
from backend.datasets.edits import EditLedger, measure_edits
from backend.labelstudio import label_config
from backend.labelstudio.regions import mask_regions, prompt_region

HEIGHT, WIDTH = 40, 60
POLYGONS = label_config.parse(
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<PolygonLabels name="poly" toName="img"><Label value="cat"/></PolygonLabels></View>'
)


def square(top: int = 10, left: int = 10, side: int = 20) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def predicted(number: int, *result: dict[str, Any], version: str = "lda-1.aa") -> dict[str, Any]:
    return {"id": number, "result": list(result), "model_version": version}


class LabelStudio:
    """Tasks with their predictions; remembers which were asked for."""

    def __init__(self, *tasks: dict[str, Any]) -> None:
        self.tasks = {found["id"]: found for found in tasks}
        self.asked: list[int] = []

    def fetch(self, ids: Sequence[int]) -> Iterable[dict[str, Any]]:
        self.asked += ids
        return [self.tasks[number] for number in ids if number in self.tasks]


def read(site: LabelStudio, home: Path, interface: label_config.LabelConfig = CONFIG) -> list[Correction]:
    corrections = read_corrections(site.tasks.values(), interface)
    return list(measure_edits(corrections, EditLedger(home, 1), site.fetch, interface).items)


def one(
    home: Path, submitted: list[dict[str, Any]], *predictions: dict[str, Any], parent: int | None = 4, **more: Any
) -> Correction:
    """The correction of a task with these predictions and an annotation made from the one of that number."""
    made = annotation(1, *submitted, parent_prediction=parent, lead_time=2.5)
    (correction,) = read(LabelStudio({**task(1, made, **more), "predictions": list(predictions)}), home)
    return correction


def edits(correction: Correction) -> list[Edit]:
    return [said.edit for said in correction.expressions if said.edit]


CAT = drawn("a", square(), "cat", "a cat", origin="prediction")
VERSION = {"version": "lda-1.aa"}


def test_an_answer_that_was_left_as_it_is_was_accepted(tmp_path: Path) -> None:
    correction = one(tmp_path, [CAT], predicted(4, CAT))
    assert edits(correction) == [Edit("accepted", 1.0, 0, **VERSION)]


def test_a_corrected_answer_is_measured(tmp_path: Path) -> None:
    moved = drawn("a", square(left=20), "cat", "a cat", origin="prediction-changed")
    correction = one(tmp_path, [moved], predicted(4, CAT))
    assert edits(correction) == [Edit("corrected", pytest.approx(1 / 3), 400, **VERSION)]


def test_a_polygon_that_was_moved_was_corrected_whatever_label_studio_says(tmp_path: Path) -> None:
    (proposed,) = mask_regions(POLYGONS, POLYGONS.labels[0], square(), 0.9, "a cat")
    points = [[x + 10, y] for x, y in proposed["value"]["points"]]
    moved = {**proposed, "value": {**proposed["value"], "points": points}}
    assert moved["origin"] == "prediction"
    for submitted, kind in ((moved, "corrected"), (proposed, "accepted")):
        made = annotation(1 if kind == "corrected" else 2, submitted, parent_prediction=4)
        (correction,) = read(
            LabelStudio({**task(1, made), "predictions": [predicted(4, proposed)]}), tmp_path, POLYGONS
        )
        assert [edit.kind for edit in edits(correction)] == [kind]


def test_what_nobody_proposed_was_drawn_by_hand(tmp_path: Path) -> None:
    mine = drawn("m", square(), "cup", "a cup")
    asked = prompt_region(CONFIG, (HEIGHT, WIDTH), "a cat", "a cup")
    # Whether it was asked for, the TextArea says: asked and not found is the model's mistake.
    assert edits(one(tmp_path, [CAT, mine], predicted(4, CAT, asked))) == [
        Edit("accepted", 1.0, 0, **VERSION),
        Edit("manual", 0.0, 400, **VERSION),
    ]
    other = tmp_path / "other"
    assert edits(one(other, [CAT, mine], predicted(4, CAT)))[1] == Edit("manual")


def test_something_absent_is_agreed_upon_or_emptied(tmp_path: Path) -> None:
    asked, said = prompt_region(CONFIG, (HEIGHT, WIDTH), "a cat"), [typed("a cat"), absent()]
    assert edits(one(tmp_path / "1", said, predicted(4, asked))) == [Edit("accepted", 1.0, 0, **VERSION)]
    assert edits(one(tmp_path / "2", said, predicted(4, CAT))) == [Edit("rejected", 0.0, 400, **VERSION)]
    assert edits(one(tmp_path / "3", said, parent=None)) == [Edit("manual")]


def test_the_prediction_is_the_parent_else_the_one_with_the_same_regions(tmp_path: Path) -> None:
    old = predicted(3, drawn("o", square(), prompt="a cat"), version="old")
    new = predicted(5, drawn("n", square(left=12), prompt="a cat"), version="new")
    both = [old, new]
    by_hand = drawn("n", square(left=12), "cat", "a cat", origin="prediction")
    assert edits(one(tmp_path / "1", [by_hand], *both, parent=3))[0].version == "old"
    assert edits(one(tmp_path / "2", [by_hand], *both, parent=None)) == [Edit("accepted", 1.0, 0, version="new")]
    nobody = drawn("x", square(), "cat", "a cat", origin="prediction")
    assert edits(one(tmp_path / "3", [nobody], *both, parent=None)) == [Edit("accepted")]


def test_who_asked_for_one_of_several_himself_rejected_none(tmp_path: Path) -> None:
    """Where a picture is begun empty, an answer has the id of the region that was offered, and no parent."""
    dog = drawn("d", square(left=12), "dog", "a dog")
    assert [one.prompt for one in one(tmp_path / "1", [CAT], predicted(4, CAT, dog)).expressions] == ["a cat", "a dog"]
    asked = one(tmp_path / "2", [CAT], predicted(4, CAT, dog), parent=None)
    assert [(one.prompt, one.edit.kind) for one in asked.expressions if one.edit] == [("a cat", "accepted")]


@pytest.mark.parametrize(
    ("origin", "kind"), [("manual", "manual"), ("prediction", "accepted"), ("prediction-changed", "corrected")]
)
def test_without_a_prediction_label_studios_word_is_taken(tmp_path: Path, origin: str, kind: str) -> None:
    found = one(tmp_path, [drawn("a", square(), "cat", "a cat", origin=origin)], parent=None)
    assert edits(found) == [Edit(kind)]  # type: ignore[arg-type]


def test_a_broken_prediction_or_one_of_another_size_costs_the_measure_alone(tmp_path: Path) -> None:
    broken = {**CAT, "value": {**CAT["value"], "rle": [1, 2, 3]}}
    assert edits(one(tmp_path / "1", [CAT], predicted(4, broken))) == [Edit("accepted")]
    small = drawn("a", square()[:30], "cat", "a cat")
    assert edits(one(tmp_path / "2", [CAT], predicted(4, small))) == [Edit("accepted")]


def test_what_was_measured_outlives_the_prediction(tmp_path: Path) -> None:
    """Label Studio forgets the parent when a prediction is deleted."""
    moved = drawn("a", square(left=20), "cat", "a cat", origin="prediction")
    site = LabelStudio({**task(1, annotation(1, moved, parent_prediction=4)), "predictions": [predicted(4, CAT)]})
    before = read(site, tmp_path)
    assert site.asked == [1]
    again = read(site, tmp_path)
    assert site.asked == [1], "what is known isn't asked for again"
    site.tasks[1]["predictions"] = []
    site.tasks[1]["annotations"][0]["parent_prediction"] = None
    after = read(site, tmp_path)
    assert [edits(item) for item in (*before, *again, *after)] == 3 * [
        [Edit("corrected", pytest.approx(1 / 3), 400, **VERSION)]
    ]
    # Saved again, it is another mask, and nothing is left to compare it with.
    site.tasks[1]["annotations"][0]["result"] = [drawn("a", square(left=21), "cat", "a cat", origin="prediction")]
    assert edits(read(site, tmp_path)[0]) == [Edit("accepted")]


def test_masks_drawn_by_hand_cost_no_request(tmp_path: Path) -> None:
    site = LabelStudio(task(1, annotation(1, drawn("a", square(), "cat", "a cat"))), task(2))
    assert [edits(item) for item in read(site, tmp_path)] == [[Edit("manual")]]
    assert site.asked == []
    assert not (tmp_path / "projects").exists()


def test_a_task_that_is_deleted_meanwhile_is_measured_by_its_origins(tmp_path: Path) -> None:
    site = LabelStudio(task(1, annotation(1, CAT, parent_prediction=4)))
    corrections = read_corrections(site.tasks.values(), CONFIG)
    found = measure_edits(corrections, EditLedger(tmp_path, 1), lambda ids: [], CONFIG)
    assert isinstance(found, Corrections)
    assert edits(found.items[0]) == [Edit("accepted")]


def test_a_damaged_ledger_is_written_anew(tmp_path: Path) -> None:
    ledger = EditLedger(tmp_path, 1)
    ledger.add({"1:aa": {"kind": "manual"}})
    ledger.add({"2:bb": {"kind": "accepted"}})
    assert ledger.read() == {"1:aa": {"kind": "manual"}, "2:bb": {"kind": "accepted"}}
    (tmp_path / "projects" / "1.changes.json").write_text("{")
    assert ledger.read() == {}
    ledger.add({"1:aa": {"kind": "manual"}})
    assert ledger.read() == {"1:aa": {"kind": "manual"}}
