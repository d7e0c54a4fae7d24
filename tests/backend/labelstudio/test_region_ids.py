"""What is asked again in the editor replaces its own answer, unless somebody changed that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.labelstudio.label_config import parse
from backend.labelstudio.region_ids import stable_ids
from backend.labelstudio.regions import mask_regions

CONFIG = parse(
    '<View><Image name="img" value="$image"/><BrushLabels name="brush" toName="img"><Label value="cat"/></BrushLabels>'
    '<PolygonLabels name="poly" toName="img"><Label value="cat"/><Label value="dog"/></PolygonLabels></View>'
)
MASK = np.zeros((20, 30), np.bool_)
MASK[2:8, 3:9] = MASK[12:18, 20:28] = True


def answered(task: dict[str, Any], prompt: str = "the cat", label: int = 0) -> list[dict[str, Any]]:
    return stable_ids(mask_regions(CONFIG, CONFIG.labels[label], MASK, 0.5, prompt), prompt, task)


def ids(task: dict[str, Any], **options: Any) -> list[str]:
    return [region["id"] for region in answered(task, **options)]


def test_the_same_question_has_the_same_ids_and_another_has_others() -> None:
    first = ids({})
    assert len(set(first)) == len(first) == 3
    assert ids({}) == first
    assert not set(first) & {*ids({}, prompt="the kitten"), *ids({}, label=1)}


@pytest.mark.parametrize("name", ["drafts", "annotations"])
def test_an_answer_that_nobody_changed_is_replaced(name: str) -> None:
    drawn = answered({})
    # The editor rounds what it sends.
    drawn[1]["value"]["points"] = [[round(x, 2), round(y, 2)] for x, y in drawn[1]["value"]["points"]]
    assert ids({name: [{"result": drawn}]}) == ids({})


def test_what_was_offered_is_replaced_unless_somebody_changed_that() -> None:
    offered = [{**region, "id": f"offered-{number}"} for number, region in enumerate(answered({}))]
    new = mask_regions(CONFIG, CONFIG.labels[0], np.roll(MASK, 1, 0), 0.5, "the cat")

    def named(task: dict[str, Any], offered: list[dict[str, Any]]) -> list[str]:
        return [region["id"] for region in stable_ids(new, "the cat", task, offered)]

    assert named({}, offered) == [region["id"] for region in offered]
    # Others' regions and broken ones aren't in the way.
    assert named({}, [{"id": "x"}, {"type": 3, "value": None}, *offered]) == [region["id"] for region in offered]
    assert named({}, offered[:1]) == ["offered-0", *ids({})[1:]]
    assert named({"drafts": [{"result": offered}]}, offered) == [region["id"] for region in offered]
    moved = {**offered[1], "value": {**offered[1]["value"], "points": [[1, 2], [50, 60], [3, 40]]}}
    erased = {**offered[0], "origin": "prediction-changed"}
    expected = [ids({})[0], ids({})[1], "offered-2"]
    assert named({"drafts": [{"result": [erased, moved, offered[2]]}]}, offered) == expected


def changed(number: int, **fields: Any) -> list[dict[str, Any]]:
    drawn = answered({})
    drawn[number] |= fields
    return drawn


@pytest.mark.parametrize(
    ("number", "drawn"),
    [
        (0, changed(0, origin="prediction-changed")),
        (0, changed(0, value={"format": "rle", "rle": [], "brushlabels": ["other"]})),
        (1, changed(1, value={"points": [[1, 2], [50, 60], [3, 40]], "closed": True, "polygonlabels": ["cat"]})),
        (2, changed(2, value={"points": [[1, 2], [3]], "closed": True, "polygonlabels": ["cat"]})),
    ],
)
def test_an_answer_that_was_changed_stays(number: int, drawn: list[dict[str, Any]]) -> None:
    before, after = ids({}), ids({"drafts": [None, {"result": drawn}]})
    assert [new == old for new, old in zip(after, before, strict=True)] == [index != number for index in range(3)]
    assert ids({"drafts": [{"result": [*drawn, *answered({"drafts": [{"result": drawn}]})]}]}) == after


def test_a_label_that_people_chose_for_an_open_one_stays() -> None:
    shown = stable_ids(mask_regions(CONFIG, None, MASK, 0.5, "the cup"), "the cup", {})
    untouched = [{**region, "value": {"format": "rle", "rle": region["value"]["rle"]}} for region in shown]
    chosen = [{**region, "value": {**region["value"], "brushlabels": ["cat"]}} for region in shown]
    for drawn, same in ((untouched, True), (chosen, False)):
        again = stable_ids(shown, "the cup", {"drafts": [{"result": drawn}]})
        assert (again[0]["id"] == shown[0]["id"]) == same
