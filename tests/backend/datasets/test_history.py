"""How annotators took predictions, from snapshots: the same figures as from the annotations themselves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from annotated import CONFIG, absent, annotation, drawn, task, typed
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import PHOTOS, TASKS, blob, build

from backend.datasets import history
from backend.datasets.acceptance import ORIGINS, summary
from backend.datasets.annotations import read_corrections
from backend.datasets.edits import EditLedger, measure_edits
from backend.datasets.snapshots import build_snapshot

PROJECT = 3
VERSION = "lda-1a2b3c4d"


def prediction(number: int, *regions: dict) -> dict:
    return {"id": number, "model_version": VERSION, "result": list(regions)}


def shifted(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, 2, axis=1)


def changed(kind: str, number: int) -> tuple[dict, dict]:
    """A task whose prediction was taken in one of the ways, and that prediction."""
    mask, sentence = blob(number), "the cat"
    offered = drawn("r1", mask, "cat", sentence)
    submitted = {
        "accepted": [drawn("r1", mask, "cat", sentence, origin="prediction")],
        "corrected": [drawn("r1", shifted(mask), "cat", sentence, origin="prediction-changed")],
        "rejected": [typed(sentence), absent()],
        "manual": [drawn("m1", mask, "cup", "a cup")],
        "absent": [typed("a unicorn"), absent()],
    }[kind]
    made_from = {"parent_prediction": number} if kind not in ("manual", "absent") else {}
    proposed = [offered] if made_from else []
    return task(number, annotation(100 + number, *submitted, **made_from)), {
        "id": number,
        "predictions": [prediction(number, *proposed)] if made_from else [],
    }


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(ORIGINS), min_size=1, max_size=6))
def test_a_snapshot_tells_the_same_as_the_annotations(tmp_path_factory: pytest.TempPathFactory, kinds: list) -> None:
    home = tmp_path_factory.mktemp("home")
    tasks, predicted = zip(*(changed(kind, number) for number, kind in enumerate(kinds, 1)), strict=True)
    corrections = measure_edits(
        read_corrections(tasks, CONFIG),
        EditLedger(home, PROJECT),
        lambda ids: [row for row in predicted if row["id"] in ids],
        CONFIG,
    )
    snapshot = build_snapshot(PROJECT, corrections, CONFIG, lambda item: PHOTOS[item.task], home)
    expected = summary(corrections.items, CONFIG)
    expressions = history.read_expressions(snapshot.folder)
    [moment] = history.history(home, PROJECT)
    assert len(expressions) == expected["expressions"]
    for name in ("expressions", *ORIGINS, "compared", "accepted_share"):
        assert moment.figures[name] == expected[name], name
    assert moment.figures["iou"] == pytest.approx(expected["iou"], abs=1e-4)
    prompts = history.by_prompt(expressions)
    assert sum(row["expressions"] for row in prompts.values()) == len(expressions)
    counts = [row["expressions"] for row in prompts.values()]
    assert counts == sorted(counts, reverse=True)


def test_labels_of_what_is_there_are_those_of_the_annotations(tmp_path: Path) -> None:
    expressions = history.read_expressions(build(tmp_path).folder)
    labels = history.by_label(expression for expression in expressions if expression.instances)
    expected = summary(read_corrections(TASKS, CONFIG).items, CONFIG)["by_label"]
    there = {label: row["expressions"] - row["absent"] for label, row in expected.items()}
    counts = {label: row["expressions"] for label, row in labels.items()}
    assert counts == {label: count for label, count in there.items() if count}


def test_history_counts_what_is_new_from_snapshot_to_snapshot(tmp_path: Path) -> None:
    first = build(tmp_path, TASKS[:1])
    os.utime(first.folder, (100, 100))
    second = build(tmp_path, TASKS[:3])
    os.utime(second.folder, (200, 200))
    moved = task(1, annotation(11, drawn("a", shifted(blob(1)), "cat", "The cat"), drawn("b", blob(2), "dog", "a dog")))
    third = build(tmp_path, [moved, *TASKS[1:3]])
    os.utime(third.folder, (300, 300))
    moments = history.history(tmp_path, PROJECT)
    assert [(moment.snapshot, moment.time) for moment in moments] == [
        (snapshot.id, time) for snapshot, time in ((first, 100.0), (second, 200.0), (third, 300.0))
    ]
    assert [moment.figures["expressions"] for moment in moments] == [2, 2, 1]


def test_an_expression_is_found_by_its_number(tmp_path: Path) -> None:
    folder = build(tmp_path).folder
    expressions = history.read_expressions(folder)
    assert all(history.find_expression(folder, one.ref.number) is one for one in expressions)
    assert history.find_expression(folder, 1) is None
