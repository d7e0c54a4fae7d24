"""How annotators took the predictions, in figures: by hand, by label and by version."""

from __future__ import annotations

import numpy as np
from annotated import CONFIG, annotation, drawn, task

from backend.datasets.acceptance import summary
from backend.datasets.annotations import Correction, Edit, Expression, read_corrections

MASK = np.zeros((20, 20), dtype=np.bool_)
MASK[5:15, 5:15] = True


def said(prompt: str, kind: str, iou: float | None = None, version: str | None = "a", there: bool = True) -> Expression:
    return Expression(prompt, ("r",) if there else (), Edit(kind, iou, 0, version=version))  # type: ignore[arg-type]


def made(*expressions: Expression, lead_time: float | None = None) -> Correction:
    (read,) = read_corrections([task(1, annotation(1, drawn("r", MASK, "cat")))], CONFIG).items
    return Correction(1, 1, "", read.objects, expressions, lead_time=lead_time)


def test_figures_by_hand() -> None:
    found = summary(
        [
            made(said("a cat", "accepted", 1.0), said("two cats", "corrected", 0.5), lead_time=4.0),
            made(said("a cat", "manual", 0.0, "b"), said("a cup", "accepted", 1.0, "b", there=False), lead_time=2.0),
            made(said("a cat", "manual", None, None)),
        ],
        CONFIG,
    )
    counts = {"accepted": 1, "corrected": 1, "manual": 2, "absent": 1}
    assert {name: found[name] for name in counts} == counts
    assert (found["annotations"], found["expressions"], found["compared"]) == (3, 5, 4)
    assert (found["accepted_share"], found["iou"], found["lead_time"]) == (0.5, 0.5875, 3.0)
    assert list(found["by_label"]) == ["cat", "cup"]
    assert found["by_label"]["cup"]["absent"] == 1
    assert [(row["prompt"], row["label"], row["origin"]) for row in found["items"]] == [
        ("a cat", "cat", "accepted"),
        ("two cats", "cat", "corrected"),
        ("a cat", "cat", "manual"),
        ("a cup", "cup", "absent"),
        ("a cat", "cat", "manual"),
    ]
    assert found["items"][1] == {
        "task": 1,
        "prompt": "two cats",
        "label": "cat",
        "origin": "corrected",
        "iou": 0.5,
        "version": "a",
    }
    assert {name: row["iou"] for name, row in found["by_version"].items()} == {"a": 0.675, "b": 0.5, "none": None}


def test_nothing_submitted_has_figures_too() -> None:
    found = summary([], CONFIG)
    assert (found["expressions"], found["accepted_share"], found["iou"], found["lead_time"]) == (0, None, None, None)
